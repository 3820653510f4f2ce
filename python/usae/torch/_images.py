"""The pictures of arrays, files, folders, data sets, data loaders and other iterables, one by one."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch import _pixels
from usae.torch._items import (
    SUFFIXES,
    Channels,
    entry,
    expected,
    holds_objects,
    is_array,
    is_contents,
    is_many,
    is_numbered,
    is_path,
    length_of,
    rows,
    text_of,
)
from usae.torch._pixels import kind_of
from usae.torch._plain import plain

HIDDEN_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders of copies and thumbnails that systems make. Files and folders whose names begin with a dot are hidden too."""

RGB = (3,)
"""Channels of pictures for networks that take colours."""


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
    if is_path(images):
        images = text_of(images, "images")
    if is_path(images) and os.path.isdir(images):
        files = _files(images)
        return (_of_file(os.path.join(images, name), "images", channels, name) for name in files), len(files)
    if is_array(images):
        if holds_objects(images):
            return named_pictures(images.item() if images.ndim == 0 else rows(images), channels)
        images = plain(images, "images")
        return one_or_many(images, "images"), len(images) if images.ndim == 4 else 1
    if is_path(images) or is_contents(images) or _pixels.is_pil(images):
        return one_or_many(images, "images"), 1
    if is_numbered(images):
        return _of_data_set(images, channels), length_of(images)
    if not isinstance(images, Iterable) or isinstance(images, Mapping):
        raise InvalidInputError(f"images must be {expected(channels)}, got {kind_of(images)}")
    each = (one_or_many(image, f"images[{number}]") for number, image in enumerate(_items(images)))
    # Other sequences, for example data sets that read files, are not searched: it might take hours.
    known = isinstance(images, (list, tuple)) and not any(map(is_many, images))
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
        item = entry(item, where)
        item = text_of(item, where) if is_path(item) else item
    except InvalidInputError as error:
        yield Picture(where, None, functools.partial(_fail, error))
        return
    if isinstance(item, str):
        yield _of_file(item, where, channels)
        return
    if is_array(item):
        yield from _of_array(item, where, channels)
        return
    if _pixels.is_pil(item):
        load = _pixels.from_pil
    elif is_contents(item):
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
    except (InvalidInputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _refusal(f"images[{number}]", None, error) from error


def _of_file(path: Any, where: str, channels: Channels, name: str | None = None) -> Picture:
    load = functools.partial(_pixels.from_file, path, where, channels)
    return Picture(where, os.fsdecode(path) if name is None else name, load)


def _of_data_set(images: Any, channels: Channels) -> Iterator[Picture]:
    """Yield the pictures of a data set by their numbers, so that an example that fails does not end it."""
    names, length = _file_names(images), length_of(images)
    for number in itertools.count() if length is None else range(length):
        where = f"images[{number}]"
        try:
            item = images[number]
        except IndexError as error:
            if length is not None:
                item = _refusal(where, names(number), error)
            else:
                return
        except (MemoryError, torch.OutOfMemoryError):
            raise
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
    if not isinstance(samples, (list, tuple)) or len(samples) != length_of(images):
        return lambda number: None

    def name_of(number: int) -> str | None:
        sample = samples[number]
        path = sample[0] if isinstance(sample, (list, tuple)) and sample else sample
        return text_of(path, "images") if is_path(path) else None

    return name_of


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


def _refuse(item: object, where: str, channels: Channels) -> Tensor:
    raise InvalidInputError(
        f"{where} must be an array, a file, the contents of one or a PIL image, got {kind_of(item)}; give pictures, one by one"
    )


def _fail(error: InvalidInputError) -> Tensor:
    raise error
