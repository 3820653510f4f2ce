"""Pictures: the same pixels however they come, and every ordinary collection of them."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.extraction import IDENTITY
from support.pictures import MODEL, SIZE, contents, every_way, pixels, random_colours
from support.refusals import refuses
from usae.torch import Model, SkippedPicture, batches, extract


@pytest.fixture
def colours():
    return random_colours()


# --- One picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_however_it_comes(colours, tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(colours)
    ways = every_way(stored, tmp_path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    for way in ways:
        np.testing.assert_array_equal(pixels(way), pixels(upright))
    np.testing.assert_array_equal(pixels(Image.open(tmp_path / "a.png").convert("RGB")), pixels(upright))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "YCbCr", "HSV", "PA", "RGBX", "RGBa", "La"])
def test_every_mode_of_pillow_gives_the_pixels_of_its_colours(colours, tmp_path, mode, recwarn):
    image = Image.fromarray(colours)
    between = {"RGBa": "RGBA", "La": "LA", "PA": "LA"}.get(mode, mode)
    image = image.convert(between).convert(mode)
    plain = image.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, mode)).convert("RGB")
    expected = pixels(np.asarray(plain))
    np.testing.assert_array_equal(pixels(image), expected)
    np.testing.assert_array_equal(pixels([np.asarray(plain)]), expected)
    format = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    if mode in ("RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "YCbCr"):
        options = {"compression": "tiff_deflate"} if mode == "YCbCr" else {}  # Pillow before 13 reads no other that it writes
        for way in every_way(image, tmp_path, format, **options):
            np.testing.assert_allclose(pixels(way), expected, atol=3 / 255 if mode == "YCbCr" else 0)
    assert not recwarn.list


def test_transparency_does_not_change_colours(colours, tmp_path, recwarn):
    alpha = np.random.default_rng(1).integers(0, 256, (*SIZE, 1), np.uint8)
    for way in every_way(Image.fromarray(np.concatenate([colours, alpha], 2)), tmp_path):
        np.testing.assert_array_equal(pixels(way), pixels(colours))
    palette = Image.fromarray(colours).convert("P")
    for transparency in (3, bytes(range(0, 250, 10))):
        for way in every_way(palette, tmp_path, transparency=transparency):
            np.testing.assert_array_equal(pixels(way), pixels(np.asarray(palette.convert("RGB"))))
    assert not recwarn.list


def test_sixteen_bits_of_grey_are_kept_and_of_colours_the_high_ones_as_pillow_reads_them(colours, tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, SIZE, np.uint16)
    expected = np.repeat(deep[None, None] / np.float64(65535), 3, 1).astype(np.float32)
    big_endian = Image.frombytes("I;16B", SIZE[::-1], deep.astype(">u2").tobytes())
    for way in [deep, deep[..., None], torch.from_numpy(deep), [deep], big_endian, *every_way(Image.fromarray(deep), tmp_path)]:
        np.testing.assert_allclose(pixels(way), expected, atol=1e-7)
    np.testing.assert_array_equal(pixels(colours.astype(np.uint16) * 256 + 17), pixels(colours))
    floats = (deep / 65535).astype(np.float32)
    for way in [floats, *every_way(Image.fromarray(floats), tmp_path, "TIFF")]:
        np.testing.assert_allclose(pixels(way), expected, atol=1e-6)
    with refuses("images", remedy="0..1"):
        pixels(Image.fromarray(deep.astype(np.int32)))


def test_grey_is_the_same_as_colours_that_are_equal(colours, tmp_path):
    grey = colours[..., 0]
    expected = pixels(np.repeat(grey[..., None], 3, 2))
    floats = grey.astype(np.float32) / 255
    for way in [
        *(grey, grey[..., None], grey[None, :, :, None], [grey], grey[None], floats, floats[None], torch.from_numpy(grey)),
        *every_way(Image.fromarray(grey), tmp_path),
        *every_way(Image.fromarray(grey), tmp_path, "TIFF"),
    ]:
        np.testing.assert_array_equal(pixels(way), expected)
    mask = grey > 128
    np.testing.assert_array_equal(pixels([mask]), pixels(Image.fromarray(mask)))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animated_file_the_first_frame_is_taken(colours, tmp_path, format):
    frames = [Image.fromarray(x) for x in (colours, 255 - colours)]
    options = {"lossless": True} if format == "WEBP" else {}
    ways = every_way(frames[0], tmp_path, format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(ways[0]).n_frames == 2
    first = pixels(ways[0])
    assert np.abs(first - pixels(colours)).mean() < 0.1
    for way in ways:
        np.testing.assert_array_equal(pixels(way), first)


def test_four_channels_are_never_guessed_to_be_colours(colours):
    four = np.concatenate([colours, colours[..., :1]], 2)
    for given in (four, four[None], torch.from_numpy(four).movedim(2, 0)):
        with refuses("images", remedy="first three"):
            pixels(given)


# --- What cannot be read ----------------------------------------------------------------------------------------------


def bad_files(folder, image):
    """Files that Pillow cannot read, each in another way."""
    jpeg, png = contents(image, format="JPEG"), contents(image, format="PNG")
    made = {
        "cut.jpg": contents(Image.effect_noise((200, 200), 90).convert("RGB"), format="JPEG")[:-3000],
        "cut.png": contents(Image.effect_noise((200, 200), 90), format="PNG")[:-3000],
        "empty.jpg": b"",
        "text.png": b"no picture",
        "head.png": png[:20],
        "chunk.png": png[:35] + bytes(40) + png[75:],
        "half.gif": contents(image, format="GIF")[:60],
        "half.tiff": contents(image, format="TIFF")[:40],
        "half.webp": contents(image, format="WEBP")[:30],
        "half.bmp": contents(image, format="BMP")[:50],
        "bomb.png": png[:16] + (60000).to_bytes(4, "big") * 2 + png[24:],
        "head.jpg": jpeg[:30],
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    (folder / "link.jpg").symlink_to(folder / "missing.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    return [*made, "link.jpg", "device.jpg", "pipe.jpg"]


def test_a_file_that_cannot_be_read_is_named_whatever_pillow_raises(colours, tmp_path):
    for name in bad_files(tmp_path, Image.fromarray(colours)):
        path = tmp_path / name
        for given in ([colours, path], [colours, str(path)]):
            with refuses("images[1]", repr(str(path))):
                pixels(given)
        if path.is_file():
            with refuses("images[1]"):
                pixels([colours, path.read_bytes()])
    with refuses("images[0]", f"'{tmp_path / 'cut.jpg'}'"):
        pixels([Image.open(tmp_path / "cut.jpg")])
    with refuses("images[0]", repr(str(tmp_path))):
        pixels([str(tmp_path)])


def test_pictures_that_cannot_be_read_are_left_out_for_every_model_and_listed(colours, tmp_path):
    models = {"a": MODEL, "b": Model(nn.AvgPool2d(2), "", size=(12, 16), channels_last=False, **IDENTITY)}
    good = {f"{n}.png": np.roll(colours, n, 0) for n in (0, 3, 9)}
    for name, picture in good.items():
        Image.fromarray(picture).save(tmp_path / name)
    bad = bad_files(tmp_path, Image.fromarray(colours))
    skipped = []
    with pytest.warns(UserWarning, match=f"{len(bad)} of {len(bad) + 3} pictures") as caught:
        acts = extract(models, tmp_path, on_error="skip", skipped=skipped)
    assert __file__ in [warning.filename for warning in caught]  # among those of Pillow
    expected = extract(models, list(good.values()))
    for name in models:
        np.testing.assert_array_equal(acts[name], expected[name])
    assert [each.name for each in skipped] == sorted(bad) and all(str(tmp_path) in each.reason for each in skipped)
    names = sorted([*good, *bad])
    assert [names[each.number] for each in skipped] == sorted(bad) and isinstance(skipped[0], SkippedPicture)
    with pytest.warns(UserWarning, match=f"{len(bad)} of {len(bad) + 3} pictures"):
        pieces = list(batches(models, tmp_path, batch_size=2, on_error="skip"))
    assert [len(piece["b"]) for piece in pieces] == [2, 1]
    with refuses("images", repr(str(tmp_path / "bomb.png"))):
        extract(models, tmp_path)


def test_a_store_without_some_pictures_is_continued_and_says_again_which(colours, tmp_path):
    (tmp_path / "pictures").mkdir()
    for n in range(5):
        Image.fromarray(np.roll(colours, n, 0)).save(tmp_path / "pictures" / f"{n}.png")
    for n in (1, 4):
        (tmp_path / "pictures" / f"{n}.png").write_bytes(b"damaged")
    options = {"store": tmp_path / "acts", "shard_images": 2}
    for _ in range(2):
        skipped = []
        with pytest.warns(UserWarning, match="2 of 5"):
            store = extract({"a": MODEL}, tmp_path / "pictures", on_error="skip", skipped=skipped, **options)
        assert store.images == ("0.png", "2.png", "3.png") and store.finished
        assert [(each.number, each.name) for each in skipped] == [(1, "1.png"), (4, "4.png")]
    np.testing.assert_array_equal(store["a"][1], extract({"a": MODEL}, np.roll(colours, 2, 0), dtype="float16")["a"][0])
    with refuses("images[1]", "'1.png'"):
        extract({"a": MODEL}, tmp_path / "pictures", **options)
    Image.fromarray(colours).save(tmp_path / "pictures" / "1.png")
    with refuses("images[1]", "'1.png'"):
        extract({"a": MODEL}, tmp_path / "pictures", on_error="skip", **options)


def test_pictures_none_of_which_can_be_read_are_an_error_with_the_first_reason(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with refuses("images", "none that can be read of 1"):
        extract({"a": MODEL}, tmp_path, on_error="skip")
    with refuses("images", "none that can be read of 1"):
        extract({"a": MODEL}, [3], on_error="skip", store=tmp_path / "acts")
    for options, argument in (({"on_error": "ignore"}, "on_error"), ({"skipped": ()}, "skipped")):
        with refuses(argument):
            extract({"a": MODEL}, tmp_path, **options)


# --- Channels ---------------------------------------------------------------------------------------------------------


def test_a_network_of_grey_images_takes_pictures_of_any_kind(colours):
    grey = Model(nn.Conv2d(1, 4, 2, 2), "", size=SIZE, channels_last=False, channels=1, mean=0.5, std=0.25)
    picture = Image.fromarray(colours)
    assert np.abs(grey.preprocess(picture) * 0.25 + 0.5 - np.asarray(picture.convert("L")) / 255).max() <= 0.51 / 255
    np.testing.assert_array_equal(grey.preprocess(colours[..., 1]), (pixels(colours[..., 1])[:, :1] - 0.5) / np.float32(0.25))
    acts = extract({"grey": grey, "colours": MODEL}, [picture, colours], grid=2)
    np.testing.assert_array_equal(acts["grey"][0], acts["grey"][1])
    assert grey.vjp(grey.preprocess(colours))[1](np.ones((1, 12, 4), np.float32)).shape == (1, 1, *SIZE)
    assert "channels=1" in repr(grey)


def test_a_network_of_many_channels_takes_arrays_of_as_many(colours):
    model = Model(nn.Conv2d(5, 4, 2, 2), "", size=SIZE, channels_last=False, channels=5, mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=1)
    spectra = np.random.default_rng(0).random((2, 5, *SIZE), np.float32)
    np.testing.assert_allclose(model.preprocess(spectra), spectra - np.arange(0.1, 0.6, 0.1)[:, None, None], atol=1e-6)
    np.testing.assert_allclose(model.preprocess(spectra.transpose(0, 2, 3, 1)), model.preprocess(spectra), atol=1e-6)
    assert extract({"a": model}, list(spectra))["a"].shape == (2, 12, 4)
    with refuses("images", "pictures of 3"):
        model.preprocess(colours)
    with refuses("mean"):
        Model(nn.Conv2d(5, 4, 2, 2), "", channels=5, mean=(0.1, 0.2, 0.3))
    with refuses("images", "float32 [1, 4, 6, 8]", remedy="channels=4"):
        model(np.zeros((1, 4, *SIZE), np.float32))
