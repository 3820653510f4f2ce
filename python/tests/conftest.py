"""Fixtures of all tests: three models' activations with a known common code, and an SAE fitted to them."""

import os
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

MOST_SECONDS = 5.0
"""CPU seconds above which a test without the mark `slow` is reported at the end of the run. Mark tests from two seconds on."""

_unmarked: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Counts seconds of the processors, with those of processes that a test starts: load does not lengthen them."""
    before = sum(os.times()[:4])
    result = yield
    seconds = sum(os.times()[:4]) - before
    if seconds > MOST_SECONDS and item.get_closest_marker("slow") is None:
        _unmarked.append(f"{item.nodeid} took {seconds:.1f} s of the processors: mark it slow, or make it quicker")
    return result


def pytest_terminal_summary(terminalreporter):
    if _unmarked:
        terminalreporter.section("slow tests that are not marked", yellow=True)
        for line in _unmarked:
            terminalreporter.line(line)


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
    """Fitted for each test, with either encoder."""
    recipe = RECIPE.replace(encoder=request.param)
    return usae.UniversalSAE(32, 4, recipe=recipe, seed=3).fit(acts, steps=30)
