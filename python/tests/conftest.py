"""Fixtures of all tests: three models' activations with a known common code, and an SAE fitted to them."""

import signal

import hypothesis
import pytest

import usae
from support.autoencoders import N_TOKENS, RECIPE, planted

# The machine's load decides how long an example takes, so time is no reason to fail.
hypothesis.settings.register_profile("usae", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("usae")

# In the background of a script SIGINT is ignored, which is inherited: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def acts():
    activations = planted(N_TOKENS, seed=0)
    for array in activations.values():
        array.flags.writeable = False  # a test that changes its input fails
    return activations


@pytest.fixture(scope="session")
def held_out():
    return planted(200, seed=1)


@pytest.fixture(scope="session")
def trained(acts):
    """Fitted once; for tests that do not change it."""
    return usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, steps=60)


@pytest.fixture(params=["linear", "batchnorm"])
def sae(request, acts):
    """Fitted anew for each test, with either encoder."""
    recipe = RECIPE.replace(encoder=request.param)
    return usae.UniversalSAE(32, 4, recipe=recipe, seed=3).fit(acts, steps=30)
