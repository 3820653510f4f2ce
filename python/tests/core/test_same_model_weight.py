"""What the weight of the same model's reconstruction does. Gradients are in test_gradients.py and test_agreement.py, threads,
processes and interrupted runs in test_determinism.py, test_shared_steps.py and test_resuming.py."""

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, planted


def two_views(n_tokens, seed):
    """Two models with a common code, and as much of their own that the other cannot know."""
    common = planted(n_tokens, seed, {"a": 20, "b": 24})
    own = {name: planted(n_tokens, seed + 100 + i, {name: x.shape[1]})[name] for i, (name, x) in enumerate(common.items())}
    return {name: x + own[name] for name, x in common.items()}


def r2(weight, train, held_out):
    recipe = RECIPE.replace(encoded_models="two", same_model_weight=weight)
    sae = usae.UniversalSAE(96, 6, recipe=recipe, seed=1).fit(train, steps=400, progress=False)
    found = np.array(sae.evaluate(held_out).r2, float)
    return np.diag(found).mean(), found[~np.eye(2, dtype=bool)].mean()


@pytest.mark.slow
def test_more_weight_gives_r2_of_the_same_model_and_less_of_the_other():
    train, held_out = two_views(6000, seed=1), two_views(1000, seed=1001)
    same, other = zip(*(r2(weight, train, held_out) for weight in (0.2, 1.0, 5.0)), strict=True)
    assert same[0] < same[1] - 0.01 < same[2] - 0.02
    assert other[2] < other[1]


def gradients(acts, weight):
    recipe = RECIPE.replace(same_model_weight=weight)
    sae = usae.UniversalSAE(30, 3, recipe=recipe, seed=1).initialize({name: x.shape[1] for name, x in acts.items()})
    report, found = sae.gradients(acts, encoder="a")
    return report, {(name, key): array for name, own in found.items() for key, array in own.items()}


def test_one_model_alone_has_no_other_to_weigh_against():
    acts = planted(100, 3, {"a": 20})
    (one, plain), (five, weighted) = gradients(acts, 1.0), gradients(acts, 5.0)
    assert one.loss == five.loss
    assert all(np.array_equal(weighted[key], array) for key, array in plain.items())


def test_losses_are_reported_without_weights():
    acts = planted(100, 3, {"a": 20, "b": 24})
    (one, _), (five, _) = gradients(acts, 1.0), gradients(acts, 5.0)
    assert one.losses == five.losses
    same = five.losses[five.encoder]
    (other,) = (loss for name, loss in five.losses.items() if name != five.encoder)
    assert one.loss == pytest.approx(same + other, rel=1e-6)
    assert five.loss == pytest.approx((5 * same + other) / 3, rel=1e-6)
