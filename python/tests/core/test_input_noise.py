"""What noise in what encoders read does. Gradients are in test_gradients.py and test_agreement.py, threads, processes and
interrupted runs in test_determinism.py, test_shared_steps.py and test_resuming.py."""

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, planted

WIDE = {"a": 150, "b": 200}


def blurred(n_tokens, seed):
    """Tokens with a common code, and as much of their own in many more directions than there are tokens to learn them from."""
    own = np.random.default_rng(seed)
    clean = planted(n_tokens, seed, WIDE)
    return {name: x + x.std() * own.standard_normal(x.shape).astype(np.float32) for name, x in clean.items()}


@pytest.mark.slow
def test_few_tokens_are_not_learned_by_heart():
    """R2 of the other model rises where tokens are new, and falls where they are those of training."""
    few, held_out = blurred(200, seed=1), blurred(800, seed=2)

    def r2(deviation, acts):
        recipe = RECIPE.replace(batch_size=100, input_noise=deviation)
        sae = usae.UniversalSAE(256, 8, recipe=recipe, seed=1).fit(few, steps=600, progress=False)
        found = np.array(sae.evaluate(acts).r2, float)
        return found[~np.eye(len(found), dtype=bool)].mean()

    assert r2(1.0, held_out) > r2(0.0, held_out) + 0.02
    assert r2(1.0, few) < r2(0.0, few) - 0.02


def test_models_have_noise_of_their_own():
    x = planted(100, seed=3, widths={"a": 20})["a"]
    recipe = RECIPE.replace(input_noise=0.5)
    sae = usae.UniversalSAE(30, 3, recipe=recipe, seed=1).initialize({"a": 20, "b": 20})
    for name, array in sae.parameters("a").items():
        sae.set_parameters("b", {name: array})
    of_a, of_b = (sae.gradients({"a": x, "b": x}, encoder=name)[1][name]["encoder_weight"] for name in ("a", "b"))
    assert not np.allclose(of_a, of_b)
    again = sae.gradients({"a": x, "b": x}, encoder="a")[1]["a"]["encoder_weight"]
    assert np.array_equal(again, of_a), "the same in the same step"
