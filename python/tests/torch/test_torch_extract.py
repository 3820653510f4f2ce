"""`usae.torch.extract` and `batches`: pictures of any kind, through several models, on one grid."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import usae
from support.extraction import IDENTITY, IMAGENET
from support.refusals import refuses
from usae.torch import Model, batches, extract


class WithClassToken(nn.Module):
    """Patches of 4 x 4 pixels behind one token that has no place."""

    def __init__(self, width=7):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.block = nn.Identity()

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.block(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {
        "fine": Model(nn.Conv2d(3, 5, 3, stride=2, padding=1), "", size=32, **IMAGENET),  # 16 x 16
        "coarse": Model(WithClassToken(), "block", n_prefix_tokens=1, size=24, mean=0.5, std=0.5),  # 6 x 6
    }


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), np.uint8)


def resized(images, size):
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)


# --- Alignment --------------------------------------------------------------------------------------------------------


def test_every_model_comes_on_the_smallest_grid(models, images):
    acts = extract(models, images, batch_size=2)
    assert {name: (x.shape, x.dtype) for name, x in acts.items()} == {
        "fine": ((5, 36, 5), np.float32),
        "coarse": ((5, 36, 7), np.float32),
    }
    np.testing.assert_allclose(acts["coarse"], models["coarse"](models["coarse"].preprocess(images)), rtol=1e-6, atol=1e-6)
    own = torch.from_numpy(models["fine"](models["fine"].preprocess(images))).transpose(1, 2).unflatten(2, (16, 16))
    expected = F.interpolate(own, size=(6, 6), mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(acts["fine"], expected.numpy(), rtol=1e-6, atol=1e-6)


def test_row_t_is_the_same_place_in_every_model():
    """Networks that pass the picture on: a bright square must lie in the same rows, whatever the grid."""
    picture = np.zeros((1, 96, 96, 3), np.uint8)
    picture[0, 24:48, 72:96] = 255  # row 1, column 3 of 4 x 4
    models = {
        str(side): Model(nn.AvgPool2d(patch), "", size=side, **IDENTITY)
        for side, patch in ((96, 4), (48, 12), (56, 7), (96, 1))
    }
    acts = extract(models, picture, grid=4)
    for x in acts.values():
        assert x.shape == (1, 16, 3) and x[0, :, 0].argmax() == 1 * 4 + 3
        assert np.delete(x[0, :, 0], 7).max() < 0.5


def test_a_grid_may_be_given_and_may_be_finer(models, images):
    acts = extract(models, images[:1], grid=(8, 20))
    assert acts["fine"].shape == (1, 160, 5) and acts["coarse"].shape == (1, 160, 7)


def test_models_of_other_proportions_are_aligned_unless_cropped(images):
    models = {
        "tall": Model(nn.AvgPool2d(4), "", size=(32, 16), **IDENTITY),
        "square": Model(nn.AvgPool2d(4), "", size=16, **IDENTITY),
    }
    acts = extract(models, images[:2])
    assert acts["tall"].shape == acts["square"].shape == (2, 16, 3)
    with refuses("crop", "True and tall: 32 x 16, square: 16 x 16"):
        extract(models, images, crop=True)


def test_a_model_without_a_grid_beside_one_with_is_an_error(models, images):
    lost = Model(models["coarse"].module, "block", size=24, **IDENTITY)  # its class token is not dropped
    without = "others: the 37 tokens of 'lost' at layer 'block' have none (1 fewer would be 6 x 6)"
    with refuses("models", without, remedy="Model(..., n_prefix_tokens=)"):
        extract({"fine": models["fine"], "lost": lost}, images)
    with refuses("models", without):
        extract({"lost": lost}, images, grid=4)
    alone = extract({"lost": lost, "again": lost}, images)
    assert alone["lost"].shape == (5, 37, 7)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_preprocessing_is_an_antialiased_resize_and_a_normalization(images):
    model = Model(nn.Identity(), "", size=(16, 20), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    expected = ((resized(images, (16, 20)) - mean) / std).numpy()
    got = model.preprocess(images)
    assert got.dtype == np.float32 and isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    pillow = np.stack([np.asarray(Image.fromarray(x).resize((20, 16), Image.Resampling.BILINEAR)) for x in images])
    plain = Model(nn.Identity(), "", size=(16, 20), **IDENTITY).preprocess(images)
    assert np.abs(plain - pillow.transpose(0, 3, 1, 2) / 255).max() <= 1 / 255  # which rounds after each direction


def test_cropping_takes_the_largest_centre_of_the_proportions(images):
    model = Model(nn.Identity(), "", size=15, **IDENTITY)
    np.testing.assert_allclose(model.preprocess(images, crop=True), resized(images[:, 5:35], (15, 15)).numpy(), atol=1e-6)
    wide = Model(nn.Identity(), "", size=(10, 30), **IDENTITY)
    np.testing.assert_allclose(wide.preprocess(images, crop=True), resized(images[:, 15:25], (10, 30)).numpy(), atol=1e-6)


def test_all_kinds_of_pictures_give_the_same(models, images, tmp_path):
    expected = extract(models, images)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.{'PNG' if number % 2 else 'png'}")
    (tmp_path / "notes.txt").write_text("no picture")
    floats = images.transpose(0, 3, 1, 2) / np.float32(255)
    for same in (
        tmp_path,
        str(tmp_path),
        [tmp_path / f"{number}.{'PNG' if number % 2 else 'png'}" for number in range(5)],
        [Image.fromarray(image) for image in images],
        list(images),
        (image for image in images),
        iter([images[:2], images[2:]]),
        [images[:4], images[4]],
        torch.from_numpy(images),
        torch.from_numpy(images).movedim(3, 1),
        floats,
        torch.from_numpy(floats),
        floats.transpose(0, 2, 3, 1),
        [floats[0], images[1], Image.fromarray(images[2]), *torch.from_numpy(images[3:])],
    ):
        acts = extract(models, same, batch_size=3)
        for name in models:
            np.testing.assert_allclose(acts[name], expected[name], rtol=1e-5, atol=1e-6)


def test_pictures_of_different_sizes_may_come_together(models, images):
    mixed = [images[0], images[1][:20], images[2][:, :9]]
    acts = extract(models, mixed)
    for number, image in enumerate(mixed):
        np.testing.assert_allclose(acts["fine"][number], extract(models, image)["fine"][0], rtol=1e-5, atol=1e-6)


def test_a_photograph_is_turned_as_the_camera_was_held(models, images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(images[0]).save(tmp_path / "a.png", exif=exif)
    turned = extract(models, tmp_path / "a.png")
    np.testing.assert_allclose(turned["fine"], extract(models, images[:1, ::-1, ::-1])["fine"], rtol=1e-5, atol=1e-6)


def test_pictures_that_cannot_be_used_are_errors(models, images, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    deep = Image.fromarray(np.zeros((4, 4), np.int32))
    for bad, argument, got in [
        (images[..., 0], "images", "uint8 [5, 40, 30]"),
        (images.astype(np.int64), "images", "int64 [5, 40, 30, 3]"),
        (images.astype(np.float32), "images", "0 to 255"),
        (np.full((1, 3, 4, 4), np.nan, np.float32), "images", "nan to nan"),
        ([images[0], {"label": 3}], "images[1]", "a dict of label"),
        ([images[0], 7], "images[1]", "int"),
        ({"a": images}, "images", "dict"),
        (7, "images", "int"),
        ([], "images", "none"),
        (iter([]), "images", "none"),
        ([deep], "images[0]", "mode 'I'"),
        (tmp_path / "bad.jpg", "images", repr(str(tmp_path / "bad.jpg"))),
        (tmp_path / "empty", "images", f"none in {tmp_path / 'empty'}"),
    ]:
        with refuses(argument, got):
            extract(models, bad)
    with refuses("images[1]", "'missing.jpg'"):
        extract(models, [images[0], "missing.jpg"])


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_float16_is_kept_where_it_can_hold_the_activations(models, images):
    acts, half = extract(models, images), extract(models, images, dtype="float16")
    assert all(x.dtype == np.float16 for x in half.values())
    np.testing.assert_array_equal(half["fine"], acts["fine"].astype(np.float16))
    large = nn.Conv2d(3, 2, 4, 4)
    large.weight.data.fill_(1e4)
    with refuses("dtype", '"float16"', remedy='dtype="bfloat16"') as caught:
        extract({"large": Model(large, "", size=32, **IDENTITY)}, images, dtype="float16")
    assert "'large'" in str(caught.value)
    with refuses("dtype", "'bfloat16'"):
        extract(models, images, dtype="bfloat16")


def test_batches_are_the_same_piece_by_piece_and_read_pictures_when_they_are_reached(models, images):
    whole = extract(models, images, batch_size=2)
    read = []
    pieces = batches(models, (read.append(n) or image for n, image in enumerate(images)), batch_size=2)
    assert isinstance(pieces, types.GeneratorType) and read == []
    first = next(pieces)
    assert read == [0, 1] and torch.is_grad_enabled()
    rest = list(pieces)
    assert [len(piece["fine"]) for piece in (first, *rest)] == [2, 2, 1]
    for name, x in whole.items():
        np.testing.assert_array_equal(np.concatenate([piece[name] for piece in (first, *rest)]), x)


def test_the_result_is_what_an_autoencoder_takes(models, images):
    sae = usae.UniversalSAE(16, 4).fit(extract(models, images), steps=3)
    assert sae.n_features_in_ == {"fine": 5, "coarse": 7}
    streamed = usae.UniversalSAE(16, 4)
    for piece in batches(models, images, batch_size=2):
        streamed.partial_fit(piece)
    assert streamed.n_steps_ == 3


def test_arguments_are_checked_when_batches_is_called(models, images):
    for bad, options, argument, got in [
        ([models["fine"]], {}, "models", "list"),
        ({}, {}, "models", "an empty mapping"),
        (
            {"net": models["fine"].module},
            {},
            "models['net']",
            "Conv2d",
        ),
        (models, {"batch_size": 0}, "batch_size", "0"),
        (models, {"grid": (0, 3)}, "grid", "0"),
        ({"any": Model(nn.Identity(), "")}, {}, "size", "None"),
    ]:
        with refuses(argument, got):
            batches(bad, images, **options)


def test_a_bar_counts_images(models, images, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    extract(models, images, batch_size=2, progress=True)
    assert "5/5" in capsys.readouterr().err
    extract(models, iter(images), progress=True)
    assert "5image" in capsys.readouterr().err
