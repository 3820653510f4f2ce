"""The pictures of arrays, files, folders, data sets, data loaders and other iterables, one by one."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

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
from usae.torch._pixels import Draft, kind_of
from usae.torch._plain import plain

HIDDEN_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders of copies and thumbnails that systems make. Files and folders whose names begin with a dot are hidden too."""

RGB = (3,)
"""Channels of pictures for networks that take colours."""

Threads = Literal["any", "one", "caller"]


class Picture(NamedTuple):
    """A picture that is not loaded yet.

    Attributes
    ----------
    where : str
        What messages call it.
    name : str or None
        The path of its file; in a folder, the path below that folder.
    load : callable
        Function that loads it as float32 [channels, height, width] in 0..1. Of a file or its contents it takes a `Draft` too.
    threads : "any", "one" or "caller"
        Which threads may load it: any, at the same time as others; one, in the order of pictures, because pictures may share
        what they are read from; or the caller's alone, before the next picture is taken from the caller's iterable, which may
        change what it gave.
    expand : callable or None
        Function that reads an example of a data set, which may hold several pictures, and returns them. None: it is one.
    is_file : bool
        Whether it is decoded from a file or the contents of one.
    """

    where: str
    name: str | None
    load: Callable[..., Tensor]
    threads: Threads = "any"
    expand: Callable[[], list[Picture]] | None = None
    is_file: bool = False

    def parts(self) -> list[Picture]:
        """Return the pictures that this stands for."""
        return [self] if self.expand is None else self.expand()

    def loaded(self, draft: Draft | None) -> Tensor:
        """Return its pixels, perhaps of a smaller size if it is a file."""
        return self.load(draft=draft) if self.is_file and draft is not None else self.load()


def pictures(images: object, channels: Channels = RGB) -> tuple[Iterator[Tensor], int | None]:
    """Return the pictures one by one, float32 [channels, height, width] in 0..1, and their number if it is known before."""
    named, n = named_pictures(images, channels)
    return (part.load() for picture in named for part in picture.parts()), n


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
    keeps = isinstance(images, (list, tuple))
    each = (one_or_many(image, f"images[{number}]", keeps=keeps) for number, image in enumerate(_items(images)))
    # Other sequences, for example data sets that read files, are not searched: it might take hours.
    known = keeps and not any(map(is_many, images))
    return itertools.chain.from_iterable(each), len(images) if known else None  # type: ignore[arg-type]


# --- Sources ----------------------------------------------------------------------------------------------------------


def _pictures_of(item: Any, where: str, channels: Channels, keeps: bool = True) -> Iterator[Picture]:
    """Yield the picture or pictures of an array, a file, the contents of one, a PIL image, or an example of a data set.

    `keeps` says whether the caller's collection keeps the item as it is, whatever is taken from the collection next.
    """
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
        yield from _of_array(item, where, channels, keeps)
        return
    # Open files and PIL images may read from one file of several pictures.
    threads: Threads = "any" if isinstance(item, bytes) else "one" if keeps else "caller"
    if _pixels.is_pil(item):
        load = _pixels.from_pil
    elif is_contents(item):
        load = _pixels.from_contents
    else:
        load = _refuse
    is_file = load is _pixels.from_contents
    yield Picture(where, None, functools.partial(load, item, where, channels), threads, is_file=is_file)


def _of_array(array: Any, where: str, channels: Channels, keeps: bool) -> Iterator[Picture]:
    try:
        array = plain(array, where)
        _pixels.check_array(array, where, channels)
    except InvalidInputError as error:  # about the whole array, and not about each of its pictures
        yield Picture(where, None, functools.partial(_fail, error))
        return
    for row in array if array.ndim == 4 else (array,):
        if isinstance(row, Tensor) and row.device.type != "cpu":
            row = row.detach().cpu()  # here, because each thread has its own stream of a GPU
        yield Picture(where, None, functools.partial(_pixels.from_array, row, where, channels), "any" if keeps else "caller")


def _items(images: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of an iterable. Whatever its own code raises becomes an error that says where."""
    number = 0
    try:
        for item in images:
            yield item
            number += 1
    except (InvalidInputError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise _refusal(f"images[{number}]", None, error) from error


def _of_file(path: Any, where: str, channels: Channels, name: str | None = None) -> Picture:
    load = functools.partial(_pixels.from_file, path, where, channels)
    return Picture(where, os.fsdecode(path) if name is None else name, load, is_file=True)


def _of_data_set(images: Any, channels: Channels) -> Iterator[Picture]:
    """Yield the pictures of a data set by their numbers, so that an example that fails does not end it."""
    names, length = _file_names(images), length_of(images)
    if length is not None:
        for number in range(length):
            example = functools.partial(_of_example, images, number, channels, names)
            yield Picture(f"images[{number}]", names(number), _unread, "one", example)
        return
    with contextlib.suppress(IndexError):
        for number in itertools.count():
            yield from _of_example(images, number, channels, names, ends=True)


def _of_example(
    images: Any, number: int, channels: Channels, names: Callable[[int], str | None], ends: bool = False
) -> list[Picture]:
    """Read an example of a data set and return its pictures. With `ends` an IndexError is raised as it is."""
    where, name = f"images[{number}]", names(number)
    try:
        item = images[number]
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a data set of the user's raises when it reads a file
        if ends and isinstance(error, IndexError):
            raise
        return [Picture(where, name, functools.partial(_fail, _refusal(where, name, error)), "caller")]
    found = _pictures_of(item, where, channels, keeps=False)
    return [picture if picture.name is not None else picture._replace(name=name) for picture in found]


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


def _unread() -> Tensor:
    raise RuntimeError("an example of a data set has to be expanded first")


def _fail(error: InvalidInputError) -> Tensor:
    raise error
