"""Pictures in whatever a user has them in: the page shows what networks get."""

import io

import numpy as np
import pytest

from usae._explorer.pictures import _as_image, as_pictures

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
GREY = np.arange(0, 256, 17, np.uint8).reshape(2, 8)
RGB = np.repeat(GREY[..., None], 3, -1)


def saved(image, **arguments):
    stream = io.BytesIO()
    image.save(stream, **arguments)
    return stream.getvalue()


@pytest.mark.parametrize(
    "item",
    [
        RGB,
        GREY,
        np.moveaxis(RGB, -1, 0),
        RGB.astype(np.int64),
        RGB.astype(np.uint16) * 257,
        RGB / 255,
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32)),
        Image.fromarray((GREY / 255).astype(np.float32)),
        Image.fromarray(GREY.astype(np.float32)),
        Image.fromarray(RGB).convert("RGBA"),
        Image.fromarray(RGB).convert("RGBA").convert("RGBa"),
        Image.fromarray(GREY).convert("LA"),
        Image.fromarray(GREY).convert("P"),
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), format="PNG"),
        saved(Image.fromarray((GREY / 255).astype(np.float32)), format="TIFF"),
    ],
    ids=str,
)
def test_a_picture_is_the_same_in_every_form(item):
    np.testing.assert_array_equal(np.asarray(_as_image(item)), RGB)


def test_an_image_is_shown_as_the_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = Image.open(io.BytesIO(saved(Image.fromarray(RGB[::-1, ::-1]), format="PNG", exif=exif)))
    np.testing.assert_array_equal(np.asarray(_as_image(turned)), RGB)


@pytest.mark.parametrize(
    "array", [RGB.astype(np.int16) - 1, RGB.astype(np.int32) + 1, RGB * 1.0, RGB / 255 - 0.5, RGB / np.nan]
)
def test_numbers_that_are_no_colours_are_not_shown_as_such(array):
    with pytest.raises(ValueError, match=r"from 0 to"):
        _as_image(array)
    pictures = as_pictures(np.stack([(RGB / 255 if array.dtype.kind == "f" else RGB).astype(array.dtype), array]), None, 2)
    assert [len(one) > 0 for one in pictures.encoded([0, 1], (4, 4), False)] == [True, False]
