"""Conversion of pictures (arrays, files, folders or PIL images) to float32 tensors in 0..1."""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from usae.errors import InvalidInputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the files in a folder that are taken as pictures, in upper or lower case."""

EXPECTED = (
    "uint8 [n, H, W, 3], floats [n, 3, H, W] in 0..1, a folder, or a sequence or iterable of such arrays, of files, "
    "or of PIL images"
)


Picture = tuple[str | None, Callable[[], Tensor]]
"""The name of the picture's file, or None, and a function that loads it as float32 [3, height, width] in 0..1."""


def pictures(images: object) -> tuple[Iterator[Tensor], int | None]:
    """Return the pictures one by one, float32 [3, height, width] in 0..1, and their number if it is known in advance."""
    named, n = named_pictures(images)
    return (load() for _, load in named), n


def named_pictures(images: object) -> tuple[Iterator[Picture], int | None]:
    """Return the same as `pictures`, with file names (in a folder) or paths, and functions that load the pictures."""
    if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
        files = _files(pathlib.Path(images))
        return ((file.name, functools.partial(_from_file, file)) for file in files), len(files)
    if _is_many(images):
        return _named(images, "images"), len(images)  # type: ignore[arg-type]
    if isinstance(images, (np.ndarray, Tensor, str, os.PathLike)) or _is_pil(images):
        return _named(images, "images"), 1
    if not isinstance(images, Iterable) or isinstance(images, (bytes, Mapping)):
        raise InvalidInputError(f"images must be {EXPECTED}, got {_kind(images)}")
    # Other sequences, for example data sets that read files, are not searched: it might take hours.
    known = isinstance(images, (list, tuple)) and not any(map(_is_many, images))
    return _each(images), len(images) if known else None  # type: ignore[arg-type]


def resized(picture: Tensor, size: tuple[int, int], crop: bool) -> Tensor:
    """Resize a picture, [3, H, W], to `size` (bilinear, antialiased). `crop`: cut out its centre in these proportions first."""
    (height, width), (h, w) = picture.shape[1:], size
    if crop:
        tall, wide = min(height, max(1, round(width * h / w))), min(width, max(1, round(height * w / h)))
        top, left = (height - tall) // 2, (width - wide) // 2
        picture = picture[:, top : top + tall, left : left + wide]
    if picture.shape[1:] == size:
        return picture
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _each(images: Iterable[object]) -> Iterator[Picture]:
    for number, image in enumerate(images):
        yield from _named(image, f"images[{number}]")


def _named(image: Any, label: str) -> Iterator[Picture]:
    """Yield the picture or pictures of an array, a file or a PIL image."""
    if isinstance(image, (str, os.PathLike)):
        yield os.fspath(image), functools.partial(_from_file, image)
        return
    if _is_pil(image):
        rows = _from_pil(image, label)
    elif isinstance(image, (np.ndarray, Tensor)):
        rows = _from_array(image if _is_many(image) else image[None], label)
    else:
        raise InvalidInputError(f"{label} must be an array, a file or a PIL image, got {_kind(image)}")
    for picture in rows:
        yield None, functools.partial(_itself, picture)


def _itself(picture: Tensor) -> Tensor:
    return picture


def _from_array(array: Any, label: str) -> Iterator[Tensor]:
    """Yield pictures of an array [n, H, W, 3] or [n, 3, H, W]. If both are possible, uint8 is the first, floats the second."""
    shape, name = list(array.shape), str(array.dtype).removeprefix("torch.")
    is_bytes = name == "uint8"
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or 0 in shape or not (is_bytes or "float" in name):
        raise InvalidInputError(
            f"{label} must be uint8 [n, H, W, 3] or floats [n, 3, H, W] in 0..1, got {name} {shape}; grey pictures become "
            f"np.repeat(x[..., None], 3, axis=-1)"
        )
    channels_last = shape[3] == 3 and (is_bytes or shape[1] != 3)
    for row in array:
        picture = row.detach().cpu() if isinstance(row, Tensor) else torch.from_numpy(np.array(row))
        picture = picture.movedim(2, 0) if channels_last else picture
        yield picture.float() / 255 if is_bytes else _checked_range(picture.float(), label)


def _checked_range(picture: Tensor, label: str) -> Tensor:
    low, high = picture.aminmax()
    if not (low >= 0 and high <= 1):  # so that NaN is refused too
        raise InvalidInputError(
            f"{label} must hold floats in 0..1, got {low:.4g} to {high:.4g}; divide 0..255 by 255; for images that are already "
            f"normalised call model(images)"
        )
    return picture


def _from_file(path: str | os.PathLike[str]) -> Tensor:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ImportError(f"reading picture files needs Pillow ({error}): pip install pillow") from error
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)  # undo the camera's rotation
            return next(_from_pil(upright, str(path)))
    except UnidentifiedImageError as error:
        raise InvalidInputError(f"images must be files that Pillow reads, got {str(path)!r}: {error}") from error


def _from_pil(image: Any, label: str) -> Iterator[Tensor]:
    if image.mode[0] in "IF":  # Pillow would clip 16-bit values at 255
        raise InvalidInputError(
            f"{label} must have 8 bits a channel, got mode {image.mode!r}; give floats in 0..1, [3, H, W], instead"
        )
    yield from _from_array(np.asarray(image.convert("RGB"))[None], label)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidInputError(f"images must be a folder with picture files ({', '.join(SUFFIXES)}), got none in {folder}")
    return files


def _is_many(images: object) -> bool:
    return isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4


def _is_pil(image: object) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def _kind(x: object) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
