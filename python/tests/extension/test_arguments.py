"""Numbers, names and recipes that the extension is given."""

import numpy as np
import pytest

from support.core import RECIPE, activations, new_core
from support.refusals import refuses
from usae import _usae


def test_a_recipe_has_every_entry_and_no_other():
    with pytest.raises(TypeError, match="'momentum'"):
        new_core(recipe={**RECIPE, "momentum": 0.9})
    for name in RECIPE:
        with pytest.raises(TypeError, match=f"'{name}'"):
            new_core(recipe={key: value for key, value in RECIPE.items() if key != name})
    for loss in (0.5, 1, None, "L1", "", b"l1"):
        with refuses("recipe['loss']", repr(loss)):
            new_core(recipe={**RECIPE, "loss": loss})
    for switch in (2, -1):
        with refuses("recipe['renormalize']", switch):
            new_core(recipe={**RECIPE, "renormalize": switch})
    with refuses("recipe['dead_tokens']", None, error=TypeError):
        new_core(recipe={**RECIPE, "dead_tokens": None})
    for shares in (0.5, ["a", 1]):
        with pytest.raises(TypeError):
            new_core(recipe={**RECIPE, "prefixes": shares})
    for shares in (range(17), [-1.0, 1.0], [0.5, 0, 1], [float("nan"), 1], [0.5]):
        with refuses("recipe['prefixes']" if len(shares) > 16 else "recipe.prefixes"):
            new_core(recipe={**RECIPE, "prefixes": shares})
    with refuses("recipe['beta1']", "'0.9'", error=TypeError):
        new_core(recipe={**RECIPE, "beta1": "0.9"})


def test_integers_that_do_not_fit_are_invalid_input(core):
    x = activations(3, 8)
    for argument, value, make in (
        ("n_concepts", 2**63, lambda value: new_core(n_concepts=value)),
        ("n_concepts", 0, lambda value: new_core(n_concepts=value)),
        ("k", -1, lambda value: new_core(k=value)),
        ("seed", -1, lambda value: new_core(seed=value)),
        ("seed", 2**64, lambda value: new_core(seed=value)),
        ("n_threads", 2**31, lambda value: new_core(n_threads=value)),
        ("recipe['aux_k']", -(2**63) - 1, lambda value: new_core(recipe={**RECIPE, "aux_k": value})),
        ("widths[0]", 2**63, lambda value: core.initialize(["a"], [value])),
        ("total_steps", -1, lambda value: core.set_plan(value, 0)),
        ("frozen", 2, lambda value: core.set_frozen(0, value)),
        ("model", -1, lambda value: core.set_frozen(value, 1)),
        ("encoder", 2**31, lambda value: core.step([x, x], None, value)),
        ("model", 2**31, lambda value: core.tensor_shape(value, 0)),
        ("step_count", -1, lambda value: setattr(core, "step_count", value)),
        ("n_rows", 2**63, lambda value: _usae.shuffled_rows(0, value, 0, np.empty(1, np.int64))),
        ("n_threads", 2**31, _usae.set_threads),
    ):
        with refuses(argument, value):
            make(value)
    for value in (4.5, float("nan"), -1.5):
        with refuses("k", value):
            new_core(k=value)
    with refuses("k", "'4.5'", error=TypeError):
        new_core(k="4.5")


def test_names_are_a_sequence_of_text(core):
    for names in ("ab", ["a", 3], [b"a", b"b"], None):
        with pytest.raises(TypeError):
            core.initialize(names, [8, 8])
    for names in (["a\0b", "c"], ["\ud800", "c"], ["a"], []):
        with pytest.raises(ValueError):
            core.initialize(names, [8, 8])
    assert core.names == ("vit", "dino")
