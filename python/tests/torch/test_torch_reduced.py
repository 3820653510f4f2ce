"""Decoding of JPEG files at a part of their size: where it is done, and how much it changes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import usae
from support.extraction import IDENTITY
from support.refusals import refuses
from usae.torch import Model, extract
from usae.torch._pixels import from_contents
from usae.torch._reduced import draft_for


def model(size, **options):
    return Model(nn.Identity(), "", size=size, channels_last=False, **{**IDENTITY, **options})


def smooth(height, width):
    """Colours with structure down to a few pixels, as photographs have it."""
    rng = np.random.default_rng(0)
    layers = [(rng.random((height // n + 2, width // n + 2, 3)) * 255).astype(np.uint8) for n in (64, 16, 4)]
    layers = [np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.BICUBIC), float) for x in layers]
    return np.uint8(0.6 * layers[0] + 0.3 * layers[1] + 0.1 * layers[2])


def as_file(array, format="JPEG", **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


def decoded_size(data, models, crop=False):
    return tuple(from_contents(data, "images", (3,), draft_for(models, crop)).shape[1:])


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (800, 1600, 50, (100, 200)),
        (800, 1600, 51, (200, 400)),
        (800, 1600, 201, (800, 1600)),
        (800, 1600, (100, 101), (200, 400)),
        (800, 1600, (26, 201), (400, 800)),
        (804, 1604, 50, (201, 401)),
        (801, 1601, 10, (801, 1601)),
        (802, 1604, 10, (401, 802)),
    ],
)
def test_at_least_twice_what_the_network_takes_is_left_and_no_pixel_is_cut(height, width, size, expected):
    data = as_file(np.zeros((height, width, 3), np.uint8))
    assert decoded_size(data, [model(size)]) == expected
    assert decoded_size(data, [model(4), model(size)]) == expected
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = as_file(np.zeros((width, height, 3), np.uint8), exif=exif)
    assert decoded_size(turned, [model(size)]) == expected


def test_what_is_cut_out_has_twice_what_the_network_takes_too():
    data = as_file(np.zeros((800, 1600, 3), np.uint8))
    assert decoded_size(data, [model(100)], crop=True) == (200, 400)
    assert decoded_size(data, [model((50, 100))], crop=True) == (100, 200)
    own = model(80, preprocessing={"input_size": (3, 80, 80), "crop_pct": 0.8, "mean": (0,) * 3, "std": (1,) * 3})
    assert decoded_size(data, [own], crop="own") == (200, 400)


def test_other_formats_and_what_is_no_file_are_as_they_are(tmp_path):
    array = smooth(256, 320)
    network = {"net": model(16)}
    expected = extract(network, [array])["net"]
    for item in (array, as_file(array, "PNG"), Image.open(io.BytesIO(as_file(array, "PNG")))):
        np.testing.assert_array_equal(extract(network, [item], reduce=True)["net"], expected)
    opened = Image.open(io.BytesIO(as_file(array)))
    assert np.array_equal(extract(network, [opened], reduce=True)["net"], extract(network, [opened])["net"])
    assert opened.size == (320, 256)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_the_result_is_about_as_far_from_the_picture_as_compression_makes_it(filter, tmp_path):
    """Of photographs the root mean square is .3 to 1.1 of 255, and that of compression at quality 75 is .4 to 1.8."""
    array = smooth(640, 800)
    (tmp_path / "a.jpg").write_bytes(as_file(array, quality=75))
    preprocessing = {"mean": (0,) * 3, "std": (1,) * 3, "input_size": (3, 80, 80), "interpolation": filter}
    network = {"net": model(80, preprocessing=preprocessing)}
    full, reduced = (extract(network, tmp_path, reduce=reduce)["net"] for reduce in (False, True))
    of_picture = extract(network, [array])["net"]

    def rms(x):
        return float(np.sqrt((x**2).mean()) * 255)

    assert 0 < rms(reduced - full) < 1.1
    assert rms(reduced - of_picture) < rms(full - of_picture) + 0.5


def test_it_is_off_by_default_and_a_store_keeps_that_it_was_on(tmp_path):
    for number in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(as_file(np.roll(smooth(256, 320), number, 0)))
    network, pictures = {"net": model(16)}, tmp_path / "pictures"
    full, reduced = extract(network, pictures), extract(network, pictures, reduce=True, num_workers=2)
    assert not np.array_equal(full["net"], reduced["net"])
    contents = [file.read_bytes() for file in sorted(pictures.iterdir())]
    assert np.array_equal(extract(network, contents, reduce=True)["net"], reduced["net"])
    store = extract(network, pictures, reduce=True, store=tmp_path / "store", dtype="float32")
    np.testing.assert_array_equal(store["net"][:], reduced["net"])
    assert store.metadata == {"crop": False, "reduce": True}
    with refuses("reduce"):
        extract(network, pictures, store=tmp_path / "store")
    of_contents = [extract(network, contents[:n], reduce=True, store=tmp_path / "contents") for n in (2, 3)]
    assert len(of_contents[1].images) == 3 and usae.ActivationStore(tmp_path / "contents").n_tokens == 3 * 256
    with refuses("reduce"):
        extract(network, pictures, reduce="yes")
    assert torch.is_grad_enabled()
