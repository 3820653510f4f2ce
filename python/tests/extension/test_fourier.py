"""Fourier transforms of images, against numpy's in float64."""

import threading

import numpy as np
import pytest

from support.refusals import refuses
from usae import _usae

pytestmark = pytest.mark.slow

TOLERANCE = 1e-6  # of the norm; float32 rounds to 6e-8, and a transform of n numbers does so about log n times

SIZES = [
    *((512, 512), (518, 518), (224, 224), (448, 448), (128, 1024), (1024, 128)),
    *((1, 1), (1, 2), (2, 1), (1, 3), (1, 31), (1, 512), (1, 97), (31, 1), (518, 1), (101, 1), (16, 16), (17, 17)),
    *((97, 101), (101, 97), (60, 210), (35, 63), (33, 15), (7, 8191), (2, 8192), (240, 46), (31, 29)),
]  # fmt: skip


def rfft2(image: np.ndarray, n_threads: int = 1) -> np.ndarray:
    re, im = (np.full((*image.shape[:2], image.shape[2] // 2 + 1), np.nan, np.float32) for _ in range(2))
    _usae.rfft2(image, re, im, n_threads)
    return re + 1j * im


def irfft2(spectrum: np.ndarray, width: int, n_threads: int = 1) -> np.ndarray:
    image = np.full((*spectrum.shape[:2], width), np.nan, np.float32)
    _usae.irfft2(np.ascontiguousarray(spectrum.real), np.ascontiguousarray(spectrum.imag), image, n_threads)
    return image


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_close(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    assert np.linalg.norm(ours - expected) <= TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_transforms_are_those_of_numpy(height, width):
    image = normals(2, height, width)
    before = image.copy()
    assert_close(rfft2(image), np.fft.rfft2(image.astype(np.float64)))
    assert (image == before).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_inverses_are_those_of_numpy(height, width):
    # No spectra of real images: numpy ignores what is imaginary where it should be real.
    spectrum = normals(2, height, width // 2 + 1) + 1j * normals(3, height, width // 2 + 1)[1:]
    expected = np.fft.irfft2(spectrum.astype(np.complex128), s=(height, width))
    assert_close(irfft2(spectrum, width), expected)


def test_a_plane_has_the_same_bits_alone_and_for_any_number_of_threads():
    image = normals(3, 130, 74)
    spectrum = rfft2(image)
    back = irfft2(spectrum, 74)
    for n_threads in (0, 2, 4):
        assert (rfft2(image, n_threads) == spectrum).all()
        assert (irfft2(spectrum, 74, n_threads) == back).all()
    for plane in range(3):
        assert (rfft2(image[plane : plane + 1]) == spectrum[plane]).all()
        assert (irfft2(spectrum[plane : plane + 1], 74) == back[plane]).all()


def test_many_planes():
    image = normals(70, 256, 256)  # more than are transformed together
    assert_close(rfft2(image), np.fft.rfft2(image.astype(np.float64)))


def test_sizes_in_turn_from_several_threads():
    images = [normals(1, size, size + 1) for size in (16, 33, 40, 50, 61, 70)]
    expected = [rfft2(image) for image in images]
    wrong = []

    def transform(start: int) -> None:
        for i in range(start, start + 60):
            if not (rfft2(images[i % 6], 2) == expected[i % 6]).all():
                wrong.append(i)

    threads = [threading.Thread(target=transform, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("shape", "argument"),
    [
        ((4, 6), "image"),
        ((1, 1, 4, 6), "image"),
        ((0, 4, 6), "planes"),
        ((1, 0, 6), "height"),
        ((1, 4, 0), "width"),
        ((1, 4, 8193), "width"),
        ((1, 8193, 4), "height"),
    ],
)
def test_images_of_other_shapes_are_refused(shape, argument):
    spectrum = np.zeros((*shape[:-1], shape[-1] // 2 + 1), np.float32)
    with refuses(argument):
        _usae.rfft2(np.zeros(shape, np.float32), spectrum, spectrum.copy(), 1)
    with refuses(argument):
        _usae.irfft2(spectrum, spectrum, np.zeros(shape, np.float32), 1)


@pytest.mark.parametrize("name", ["re", "im"])
@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 4, 4), (1, 3, 4), (2, 4, 3), (4, 4), (2, 4, 5)])
def test_spectra_that_do_not_fit_the_images_are_refused(name, shape):
    arrays = {"re": np.zeros((2, 4, 4), np.float32), "im": np.zeros((2, 4, 4), np.float32), name: np.zeros(shape, np.float32)}
    image = np.zeros((2, 4, 6), np.float32)
    with refuses(name, str(shape)):
        _usae.rfft2(image, arrays["re"], arrays["im"], 1)
    with refuses(name, str(shape)):
        _usae.irfft2(arrays["re"], arrays["im"], image, 1)


def test_other_arrays_and_threads_are_refused():
    image, re, im = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32)
    with refuses("image", "float64"):
        _usae.rfft2(image.astype(np.float64), re, im, 1)
    with refuses("image", "none: ndarray is not C-contiguous"):
        _usae.rfft2(np.zeros((1, 4, 12), np.float32)[:, :, ::2], re, im, 1)
    im.flags.writeable = False
    with refuses("im", "none: buffer source array is read-only"):
        _usae.rfft2(image, re, im, 1)
    with refuses("n_threads", "-1"):
        _usae.irfft2(re, im, image, -1)
    with refuses("n_threads", "'two'", error=TypeError):
        _usae.irfft2(re, im, image, "two")
