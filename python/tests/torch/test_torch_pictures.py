"""Pictures: the same pixels however they come, and every ordinary collection of them."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from support.extraction import IDENTITY
from support.refusals import refuses
from usae.torch import Model, SkippedPicture, batches, extract

SIZE = (6, 8)
MODEL = Model(nn.Identity(), "", size=SIZE, channels_last=False, **IDENTITY)


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def pixels(images, model=MODEL):
    return model.preprocess(images)


def contents(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def every_way(image, tmp_path, format="PNG", **options):
    """One PIL image as a file, its contents, an open file, and what Pillow opens from each."""
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(contents(image, format=format, **options))
    data = path.read_bytes()
    opened = Image.open(path), [Image.open(io.BytesIO(data))]
    return [path, str(path), [path], data, bytearray(data), [data], io.BytesIO(data), *opened]


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
        for way in every_way(image, tmp_path, format):
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


# --- Collections ------------------------------------------------------------------------------------------------------


class Pairs(Dataset):
    """Of pictures and labels, as data sets of torchvision are."""

    def __init__(self, items, fails=()):
        self.items, self.fails = items, fails

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        if number in self.fails:
            raise OSError("image file is truncated")
        return self.items[number], number % 2


@pytest.fixture
def several():
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)


def test_data_sets_and_loaders_give_their_pictures(several):
    expected = pixels(several)
    floats = torch.from_numpy(several).movedim(3, 1).float() / 255

    class Endless(IterableDataset):
        def __iter__(self):
            return iter(zip(several, range(5), strict=True))

    class Numbered:
        def __len__(self):
            return 5

        def __getitem__(self, number):
            return {"image": Image.fromarray(several[number]), "label": 1}

    mappings = [{"image": x, "label": 1, "text": "a fox"} for x in several]
    for collection in (
        Pairs(several),
        Pairs([Image.fromarray(x) for x in several]),
        Pairs(floats),
        TensorDataset(floats, torch.arange(5)),
        TensorDataset(floats),
        DataLoader(Pairs(floats), batch_size=2),
        DataLoader(TensorDataset(floats, torch.eye(5)), batch_size=2),
        DataLoader(mappings, batch_size=3, collate_fn=lambda items: {"pixel_values": np.stack([x["image"] for x in items])}),
        Subset(Pairs(several), range(5)),
        Endless(),
        Numbered(),
        mappings,
        [{"img": {"bytes": contents(Image.fromarray(x), format="PNG"), "path": None}} for x in several],
        [(x, "a label") for x in several],
        [[x] for x in several],
        (several[:3], several[3:]),
        np.array([Image.fromarray(x) for x in several] + [None], object)[:5],
    ):
        acts = extract({"a": MODEL}, collection, batch_size=2)["a"]
        np.testing.assert_allclose(acts.transpose(0, 2, 1).reshape(expected.shape), expected, atol=1e-7)


def test_an_example_that_fails_is_named_and_can_be_left_out(several, tmp_path):
    failing = Pairs(several, fails=(1, 4))
    with refuses("images[1]", "OSError"):
        extract({"a": MODEL}, failing)
    skipped = []
    with pytest.warns(UserWarning, match="2 of 5"):
        acts = extract({"a": MODEL}, failing, on_error="skip", skipped=skipped)
    np.testing.assert_array_equal(acts["a"], extract({"a": MODEL}, several[[0, 2, 3]])["a"])
    assert [(each.number, each.name) for each in skipped] == [(1, "images[1]"), (4, "images[4]")]


def test_an_image_folder_keeps_the_names_of_its_files(several, tmp_path):
    for n, x in enumerate(several):
        (tmp_path / f"class {n % 2}").mkdir(exist_ok=True)
        Image.fromarray(x).save(tmp_path / f"class {n % 2}" / f"{n}.png")

    class ImageFolder(Pairs):  # torchvision's
        def __init__(self):
            self.samples = [(str(path), 0) for path in sorted(tmp_path.glob("*/*.png"))]
            super().__init__([Image.open(path) for path, _ in self.samples])

    store = extract({"a": MODEL}, Subset(ImageFolder(), [0, 3]), store=tmp_path / "acts")
    assert store.images == (str(tmp_path / "class 0" / "0.png"), str(tmp_path / "class 1" / "1.png"))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [(x, x)],
        lambda x: [[Image.fromarray(x), Image.fromarray(x)]],
        lambda x: [("a.jpg", "b.jpg")],
        lambda x: [((x, 1), (x, 2))],
        lambda x: [{"image": x, "img": x}],
        lambda x: [{"left": x}],
        lambda x: [()],
        lambda x: [None],
    ],
)
def test_no_second_picture_is_ignored(colours, make):
    with refuses("images[0]"):
        pixels(make(colours))


def test_a_folder_is_read_with_its_subfolders_and_without_what_systems_leave_in_it(several, tmp_path):
    places = ["b.png", "a/z.PNG", "a/b/c.jpeg.png", "a.b.png", "d.JPG"]
    for place, x in zip(places, several, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / place, quality=100)
    hidden = "._b.png", "a/._z.PNG", "__MACOSX/b.png", "@eaDir/b.png", ".thumbnails/b.png", ".DS_Store"
    for place in (*hidden, "notes.txt", "a/Thumbs.db"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"Mac OS X")
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    store = extract({"a": MODEL}, tmp_path, store=tmp_path.parent / f"{tmp_path.name}-acts")
    assert store.images == ("a/b/c.jpeg.png", "a/z.PNG", "a.b.png", "b.png", "d.JPG")
    order = [places.index(name) for name in store.images]
    np.testing.assert_allclose(pixels(tmp_path)[:4], pixels(several[order])[:4])


def test_arrays_of_paths_are_paths(several, tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, x in zip(paths, several, strict=True):
        Image.fromarray(x).save(path)
    texts = [str(path) for path in paths]
    for given in (
        np.array(texts),
        np.array(paths, object),
        np.array([os.fsencode(x) for x in texts]),
        tuple(paths),
        iter(texts),
    ):
        np.testing.assert_array_equal(pixels(given), pixels(several))
    np.testing.assert_array_equal(pixels(np.array(texts[0])), pixels(several[0]))
    with refuses("images", "[1, 5]"):
        pixels(np.array([texts]))


def test_a_series_of_paths_is_read_in_its_order(several, tmp_path):
    pandas = pytest.importorskip("pandas")
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, x in zip(paths, several, strict=True):
        Image.fromarray(x).save(path)
    series = pandas.Series([str(path) for path in paths], index=[3, 1, 0, 2, 4])
    np.testing.assert_array_equal(pixels(series), pixels(several))


def test_a_file_whose_name_is_not_utf_8_has_a_name_that_can_be_stored(colours, tmp_path):
    (tmp_path / "p").mkdir()
    path = os.path.join(os.fsencode(tmp_path / "p"), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(contents(Image.fromarray(colours), format="PNG"))
    store = extract({"a": MODEL}, tmp_path / "p", store=tmp_path / "acts")
    assert store.images == ("caf\udce9.png",)
    extract({"a": MODEL}, tmp_path / "p", store=tmp_path / "acts")
    open(path, "wb").close()
    with refuses("images"):
        pixels(tmp_path / "p")


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
