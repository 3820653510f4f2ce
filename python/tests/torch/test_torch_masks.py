"""Masks of an extraction, which its result carries."""

import numpy as np
import pytest
import torch

import usae
from support.autoencoders import everything
from support.extraction import Stopping, networks
from support.refusals import refuses
from usae.torch import batches, extract, fit

pytestmark = pytest.mark.slow

N, TOKENS = 11, 16
RECIPE = usae.recipes.default(batch_size=32)


@pytest.fixture
def models():
    return networks()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (N, 40, 30, 3), np.uint8)


@pytest.fixture
def mask():
    return np.random.default_rng(1).random((N, TOKENS)) < 0.7


def forms(mask):
    """A mask as users may have it."""
    yield mask
    yield mask.reshape(-1, 4, 4)
    yield torch.from_numpy(mask)
    yield list(mask)
    yield (row.reshape(4, 4) for row in mask)


def new():
    return usae.UniversalSAE(16, 4, recipe=RECIPE)


def test_activations_carry_the_mask_that_was_given(models, images, mask):
    plain = extract(models, images)
    for form in forms(mask):
        acts = extract(models, images, batch_size=3, mask=form)
        assert isinstance(acts, usae.MaskedActivations) and not isinstance(plain, usae.MaskedActivations)
        np.testing.assert_array_equal(acts.mask, mask)
        assert all(np.allclose(acts[name], plain[name], atol=1e-6) for name in models)
    kept = {name: acts[name][mask] for name in models}
    assert everything(new().fit(acts, steps=3)) == everything(new().fit(kept, steps=3))


def test_pictures_of_unknown_number_have_masks_too(models, images, mask):
    for form in forms(mask):
        acts = extract(models, (image for image in images), mask=form)
        np.testing.assert_array_equal(acts.mask, mask)


def test_one_mask_may_be_for_all_pictures_and_whole_pictures_can_be_left_out(models, images, mask):
    np.testing.assert_array_equal(extract(models, images, mask=mask[:1]).mask, np.repeat(mask[:1], N, 0))
    pictures = np.arange(N) != 4
    np.testing.assert_array_equal(extract(models, images, mask=pictures[:, None]).mask, np.repeat(pictures[:, None], 16, 1))


def test_batches_carry_their_part_of_the_mask(models, images, mask):
    parts = list(batches(models, images, batch_size=4, mask=mask))
    assert [len(part["fine"]) for part in parts] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([part.mask for part in parts]), mask)


def test_training_while_the_networks_run_leaves_tokens_out(models, images, mask):
    mask[2:4] = False  # all pictures of a batch
    options = {"steps": 12, "buffer_tokens": 64}
    sae = fit(new(), models, images, batch_size=2, mask=mask, **options)
    stream = list(batches(models, images, batch_size=2, mask=mask))
    assert everything(sae) == everything(new().fit_stream(stream, **options))
    assert sae.stream_report_.epochs > 1 and sae.stream_report_.rows_left_out > (~mask).sum()
    with refuses("mask", "generator"):
        fit(new(), models, images, mask=(row for row in mask), **options)


@pytest.mark.parametrize("after", [1, 5, 10, None])
def test_a_store_keeps_the_mask_also_after_an_interruption(models, images, mask, tmp_path, after):
    options = {"batch_size": 3, "shard_images": 4, "mask": mask, "store": tmp_path / "acts", "dtype": "float32"}
    if after is not None:
        with pytest.raises(KeyboardInterrupt):
            extract(models, Stopping(images, after), **options)
    store = extract(models, images, **options)
    np.testing.assert_array_equal(store.mask, mask)
    kept = {name: store[name][:][mask] for name in models}
    assert everything(new().fit(store, steps=3)) == everything(new().fit(kept, steps=3))
    extract(models, images, **options | {"mask": list(mask)})  # nothing is left to do
    extract(models, images, **options | {"mask": None})  # a mask that was set later stays
    with refuses("mask[9]"):
        mask[9, 3] ^= True
        extract(models, images, **options)


def test_an_extraction_goes_on_with_its_mask_only(models, images, mask, tmp_path):
    options = {"shard_images": 4, "store": tmp_path / "acts"}
    with pytest.raises(KeyboardInterrupt):
        extract(models, Stopping(images, 5), mask=mask, **options)
    for other, argument in ((None, "mask"), (~mask, "mask[0]")):
        with refuses(argument):
            extract(models, images, mask=other, **options)
    store = extract(models, images, mask=mask, **options)
    np.testing.assert_array_equal(store.mask, mask)


@pytest.fixture
def damaged(images, mask):
    """Pictures of which some cannot be read, also the first and the last, with masks for all of them, and the rest."""
    bad = [0, 3, 4, 14]
    pictures, masks = [None] * (N + 4), np.random.default_rng(2).random((N + 4, TOKENS)) < 0.5
    good = [number for number in range(N + 4) if number not in bad]
    for place, number in enumerate(good):
        pictures[number], masks[number] = images[place], mask[place]
    return pictures, masks, bad


@pytest.mark.filterwarnings("ignore:images. .* could not be read:UserWarning")
def test_the_mask_of_a_picture_that_is_left_out_is_left_out_too(models, images, mask, damaged):
    pictures, masks, bad = damaged
    expected = extract(models, images, mask=mask, batch_size=3)
    for known in (True, False):
        for form in forms(masks):
            skipped = []
            given = pictures if known else (picture for picture in pictures)
            acts = extract(models, given, mask=form, on_error="skip", skipped=skipped)
            np.testing.assert_array_equal(acts.mask, mask)
            assert [each.number for each in skipped] == bad
            for name in models:
                np.testing.assert_allclose(acts[name], expected[name], atol=1e-6)
    parts = list(batches(models, pictures, batch_size=4, mask=masks, on_error="skip"))
    np.testing.assert_array_equal(np.concatenate([part.mask for part in parts]), mask)
    same = extract(models, pictures, mask=masks[:1], on_error="skip").mask
    np.testing.assert_array_equal(same, np.repeat(masks[:1], N, 0))
    for wrong in (masks[:-1], [*masks, masks[0]]):  # the last picture, which cannot be read, has a mask too
        for given in (pictures, (picture for picture in pictures)):
            with refuses("mask"):
                extract(models, given, mask=wrong, on_error="skip")
    with refuses("images[0]"):
        extract(models, pictures, mask=masks)


@pytest.mark.filterwarnings("ignore:images. .* could not be read:UserWarning")
def test_training_leaves_out_pictures_with_their_masks(models, images, mask, damaged):
    pictures, masks, bad = damaged
    options = {"steps": 12, "buffer_tokens": 64, "batch_size": 3}
    sae = fit(new(), models, pictures, mask=masks, on_error="skip", **options)
    assert everything(sae) == everything(fit(new(), models, images, mask=mask, **options))
    assert sae.stream_report_.epochs > 1


@pytest.mark.filterwarnings("ignore:images. .* could not be read:UserWarning")
@pytest.mark.parametrize("after", [1, 5, 9, 14, None])
def test_a_store_leaves_out_pictures_with_their_masks_also_after_an_interruption(
    models, images, mask, damaged, tmp_path, after
):
    pictures, masks, bad = damaged
    options = {"batch_size": 3, "shard_images": 4, "mask": masks, "store": tmp_path / "acts", "on_error": "skip"}
    if after is not None:
        with pytest.raises(KeyboardInterrupt):
            extract(models, Stopping(pictures, after), **options)
    expected = extract(models, images, mask=mask, store=tmp_path / "expected", batch_size=3, shard_images=4)
    for _ in range(2):  # the second time nothing is left to do
        store = extract(models, pictures, **options)
        np.testing.assert_array_equal(store.mask, mask)
        assert store.images == expected.images
        for name in models:
            np.testing.assert_array_equal(store[name][:], expected[name][:])
    masks[5, 3] ^= True
    with refuses("mask[5]"):
        extract(models, pictures, **options)


WRONG = {
    "integers": (lambda m: m.astype(int), "mask"),
    "too few": (lambda m: m[:-1], "mask"),
    "another grid": (lambda m: m[:, 1:], "mask"),
    "pixels": (lambda m: np.ones((N, 40, 30), bool), "mask"),
    "nothing counts": (lambda m: np.zeros_like(m), "mask"),
    "text": (lambda m: "mask.npy", "mask"),
    "a number": (lambda m: True, "mask"),
    "by model": (lambda m: {"fine": m}, "mask"),
    "too few of each": (lambda m: list(m[:-1]), "mask"),
    "too many of each": (lambda m: [*m, m[0]], "mask"),
    "a wrong one": (lambda m: [*m[:-1], m[0, 1:]], "mask[10]"),
    "integers in one": (lambda m: [m[0].astype(int), *m[1:]], "mask[0]"),
}


@pytest.mark.parametrize("into_store", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_masks_that_do_not_fit_the_pictures_are_refused(wrong, into_store, models, images, mask, tmp_path):
    make, argument = WRONG[wrong]
    options = {"store": tmp_path / "acts"} if into_store else {}
    with refuses(argument):
        extract(models, images, mask=make(mask), batch_size=4, **options)
