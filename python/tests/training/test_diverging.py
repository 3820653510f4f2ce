"""Recipes at the limits of their fields: parameters that are no longer finite are an error that names fields and step."""

import copy
import pickle

import numpy as np
import pytest

import usae
from support.autoencoders import small
from support.refusals import refuses

SPOILS = {"epsilon": 0.0}
"""AdamW divides 0 by 0 in the rows of concepts that have not fired."""


@pytest.mark.parametrize("recipe", [SPOILS, {"epsilon": 1e-300}])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_fit_says_that_its_parameters_are_lost(acts, recipe, steps, tmp_path):
    sae = small(**recipe)
    with refuses("recipe", "NaN or infinity in dictionary of model 'dinov2' after step 1", remedy="epsilon"):
        sae.fit(acts, steps=steps, checkpoint=tmp_path / "run")
    assert not list((tmp_path / "run").glob("step-*")), "a checkpoint that cannot be loaded"


def test_every_call_that_ends_training_says_so(acts):
    calls = {
        "callback": lambda sae: sae.fit(acts, steps=3, callbacks=[lambda report: True]),
        "fit_stream": lambda sae: sae.fit_stream([acts] * 9, steps=1, buffer_tokens=600),
        "partial_fit": lambda sae: [sae.partial_fit(acts), sae.partial_fit(acts)],
    }
    for name, call in calls.items():
        with refuses("recipe", "NaN or infinity in"):
            pytest.fail(f"{name} gave {call(small(**SPOILS))}")


@pytest.mark.parametrize("keep", [pickle.dumps, copy.deepcopy, lambda sae: sae.save("save")])
def test_what_could_not_be_loaded_is_not_written(acts, keep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sae = small(**SPOILS)
    sae.partial_fit(acts)
    with refuses("recipe", "NaN or infinity in"):
        keep(sae)
    assert not list(tmp_path.iterdir())


def test_a_large_rate_is_still_accepted(acts):
    sae = small(learning_rate=1e3, warmup_steps=0).fit(acts, steps=3)
    assert all(np.isfinite(x).all() for x in sae.parameters("vit").values())
    with refuses("recipe: learning_rate"):
        usae.Recipe(learning_rate=1e30)
