"""The learning rate that a recipe without one derives from each model's activations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE

WIDTH = 48


def tokens(spread, seed=0, n=3000):
    """Rows whose principal components have the given deviations, in directions drawn at random."""
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.normal(size=(len(spread), len(spread))))[0]
    return (random.normal(size=(n, len(spread))) * spread) @ turned * 7 + 3


def participation_ratio(x):
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False))
    return variances.sum() ** 2 / (variances**2).sum()


SPREADS = {
    "all directions alike": np.ones(WIDTH),
    "a few main directions": np.r_[np.full(4, 5.0), np.full(WIDTH - 4, 0.3)],
    "one direction": np.r_[50.0, np.full(WIDTH - 1, 0.1)],
}


def begun(acts, **changes):
    recipe = usae.recipes.default(**{"batch_size": 128, "warmup_steps": 0} | changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return usae.UniversalSAE(32, 4, recipe=recipe, seed=0).fit(acts, steps=1, progress=False)


def effective_dimensions(sae, model=0):
    return float(sae._autoencoder.read(model, "effective_dimensions")[0])


@pytest.mark.parametrize("name", SPREADS)
def test_effective_dimensions_are_the_participation_ratio(name):
    acts = {"a": tokens(SPREADS[name]), "b": tokens(np.ones(5), seed=1)}
    sae = begun(acts)
    assert effective_dimensions(sae) == pytest.approx(participation_ratio(acts["a"]), rel=0.1)
    assert effective_dimensions(sae, 1) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_they_do_not_depend_on_units(unit):
    x = tokens(SPREADS["a few main directions"])
    assert effective_dimensions(begun({"a": x * unit})) == pytest.approx(effective_dimensions(begun({"a": x})), rel=1e-3)


def test_rows_that_do_not_count_and_rows_far_away_do_not_matter():
    x = tokens(SPREADS["a few main directions"])
    far = x.copy()
    far[::300] *= 1000
    assert effective_dimensions(begun({"a": far})) == pytest.approx(participation_ratio(x), rel=0.15)
    padded = np.concatenate([x, np.full_like(x, 1e6)])
    masked = usae.MaskedActivations({"a": padded}, mask=np.arange(len(padded)) < len(x))
    assert effective_dimensions(begun(masked)) == pytest.approx(participation_ratio(x), rel=0.1)


def test_each_model_is_stepped_at_its_own_rate():
    acts = {"even": tokens(np.ones(WIDTH)), "wide": tokens(np.r_[50.0, np.full(299, 0.1)], seed=1)}
    sae = begun(acts, total_steps=None, schedule="constant")
    assert (sae.recipe_.learning_rate, sae.recipe_.step_limit) == (7e-3, 0.15)
    widths = {name: x.shape[1] for name, x in acts.items()}
    expected = [
        min(7e-3, 0.15 * max(32, effective_dimensions(sae, i)) ** 0.5 / width) for i, width in enumerate(widths.values())
    ]
    assert expected[0] == 7e-3 and expected[1] < 4e-3
    batch = {name: x[:128] for name, x in acts.items()}
    rates = [sae.partial_fit(batch, encoder=name).learning_rate for name in acts]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_a_rate_that_is_given_is_the_rate_of_every_model():
    acts = {"even": tokens(np.ones(WIDTH)), "wide": tokens(np.r_[50.0, np.full(299, 0.1)], seed=1)}
    sae = begun(acts, learning_rate=2e-2, schedule="constant")
    batch = {name: x[:128] for name, x in acts.items()}
    assert [sae.partial_fit(batch, encoder=name).learning_rate for name in acts] == [2e-2, 2e-2]


def test_a_saved_autoencoder_goes_on_at_the_same_rates(tmp_path):
    acts = {"a": tokens(SPREADS["one direction"]), "b": tokens(SPREADS["a few main directions"], seed=1)}
    batch = {name: x[:128] for name, x in acts.items()}
    sae = begun(acts)
    sae.set_total_steps(None)
    sae.save(tmp_path / "saved", training_state=True)
    loaded = usae.load(tmp_path / "saved")
    for i in range(2):
        assert effective_dimensions(loaded, i) == effective_dimensions(sae, i) < WIDTH
    for name in acts:
        assert loaded.partial_fit(batch, encoder=name).learning_rate == sae.partial_fit(batch, encoder=name).learning_rate
        assert np.array_equal(loaded.parameters(name)["dictionary"], sae.parameters(name)["dictionary"])


def test_without_activations_every_direction_counts():
    assert effective_dimensions(usae.UniversalSAE(32, 4, recipe=RECIPE).initialize({"a": WIDTH})) == WIDTH
