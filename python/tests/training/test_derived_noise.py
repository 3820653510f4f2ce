"""The input noise that is derived where a recipe has none: what it goes by, and that it is the same however rows are given."""

import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, planted
from usae._data.activations import as_aligned
from usae._training import derived_noise
from usae._training.derived_noise import HELD_OUT, OF_LINEAR, PENALTIES

DERIVED = RECIPE.replace(input_noise=None)


def derived(acts, recipe=DERIVED):
    return derived_noise.derived([as_aligned(acts, "acts")], recipe)


def photographs(n_images, seed=0, places=50, widths=(24, 30)):
    """[n_images, places, width]: two networks see the same of an image and some of their own, at each place alike."""
    rng, maps = np.random.default_rng(seed), np.random.default_rng(7)
    common = rng.standard_normal((n_images, 10))
    acts = {}
    for name, width in zip("ab", widths, strict=True):
        seen = common @ maps.standard_normal((10, width)) / np.sqrt(10) + 0.4 * rng.standard_normal((n_images, width))
        acts[name] = np.repeat(seen[:, None], places, 1).astype(np.float32)
    return acts


def flat(acts):
    return {name: x.reshape(-1, x.shape[-1]) for name, x in acts.items()}


def test_few_photographs_need_more_noise_than_many():
    few, some, many = (derived(photographs(n)) for n in (60, 240, 2000))
    assert 1 > few > 1.4 * some > 2 * many > 0


def test_copies_of_tokens_are_no_more_tokens():
    """Ten times as many patches of the same images say nothing new, so maps need as much penalty as before."""
    one, ten = (derived(photographs(60, places=places)) for places in (20, 200))
    assert one == pytest.approx(ten, rel=0.05)


def test_images_are_found_in_rows_without_a_shape():
    """Long blocks of rows hold few images in part, so the penalty is much the same as with the images known."""
    acts = photographs(240)
    assert derived(flat(acts)) == pytest.approx(derived(acts), rel=0.4)


def test_it_is_the_root_of_the_penalty_that_predicts_best():
    """Against ridge regression by normal equations, on images that were not fitted, and to the spacing of the penalties."""
    acts = photographs(80, places=20)
    new = np.repeat(np.arange(80) % HELD_OUT == 1, 20)
    own = {name: x.astype(float) for name, x in flat(acts).items()}
    own = {name: x - x[~new].mean(0) for name, x in own.items()}
    own = {name: x / np.sqrt((x[~new] ** 2).mean()) for name, x in own.items()}
    best = []
    for x, y in ((own["a"], own["b"]), (own["b"], own["a"])):
        gram, cross = x[~new].T @ x[~new] / (~new).sum(), x[~new].T @ y[~new] / (~new).sum()
        errors = [((y[new] - x[new] @ np.linalg.solve(gram + p * np.eye(len(gram)), cross)) ** 2).sum() for p in PENALTIES]
        best.append(PENALTIES[int(np.argmin(errors))] * (~new).mean())
    assert derived(acts) == pytest.approx(OF_LINEAR * np.exp(np.mean(np.log(best))) ** 0.5, rel=0.13)


def test_units_and_origins_do_not_matter():
    acts = photographs(60)
    moved = {"a": acts["a"].astype(np.float64) * 1e6 + 3e5, "b": acts["b"] * np.float32(1e-4)}
    assert derived(moved) == derived(acts)


def test_wide_models_and_narrow_ones_are_treated_alike():
    """Wider than there are rows: products of rows in place of covariances, with the same result."""
    acts = flat(photographs(60, places=4))
    embedded = {name: np.pad(x, ((0, 0), (0, 9 * x.shape[1]))) for name, x in acts.items()}
    # Penalties are for dimensions of variance 1, of which the embedded models have ten times as many.
    assert derived(embedded) == pytest.approx(np.sqrt(10) * derived(acts), rel=0.02) or derived(embedded) == 1


def test_without_another_model_or_enough_rows_there_is_none():
    acts = photographs(60)
    assert derived({"a": acts["a"]}) == 0
    assert derived({name: x[:3] for name, x in acts.items()}) == 0
    assert derived({"a": acts["a"], "b": np.ones_like(acts["b"])}) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert derived({"a": acts["a"], "b": np.full_like(acts["b"], np.nan)}) == 0


def test_outlying_rows_do_not_count():
    acts = photographs(60)
    sinks = {name: x.copy() for name, x in acts.items()}
    for x in sinks.values():
        x[::100] *= 1000
    assert derived(sinks) == pytest.approx(derived(acts), rel=0.3)


def test_fit_derives_it_and_tells_and_keeps_it(tmp_path):
    acts = photographs(40)
    sae = usae.UniversalSAE(24, 3, recipe=DERIVED, seed=0).fit(acts, steps=3, progress=False)
    assert sae.recipe.input_noise is None and sae.recipe_.input_noise == derived(acts) > 0
    sae.save(tmp_path / "run")
    loaded = usae.load(tmp_path / "run")
    assert loaded.recipe_ == sae.recipe_ and loaded.recipe == sae.recipe
    asked = usae.UniversalSAE(24, 3, recipe=DERIVED.replace(input_noise=0.25), seed=0).fit(acts, steps=3, progress=False)
    assert asked.recipe_.input_noise == 0.25
    first = usae.UniversalSAE(24, 3, recipe=DERIVED, seed=0)
    first.partial_fit(acts)
    assert first.recipe_.input_noise == 0


def test_arrays_stores_and_streams_have_the_same(tmp_path):
    acts = photographs(40)
    with usae.ActivationStore.create(tmp_path / "store") as writer:
        writer.append(acts)
    assert derived(usae.ActivationStore(tmp_path / "store")) == derived(acts)


def test_of_weakly_paired_rows_the_most_that_are_aligned_count():
    acts = photographs(40)
    alone = {"a": photographs(80, seed=5)["a"]}
    parts = usae.WeaklyPaired(acts, alone)
    sae = usae.UniversalSAE(24, 3, recipe=DERIVED, seed=0).fit(parts, steps=3, progress=False)
    assert sae.recipe_.input_noise == derived(acts)


def test_it_is_next_to_nothing_for_known_concepts():
    acts = planted(4000, seed=1)
    assert derived(acts) < 0.05
