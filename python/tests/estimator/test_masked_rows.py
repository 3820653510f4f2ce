"""Rows that do not count: nothing reads them, and results have the bits of results on arrays without them."""

import logging

import numpy as np
import pytest
import torch

import usae
from support.autoencoders import everything
from support.masks import images, masked, new
from support.refusals import refuses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def acts():
    return images(40, seed=0)


@pytest.fixture(scope="module")
def parts(acts):
    return masked(acts)


@pytest.fixture(scope="module")
def fitted(parts):
    return new().fit(parts[2], steps=30)


def numbers(evaluation):
    return {name: value for name, value in evaluation.to_dict().items() if name != "n_left_out"}


def forms(mask):
    """One mask as users may have it."""
    images, tokens = mask.shape
    yield mask
    yield mask.ravel()
    yield mask.reshape(images, 4, tokens // 4)
    yield torch.from_numpy(mask)
    yield mask.tolist()
    yield {"a": mask | (np.arange(tokens) < 9), "b": mask | (np.arange(tokens) >= 9)}


def test_training_has_the_bits_of_training_without_the_rows(parts, fitted):
    mask, acts, _ = parts
    for form in forms(mask):
        assert everything(new().fit(acts, steps=30, mask=form)) == everything(fitted)
    assert everything(new().fit(usae.MaskedActivations(acts, mask), steps=30)) == everything(fitted)


@pytest.mark.parametrize("form", ["float16", "float64", "bfloat16", "strided", "2-D"])
def test_any_array_can_be_masked(parts, form):
    mask, acts, kept = parts
    change = {
        "float16": lambda x: x.astype(np.float16),
        "float64": lambda x: x.astype(np.float64),
        "bfloat16": lambda x: torch.from_numpy(x.copy()).bfloat16(),
        "strided": lambda x: np.repeat(x, 2, axis=-2)[..., ::2, ::-1],
        "2-D": lambda x: x.reshape(-1, x.shape[-1]),
    }[form]
    acts, kept = ({name: change(x) for name, x in given.items()} for given in (acts, kept))
    assert everything(new().fit(acts, steps=5, mask=mask)) == everything(new().fit(kept, steps=5))


def test_single_steps_and_gradients_have_the_bits_of_those_without_the_rows(parts):
    mask, acts, kept = parts
    one, other = new(), new()
    for _ in range(3):
        assert repr(one.partial_fit(acts, mask=mask)) == repr(other.partial_fit(kept))
    assert everything(one) == everything(other)
    for got, expected in zip(
        one.gradients(acts, encoder="a", mask=mask)[1].values(), other.gradients(kept, encoder="a")[1].values(), strict=True
    ):
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])


def test_a_stream_of_masked_batches_is_a_stream_of_their_rows(parts, acts):
    mask, with_nan, kept = parts
    nothing = usae.MaskedActivations(with_nan, np.zeros(mask.shape, bool))
    batches = [nothing, usae.MaskedActivations(with_nan, mask), images(5, seed=4)]
    options = {"steps": 20, "buffer_tokens": 128}
    sae = new().fit_stream(batches, **options)
    plain = new().fit_stream([kept, batches[2]], **options)
    assert everything(sae) == everything(plain)
    assert sae.stream_report_.tokens_read == plain.stream_report_.tokens_read
    assert sae.stream_report_.rows_left_out == (mask.size + (~mask).sum()) * sae.stream_report_.epochs
    assert f"{sae.stream_report_.rows_left_out:,}" in sae.stream_report_.summary()
    assert plain.stream_report_.rows_left_out == 0 and "left out" not in plain.stream_report_.summary()


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_stream_without_any_row_that_counts_is_an_error_and_does_not_run_for_ever(parts, repeatable):
    nothing = [usae.MaskedActivations(parts[1], np.zeros(parts[0].shape, bool))] * 3
    with refuses("batches"):
        new().fit_stream(nothing if repeatable else iter(nothing), steps=3, buffer_tokens=128)


def test_a_number_that_is_not_finite_in_a_batch_is_found_by_its_row(parts):
    mask, acts, _ = parts
    wrong = {name: x.copy() for name, x in acts.items()}
    row = int(np.flatnonzero(mask)[-1])
    wrong["b"].reshape(-1, 32)[row, 7] = np.inf
    with refuses("batches[0]['b']") as caught:
        new().fit_stream([usae.MaskedActivations(wrong, mask)], steps=3, buffer_tokens=128)
    assert f"row {row}, column 7" in str(caught.value)
    with refuses("activations of 'b'") as caught:
        new().fit(wrong, steps=3, mask=mask)
    assert f"row {row}, column 7" in str(caught.value)


def test_an_evaluation_has_the_bits_of_one_without_the_rows_and_tells_how_many_were_left_out(parts, fitted):
    mask, acts, kept = parts
    expected = fitted.evaluate(kept)
    for form in forms(mask):
        got = fitted.evaluate(acts, mask=form)
        np.testing.assert_equal(numbers(got), numbers(expected))
    assert (got.n_tokens, got.n_left_out, expected.n_left_out) == (mask.sum(), (~mask).sum(), 0)
    assert f"{got.n_left_out:,}" in got.summary() and expected.summary() == got.summary().replace(
        f" ({got.n_left_out:,} rows left out)", ""
    )


def test_validation_carries_its_mask(parts, acts, fitted):
    mask, with_nan, kept = parts
    one = new().fit(acts, steps=10, validation=usae.MaskedActivations(with_nan, mask))
    assert everything(one) == everything(new().fit(acts, steps=10, validation=kept))


def test_rows_that_do_not_count_have_empty_codes(parts, fitted):
    mask, acts, kept = parts
    for name, x in acts.items():
        for form in (mask, mask.ravel(), torch.from_numpy(mask)):
            codes = fitted.encode(x, name, mask=form)
            assert len(codes) == mask.size and codes[mask.ravel()] == fitted.encode(kept[name], name)
            assert (codes.indices[~mask.ravel()] == -1).all() and not codes.values[~mask.ravel()].any()
        predicted = fitted.reconstruct(x, name, "a", mask=mask)
        np.testing.assert_array_equal(predicted[mask.ravel()], fitted.reconstruct(kept[name], name, "a"))
        np.testing.assert_allclose(predicted[~mask.ravel()], fitted.parameters("a")["mean"][None].repeat((~mask).sum(), 0))
        dense = fitted.preactivations(x, name, mask=mask)
        np.testing.assert_array_equal(dense[mask.ravel()], fitted.preactivations(kept[name], name))
        assert not dense[~mask.ravel()].any()


def test_a_mask_of_nothing_changes_nothing(acts):
    everywhere = np.ones((40, 20), bool)
    assert everything(new().fit(acts, steps=5, mask=everywhere)) == everything(new().fit(acts, steps=5))
    assert new().fit(acts, steps=1).evaluate(acts, mask=everywhere).n_left_out == 0


def test_sides_of_one_are_the_same_for_all_images_or_tokens(acts, fitted):
    of_tokens, of_images = np.arange(20) >= 4, np.arange(40) % 3 > 0
    for mask, kept in (
        (of_tokens[None], {name: x[:, 4:] for name, x in acts.items()}),
        (of_images[:, None], {name: x[of_images] for name, x in acts.items()}),
    ):
        np.testing.assert_equal(numbers(fitted.evaluate(acts, mask=mask)), numbers(fitted.evaluate(kept)))


def test_a_row_counts_if_it_does_by_all_masks(acts, parts, fitted):
    mask, _, _ = parts
    other = np.random.default_rng(3).random(mask.shape) < 0.8
    both = {name: x[mask & other] for name, x in acts.items()}
    carried = usae.MaskedActivations(usae.MaskedActivations(acts, {"b": other}), mask)
    np.testing.assert_array_equal(carried.mask, mask & other)
    for given in (fitted.evaluate(carried), fitted.evaluate(usae.MaskedActivations(acts, other), mask=mask)):
        np.testing.assert_equal(numbers(given), numbers(fitted.evaluate(both)))


def test_the_log_tells_how_many_rows_are_left_out(parts, acts, caplog):
    mask, with_nan, _ = parts
    with caplog.at_level(logging.INFO, "usae"):
        new().fit(with_nan, steps=1, mask=mask)
        new().fit(acts, steps=1)
    first, second = (record.getMessage() for record in caplog.records if "training" in record.getMessage())
    assert f"{(~mask).sum()} rows left out" in first and "left out" not in second


def test_a_run_goes_on_with_the_same_mask_only(parts, acts, tmp_path):
    mask, with_nan, _ = parts
    options = {"checkpoint": tmp_path / "run", "resume": True}

    def stop(report):
        if report.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new().fit(with_nan, steps=9, mask=mask, callbacks=[stop], **options)
    other = mask.copy()
    first, second = np.flatnonzero(mask.ravel())[[100, 101]]  # rows that identify no array
    other.ravel()[[first, np.flatnonzero(~mask.ravel())[-1]]] = False, True
    for wrong in (None, other):
        with refuses("resume"):
            new().fit(acts, steps=9, mask=wrong, **options)
    resumed = new().fit(with_nan, steps=9, mask=mask, **options)
    assert everything(resumed) == everything(new().fit(with_nan, steps=9, mask=mask))


def test_masked_activations_are_a_mapping_of_whole_arrays(parts):
    mask, acts, _ = parts
    given = usae.MaskedActivations(acts, mask)
    assert list(given) == ["a", "b"] and len(given) == 2 and given["a"] is acts["a"]
    assert f"{(~mask).sum():,}" in repr(given) and not given.mask.flags.writeable
    mask[0, 0] ^= True  # what is checked is what is used
    assert given.mask[0, 0] != mask[0, 0]
    mask[0, 0] ^= True


WRONG = {
    "integers": (lambda m: m.astype(int), "mask"),
    "floats": (lambda m: m.astype(float), "mask"),
    "indices": (lambda m: np.flatnonzero(m), "mask"),
    "text": (lambda m: "mask", "mask"),
    "None in a list": (lambda m: [None] * m.size, "mask"),
    "too few rows": (lambda m: m.ravel()[:-1], "mask"),
    "images alone": (lambda m: m[:, 0], "mask"),
    "tokens alone": (lambda m: m[0], "mask"),
    "transposed": (lambda m: m.T, "mask"),
    "another token": (lambda m: m[:, 1:], "mask"),
    "a number": (lambda m: np.bool_(True), "mask"),
    "nothing counts": (lambda m: np.zeros_like(m), "mask"),
    "a masked array": (lambda m: np.ma.masked_array(m, m), "mask"),
    "an unknown model": (lambda m: {"c": m}, "mask"),
    "a wrong one of a model": (lambda m: {"a": m, "b": m[1:]}, "mask['b']"),
    "nothing counts by all": (lambda m: {"a": m, "b": ~m}, "all masks of acts together"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_masks_that_cannot_be_used_are_refused_and_nothing_changes(wrong, acts, parts):
    make, argument = WRONG[wrong]
    sae = new().fit(acts, steps=2)
    before = everything(sae)
    for call in (
        lambda mask: sae.fit(acts, mask=mask),
        lambda mask: sae.evaluate(acts, mask=mask),
    ):
        with refuses(argument):
            call(make(parts[0]))
    assert everything(sae) == before


def test_one_model_takes_one_mask(acts, parts, fitted):
    with refuses("mask", "a mapping"):
        fitted.encode(acts["a"], "a", mask={"a": parts[0]})
    with refuses("mask"):
        fitted.encode(acts["a"], "a", mask=parts[0][:, :-1])


@pytest.mark.parametrize("ragged", [[[True, False], [True]], ([True], [True, True])])
def test_a_ragged_mask_is_refused_with_what_to_do(acts, ragged):
    with refuses("mask", f"a {type(ragged).__name__} whose parts differ", remedy="False"):
        new().fit(acts, steps=2, mask=ragged)
