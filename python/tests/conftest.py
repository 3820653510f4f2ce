"""What the tests of the Python package share: three models' activations with a known common code, and an SAE fitted to them."""

import pathlib
import re
import signal

import hypothesis
import numpy as np
import pytest

import usae

# The machine's load decides how long an example takes, so time is no reason to fail.
hypothesis.settings.register_profile("usae", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("usae")

# In the background of a script SIGINT is ignored, which is inherited: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

WIDTHS = {"dinov2": 12, "siglip": 24, "vit": 17}
N_TOKENS = 600
# What the kernels are compiled for, from the table in Package.swift, and those sets of it that multiply bytes fast.
TABLE = (pathlib.Path(__file__).resolve().parents[2] / "Package.swift").read_text(encoding="utf-8").partition("\n]\n")[0]
INSTRUCTION_SETS = dict(re.findall(r'name: "(\w+)".*?defines: "(.*?)"', TABLE, re.DOTALL))
SCREENING_KERNELS = [name for name, defines in INSTRUCTION_SETS.items() if re.search("VNNI|DOTPROD", defines)]
RECIPE = usae.recipes.default(batch_size=128, learning_rate=3e-3)


def planted(n_tokens, seed, widths=WIDTHS):
    """float32 activations of tokens with 3 of 20 concepts each, which every model shows in directions of its own."""
    directions, tokens = np.random.default_rng(7), np.random.default_rng(seed)
    code = np.zeros((n_tokens, 20))
    for row in code:
        row[tokens.choice(20, 3, replace=False)] = 1 + tokens.random(3)
    return {
        name: (code @ directions.standard_normal((20, width)) + directions.standard_normal(width)).astype(np.float32)
        for name, width in widths.items()
    }


def everything(sae):
    """All that one can learn about an SAE's state, as plain values that compare bit by bit."""
    return {
        "repr": repr(sae),
        "names": sae.model_names_,
        "widths": sae.n_features_in_,
        "recipe": sae.recipe_,
        "n_steps": sae.n_steps_,
        "history": repr(sae.history_),  # repr, because NaN is not equal to itself
        "parameters": {
            model: {name: values.tobytes() for name, values in sae.parameters(model).items()} for model in sae.model_names_
        },
    }


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
