"""What the items of a collection of pictures are: arrays, files, examples of data sets, and entries of mappings."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from usae.errors import InvalidInputError
from usae.torch import _pixels
from usae.torch._pixels import expected_arrays, kind_of

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Suffixes of the files in a folder that are taken as pictures, in upper or lower case."""

KEYS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
"""Names that data sets give to the picture among the values of an example."""

Channels = Collection[int]


def entry(item: Any, where: str = "images") -> Any:
    """Return what stands for the picture in an item: itself, the first of a pair with a label, or an entry of a mapping."""
    if isinstance(item, Mapping):
        return _entry_of_mapping(item, where)
    if isinstance(item, (tuple, list)) and item:
        first, *others = item
        if isinstance(first, (tuple, list)) or any(_alike(first, other) for other in others):
            kinds = ", ".join(map(kind_of, item[:4])) + (", ..." if len(item) > 4 else "")
            raise InvalidInputError(
                f"{where} must be one picture, or a picture with its label, got {kind_of(item)} of {kinds}; give the pictures "
                f"alone: (x[0] for x in images)"
            )
        return entry(first, where)
    return item


def _entry_of_mapping(item: Mapping[Any, Any], where: str) -> Any:
    if "bytes" in item and item["bytes"] is not None:  # how `datasets` gives files that it does not decode
        return item["bytes"]
    if "path" in item:
        return item["path"]
    keys = [key for key in KEYS if key in item]
    if len(keys) != 1:
        raise InvalidInputError(
            f"{where} must have its picture as one of {', '.join(KEYS)}, got a {kind_of(item)} of "
            f"{', '.join(map(str, item)) or 'nothing'}; give the pictures alone: (x[...] for x in images)"
        )
    return entry(item[keys[0]], where)


def _alike(first: Any, other: Any) -> bool:
    """Whether another element of an item might be a second picture, which must not be ignored."""
    if is_array(first) and is_array(other):
        if any(isinstance(x, Tensor) and x.is_nested for x in (first, other)):
            return True
        return first.ndim == other.ndim > 2 and first.shape[-2:] == other.shape[-2:]
    if _pixels.is_pil(first) and _pixels.is_pil(other):
        return first.mode == other.mode
    if is_path(first) and is_path(other):
        return os.fsdecode(other).lower().endswith(SUFFIXES)
    return is_contents(first) and is_contents(other)


def is_many(item: Any) -> bool:
    """Whether an item of a sequence is an array of several pictures."""
    while isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, Mapping):
        return any(is_many(item[key]) for key in KEYS if key in item)
    return is_array(item) and item.ndim == 4


def is_array(x: object) -> Any:
    return isinstance(x, (np.ndarray, Tensor))


def holds_objects(x: Any) -> bool:
    """Whether an array holds paths or other objects in place of numbers."""
    return isinstance(x, np.ndarray) and x.dtype.kind in "OUST"


def rows(array: np.ndarray) -> list[Any]:
    if array.size and isinstance(array.flat[0], (int, float, np.number)):
        raise InvalidInputError(
            f"images must be an array of numbers, got one of objects {list(array.shape)} that are numbers; give "
            f"x.astype('uint8') of 0..255, or floats in 0..1"
        )
    if array.ndim > 1:
        raise InvalidInputError(
            f"images must have one dimension if they are an array of files or pictures, got {list(array.shape)}; use "
            f"images.ravel()"
        )
    return [os.fsdecode(x) if array.dtype.kind == "S" else x for x in array.tolist()]


def is_path(x: object) -> bool:
    return isinstance(x, (str, os.PathLike))


def text_of(path: Any, where: str) -> str:
    """Return a path as text."""
    try:
        return os.fsdecode(path)
    except Exception as error:  # of the object's own method
        raise InvalidInputError(f"{where} must be the path of a file, got {kind_of(path)}: {error}; give text") from error


def is_contents(x: object) -> bool:
    return isinstance(x, (bytes, bytearray, memoryview)) or (_has(x, "read") and not _pixels.is_pil(x))


def _has(x: object, name: str) -> bool:
    try:
        return hasattr(x, name)
    except Exception:  # of the object's own method
        return False


def is_numbered(x: object) -> bool:
    """Whether pictures are taken by number: of a data set of PyTorch or of `datasets`, or of what cannot be iterated over."""
    if isinstance(x, (IterableDataset, Mapping)) or not _has(x, "__getitem__"):
        return False
    of_datasets = type(x).__module__.partition(".")[0] == "datasets" and hasattr(x, "__len__")
    return isinstance(x, Dataset) or of_datasets or (hasattr(x, "__len__") and not isinstance(x, (Iterable, Sequence)))


def expected(channels: Channels) -> str:
    return (
        f"{expected_arrays(channels)}, a folder, a data set, or a sequence or iterable of such arrays, of files, of their "
        f"contents, or of PIL images"
    )


def length_of(images: object) -> int | None:
    try:
        return len(images) if isinstance(images, Sized) else None
    except Exception:  # of the object's own method, for example because it does not know
        return None
