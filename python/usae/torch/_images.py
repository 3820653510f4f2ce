"""The pictures of arrays, files, folders, data sets, data loaders and other iterables, one by one."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch import _pixels
from usae.torch._pixels import expected_arrays, kind_of
from usae.torch._plain import plain

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Suffixes of the files in a folder that are taken as pictures, in upper or lower case."""

HIDDEN_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders of copies and thumbnails that systems make. Files and folders whose names begin with a dot are hidden too."""

KEYS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
"""Names that data sets give to the picture among the values of an example."""

RGB = (3,)
"""Channels of pictures for networks that take colours."""

Channels = Collection[int]


class Picture(NamedTuple):
    """A picture that is not loaded yet.

    Attributes
    ----------
    where : str
        What messages call it.
    name : str or None
        The path of its file; in a folder, the path below that folder.
    load : callable
        Function that loads it as float32 [channels, height, width] in 0..1.
    """

    where: str
    name: str | None
    load: Callable[[], Tensor]


class SkippedPicture(NamedTuple):
    """A picture that was left out because it could not be read.

    Attributes
    ----------
    number : int
        Its number among all pictures.
    name : str
        Its file, or what it is called in messages.
    reason : str
        The error's text.
    """

    number: int
    name: str
    reason: str


def pictures(images: object, channels: Channels = RGB) -> tuple[Iterator[Tensor], int | None]:
    """Return the pictures one by one, float32 [channels, height, width] in 0..1, and their number if it is known before."""
    named, n = named_pictures(images, channels)
    return (picture.load() for picture in named), n


def named_pictures(images: Any, channels: Channels = RGB) -> tuple[Iterator[Picture], int | None]:
    """Return the same as `pictures`, with file names and functions that load the pictures.

    `channels` are numbers of channels that networks take. Arrays may have these, or 1 or 3.
    """
    one_or_many = functools.partial(_pictures_of, channels=channels)
    if _is_path(images):
        images = _text(images, "images")
    if _is_path(images) and os.path.isdir(images):
        files = _files(images)
        return (_of_file(os.path.join(images, name), "images", channels, name) for name in files), len(files)
    if _is_array(images):
        if _holds_objects(images):
            return named_pictures(images.item() if images.ndim == 0 else _rows(images), channels)
        images = plain(images, "images")
        return one_or_many(images, "images"), len(images) if images.ndim == 4 else 1
    if _is_path(images) or _is_contents(images) or _pixels.is_pil(images):
        return one_or_many(images, "images"), 1
    if _is_numbered(images):
        return _of_data_set(images, channels), len(images) if isinstance(images, Sized) else None
    if not isinstance(images, Iterable) or isinstance(images, Mapping):
        raise InvalidInputError(f"images must be {_expected(channels)}, got {kind_of(images)}")
    each = (one_or_many(image, f"images[{number}]") for number, image in enumerate(_items(images)))
    # Other sequences, for example data sets that read files, are not searched: it might take hours.
    known = isinstance(images, (list, tuple)) and not any(map(_is_many, images))
    return itertools.chain.from_iterable(each), len(images) if known else None  # type: ignore[arg-type]


class Reader:
    """Loads pictures, and leaves out those that cannot be read if `on_error` is "skip".

    Attributes
    ----------
    skips : bool
        Whether pictures are left out.
    skipped : list of SkippedPicture
        What was left out. It is the caller's list if one was given.
    number : int
        Number, among all pictures, of the one that was loaded, left out or passed over last; -1 before the first.
    """

    def __init__(self, on_error: object = "raise", skipped: object = None):
        if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
            raise InvalidInputError(f'on_error must be "raise" or "skip", got {checks.shown(on_error)}')
        if skipped is not None and not isinstance(skipped, list):
            raise InvalidInputError(f"skipped must be a list, to which pictures are appended, or None, got {kind_of(skipped)}")
        self.skips = on_error == "skip"
        self.skipped: list[SkippedPicture] = [] if skipped is None else skipped
        self._first = len(self.skipped)
        self.number = -1

    def loaded(self, named: Iterable[Picture]) -> Iterator[tuple[Picture, Tensor]]:
        """Yield each picture with its pixels."""
        for picture in named:
            pixels = self.try_to_load(picture)
            if pixels is not None:
                yield picture, pixels

    def try_to_load(self, picture: Picture) -> Tensor | None:
        """Return a picture's pixels, or None if it was left out."""
        self.number += 1
        try:
            return picture.load()
        except InvalidInputError as error:
            if not self.skips:
                raise
            self.skipped.append(SkippedPicture(self.number, picture.name or picture.where, str(error)))
            return None

    def pass_over(self) -> None:
        """Count a picture that need not be loaded."""
        self.number += 1

    def check_some(self, n: int, stacklevel: int = 3) -> None:
        """Refuse to have read no picture. With some, warn of those that were left out."""
        new = self.skipped[self._first :]
        if not n:
            reason = f" that can be read of {len(new)}; the first error: {new[0].reason}" if new else ""
            raise InvalidInputError(f"images must hold at least one picture, got none{reason}")
        self.warn(stacklevel + 1)

    def warn(self, stacklevel: int = 2) -> None:
        """Warn of pictures that were left out, if there are any."""
        new = self.skipped[self._first :]
        if new:
            some = ", ".join(repr(each.name) for each in new[:3]) + (", ..." if len(new) > 3 else "")
            warnings.warn(
                f"images: {len(new)} of {self.number + 1} pictures could not be read and were left out ({some}); the first "
                f"error: {new[0].reason}; give skipped=[] to get the whole list",
                stacklevel=stacklevel,
            )


# --- Sources ----------------------------------------------------------------------------------------------------------


def _pictures_of(item: Any, where: str, channels: Channels) -> Iterator[Picture]:
    """Yield the picture or pictures of an array, a file, the contents of one, a PIL image, or an example of a data set."""
    load: Callable[..., Tensor]
    try:
        item = _entry(item, where)
        item = _text(item, where) if _is_path(item) else item
    except InvalidInputError as error:
        yield Picture(where, None, functools.partial(_fail, error))
        return
    if isinstance(item, str):
        yield _of_file(item, where, channels)
        return
    if _is_array(item):
        yield from _of_array(item, where, channels)
        return
    if _pixels.is_pil(item):
        load = _pixels.from_pil
    elif _is_contents(item):
        load = _pixels.from_contents
    else:
        load = _refuse
    yield Picture(where, None, functools.partial(load, item, where, channels))


def _of_array(array: Any, where: str, channels: Channels) -> Iterator[Picture]:
    try:
        array = plain(array, where)
        _pixels.check_array(array, where, channels)
    except InvalidInputError as error:  # about the whole array, and not about each of its pictures
        yield Picture(where, None, functools.partial(_fail, error))
        return
    for row in array if array.ndim == 4 else (array,):
        yield Picture(where, None, functools.partial(_pixels.from_array, row, where, channels))


def _items(images: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of an iterable. Whatever its own code raises becomes an error that says where."""
    number = 0
    try:
        for item in images:
            yield item
            number += 1
    except (InvalidInputError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(f"images[{number}]", None, error) from error


def _of_file(path: Any, where: str, channels: Channels, name: str | None = None) -> Picture:
    load = functools.partial(_pixels.from_file, path, where, channels)
    return Picture(where, os.fsdecode(path) if name is None else name, load)


def _of_data_set(images: Any, channels: Channels) -> Iterator[Picture]:
    """Yield the pictures of a data set by their numbers, so that an example that fails does not end it."""
    names = _file_names(images)
    for number in range(len(images)) if isinstance(images, Sized) else itertools.count():
        where = f"images[{number}]"
        try:
            item = images[number]
        except IndexError as error:
            if isinstance(images, Sized):
                item = _refusal(where, names(number), error)
            else:
                return
        except Exception as error:  # whatever a data set of the user's raises when it reads a file
            item = _refusal(where, names(number), error)
        if isinstance(item, InvalidInputError):
            yield Picture(where, names(number), functools.partial(_fail, item))
            continue
        for picture in _pictures_of(item, where, channels):
            yield picture if picture.name is not None else picture._replace(name=names(number))


def _refusal(where: str, name: str | None, error: Exception) -> InvalidInputError:
    of = f" ({name!r})" if name else ""
    refusal = InvalidInputError(f"{where} must be a picture, got {type(error).__name__}{of}: {error}; leave it out")
    refusal.__cause__ = error
    return refusal


def _file_names(images: Any) -> Callable[[int], str | None]:
    """Return a function from the number of an example to its file, for data sets like torchvision's `ImageFolder`."""
    if isinstance(images, Subset):
        inner = _file_names(images.dataset)
        return lambda number: inner(images.indices[number])
    samples = getattr(images, "samples", None)
    if not isinstance(samples, (list, tuple)) or len(samples) != _length(images):
        return lambda number: None

    def name_of(number: int) -> str | None:
        sample = samples[number]
        path = sample[0] if isinstance(sample, (list, tuple)) and sample else sample
        return _text(path, "images") if _is_path(path) else None

    return name_of


def _length(images: object) -> int:
    return len(images) if isinstance(images, Sized) else -1


def _files(folder: str) -> list[str]:
    """Return the paths of picture files in a folder and its subfolders, below it, in the order of their parts."""
    found: list[tuple[str, ...]] = []
    _search(folder, (), (os.path.realpath(folder),), found)
    if not found:
        raise InvalidInputError(
            f"images must be a folder with picture files ({', '.join(SUFFIXES)}), in it or in its subfolders, got none in "
            f"{_pixels.printable(folder)}"
        )
    return ["/".join(parts) for parts in sorted(found)]


def _search(folder: str, below: tuple[str, ...], above: tuple[str, ...], found: list[tuple[str, ...]]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in HIDDEN_FOLDERS:
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:  # a link to a folder that holds it
                    _search(entry.path, (*below, entry.name), (*above, real), found)
            elif entry.name.lower().endswith(SUFFIXES):
                found.append((*below, entry.name))


# --- What an item is --------------------------------------------------------------------------------------------------


def _entry(item: Any, where: str = "images") -> Any:
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
        return _entry(first, where)
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
    return _entry(item[keys[0]], where)


def _alike(first: Any, other: Any) -> bool:
    """Whether another element of an item might be a second picture, which must not be ignored."""
    if _is_array(first) and _is_array(other):
        if any(isinstance(x, Tensor) and x.is_nested for x in (first, other)):
            return True
        return first.ndim == other.ndim > 2 and first.shape[-2:] == other.shape[-2:]
    if _pixels.is_pil(first) and _pixels.is_pil(other):
        return first.mode == other.mode
    if _is_path(first) and _is_path(other):
        return os.fsdecode(other).lower().endswith(SUFFIXES)
    return _is_contents(first) and _is_contents(other)


def _is_many(item: Any) -> bool:
    """Whether an item of a sequence is an array of several pictures."""
    while isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, Mapping):
        return any(_is_many(item[key]) for key in KEYS if key in item)
    return _is_array(item) and item.ndim == 4


def _is_array(x: object) -> Any:
    return isinstance(x, (np.ndarray, Tensor))


def _holds_objects(x: Any) -> bool:
    """Whether an array holds paths or other objects in place of numbers."""
    return isinstance(x, np.ndarray) and x.dtype.kind in "OUST"


def _rows(array: np.ndarray) -> list[Any]:
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


def _is_path(x: object) -> bool:
    return isinstance(x, (str, os.PathLike))


def _text(path: Any, where: str) -> str:
    """Return a path as text."""
    try:
        return os.fsdecode(path)
    except Exception as error:  # of the object's own method
        raise InvalidInputError(f"{where} must be the path of a file, got {kind_of(path)}: {error}; give text") from error


def _is_contents(x: object) -> bool:
    return isinstance(x, (bytes, bytearray, memoryview)) or (_has(x, "read") and not _pixels.is_pil(x))


def _has(x: object, name: str) -> bool:
    try:
        return hasattr(x, name)
    except Exception:  # of the object's own method
        return False


def _is_numbered(x: object) -> bool:
    """Whether pictures are taken by number: of a data set of PyTorch or of `datasets`, or of what cannot be iterated over."""
    if isinstance(x, (IterableDataset, Mapping)) or not _has(x, "__getitem__"):
        return False
    of_datasets = type(x).__module__.partition(".")[0] == "datasets" and hasattr(x, "__len__")
    return isinstance(x, Dataset) or of_datasets or (hasattr(x, "__len__") and not isinstance(x, (Iterable, Sequence)))


def _refuse(item: object, where: str, channels: Channels) -> Tensor:
    raise InvalidInputError(
        f"{where} must be an array, a file, the contents of one or a PIL image, got {kind_of(item)}; give pictures, one by one"
    )


def _fail(error: InvalidInputError) -> Tensor:
    raise error


def _expected(channels: Channels) -> str:
    return (
        f"{expected_arrays(channels)}, a folder, a data set, or a sequence or iterable of such arrays, of files, of their "
        f"contents, or of PIL images"
    )
