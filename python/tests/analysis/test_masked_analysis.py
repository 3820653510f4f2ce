"""Analyses of activations with a mask: the numbers of the rows that count alone, and row numbers of the whole arrays."""

import numpy as np
import pytest

import usae
from support.masks import images, masked, new
from support.refusals import refuses

N, TOKENS, GRID = 40, 20, (4, 5)


@pytest.fixture(scope="module")
def acts():
    return images(N, seed=0)


@pytest.fixture(scope="module")
def parts(acts):
    return masked(acts)


@pytest.fixture(scope="module")
def fitted(parts):
    return new().fit(parts[2], steps=30)


@pytest.fixture(params=["arrays", "store"])
def given(request, parts, tmp_path):
    """Activations that carry their mask."""
    mask, acts, _ = parts
    if request.param == "arrays":
        return usae.MaskedActivations(acts, mask)
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32", grid=GRID) as store:
        for rows in (slice(0, 13), slice(13, N)):
            store.append({name: x[rows] for name, x in acts.items()}, mask=mask[rows])
    return store


def test_top_examples_have_the_row_numbers_of_the_whole_arrays(given, parts, fitted):
    mask, _, kept = parts
    got, expected = usae.top_examples(fitted, given, n=5), usae.top_examples(fitted, kept, n=5)
    numbers = np.append(np.flatnonzero(mask), -1)
    np.testing.assert_array_equal(got.values, expected.values)
    np.testing.assert_array_equal(got.tokens, numbers[expected.tokens])
    assert (got.n_tokens, got.n_left_out) == (mask.sum(), (~mask).sum())


def test_an_image_has_one_example_by_the_grid_of_all_its_tokens(given, parts, acts, fitted):
    mask = parts[0].ravel()
    got = usae.top_examples(fitted, given, n=N, grid=GRID, one_per_image=True, models=["b"])
    codes = fitted.encode(acts["b"], "b").to_dense()
    codes[~mask] = 0
    best = codes.reshape(N, TOKENS, -1).max(1)
    for concept in range(64):
        active = np.flatnonzero(best[:, concept])
        order = active[np.argsort(-best[active, concept], kind="stable")]
        np.testing.assert_array_equal(got.images[0, concept][: len(order)], order)
        np.testing.assert_array_equal(got.values[0, concept][: len(order)], best[order, concept])
        assert (got.tokens[0, concept][len(order) :] == -1).all()
    assert mask[got.tokens[got.tokens >= 0]].all()


def test_chunks_of_a_store_without_any_row_that_counts_are_passed_over(acts, fitted, tmp_path, monkeypatch):
    from usae._data import chunks

    mask = np.zeros((N, TOKENS), bool)
    mask[3], mask[N - 1] = True, True
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        store.append(acts, mask=mask)
    monkeypatch.setattr(chunks.chunks, "__defaults__", (1, 50))
    got = usae.top_examples(fitted, store, n=3, one_per_image=True)
    expected = usae.top_examples(fitted, usae.MaskedActivations(acts, mask), n=3, one_per_image=True)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_array_equal(got.values, expected.values)


def test_latent_scaling_is_that_of_the_rows_that_count(given, parts, fitted):
    mask, _, kept = parts
    got, expected = usae.latent_scaling(fitted, given), usae.latent_scaling(fitted, kept)
    assert (got.n_tokens, got.n_left_out) == (mask.sum(), (~mask).sum())
    for owner in (None, "b"):
        got, expected = usae.latent_scaling(fitted, given, owner=owner), usae.latent_scaling(fitted, kept, owner=owner)
        np.testing.assert_equal(got.to_dict() | {"n_left_out": 0}, expected.to_dict())


@pytest.mark.slow
def test_controls_are_those_of_the_rows_that_count(given, parts, acts, fitted):
    mask, _, kept = parts
    other = np.random.default_rng(3).random(mask.shape) < 0.8
    options = {"n_draws": 20, "n_permutations": 4, "steps": 8}
    got = usae.controls(fitted, given, train=acts, train_mask=other, **options)
    expected = usae.controls(fitted, kept, train={name: x[other] for name, x in acts.items()}, **options)
    got, expected = (without_left_out(value.to_dict()) for value in (got, expected))
    np.testing.assert_equal(got, expected)


def without_left_out(value):
    if isinstance(value, dict):
        return {key: without_left_out(each) for key, each in value.items() if key != "n_left_out"}
    return value


def test_images_are_permuted_where_the_same_places_of_all_count(acts, fitted):
    mask = np.ones((N, TOKENS), bool)
    mask[:, :3] = mask[7] = mask[N - 1] = False  # class tokens, and two whole images
    kept = {name: x[mask].reshape(N - 2, TOKENS - 3, -1) for name, x in acts.items()}
    options = {"include": ["images"], "n_permutations": 4}
    expected = usae.controls(fitted, kept, **options).images.to_dict()
    flat = {name: x.reshape(N * TOKENS, -1) for name, x in acts.items()}
    np.testing.assert_equal(usae.controls(fitted, acts, mask=mask, **options).images.to_dict(), expected)
    got = usae.controls(fitted, flat, mask=mask, tokens_per_image=TOKENS, **options)
    np.testing.assert_equal(got.images.to_dict(), expected)


def test_images_of_which_different_places_count_are_not_permuted(parts, acts, fitted):
    mask = parts[0]
    assert usae.controls(fitted, acts, mask=mask, n_draws=2, n_permutations=2).images is None
    with refuses("mask"):
        usae.controls(fitted, acts, mask=mask, include=["images"])
    with refuses("mask"):
        usae.controls(fitted, acts, mask=mask, include=["images"], tokens_per_image=TOKENS)


def test_independent_autoencoders_leave_out_the_rows_of_all_models(parts, acts, fitted):
    mask, with_nan, kept = parts
    by_model = {"a": mask | (np.arange(TOKENS) < 9), "b": mask | (np.arange(TOKENS) >= 9)}
    got = usae.fit_independent(with_nan, like=fitted, steps=5, mask=by_model)
    expected = usae.fit_independent(kept, like=fitted, steps=5)
    for name in got:
        for tensor, values in got[name].parameters(name).items():
            np.testing.assert_array_equal(values, expected[name].parameters(name)[tensor])


@pytest.mark.parametrize("argument", ["mask", "train_mask"])
def test_masks_that_cannot_be_used_are_refused_by_their_name(argument, acts, fitted):
    with refuses(argument):
        usae.controls(fitted, acts, train=acts, **{argument: np.ones(3, bool)})
