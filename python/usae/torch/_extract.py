"""`extract` and `batches`: activations of several models over the same images, where row t of every model is the same place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import numpy as np
from torch import Tensor

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import MaskedActivations
from usae._data.store import ActivationStore, DType
from usae.errors import InvalidInputError
from usae.torch import _into_store
from usae.torch._extraction_plan import Plan
from usae.torch._images import Picture, Reader, SkippedPicture, named_pictures
from usae.torch._layer_output import Grid
from usae.torch._masks import PictureMasks
from usae.torch._model import Model
from usae.torch._preprocessing import Crop

OnError = Literal["raise", "skip"]


@overload
def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: Literal["float32", "float16"] = "float32",
    progress: bool | None = None,
    mask: None = None,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
) -> dict[str, np.ndarray]: ...


@overload
def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: Literal["float32", "float16"] = "float32",
    progress: bool | None = None,
    mask: Any,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
) -> MaskedActivations: ...


@overload
def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: DType | None = None,
    progress: bool | None = None,
    store: str | os.PathLike[str],
    shard_images: int = 256,
    mask: Any = None,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
) -> ActivationStore: ...


def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: DType | None = None,
    progress: bool | None = None,
    store: str | os.PathLike[str] | None = None,
    shard_images: int = 256,
    mask: Any = None,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
) -> dict[str, np.ndarray] | MaskedActivations | ActivationStore:
    """Run every model over the same images and return their activations, for `usae.UniversalSAE.fit`.

    Parameters
    ----------
    models : mapping of str to Model
        The models by name.
    images : array, folder, data set, or a sequence or iterable
        An array, uint8 [n, H, W, 3] or floats [n, 3, H, W] in 0..1, grey with 1 channel; a folder, whose picture files, also
        those in subfolders, are taken in the order of their names; a data set or data loader of PyTorch, with labels or
        without; or a sequence or iterable of files, contents of files, PIL images and such arrays, of one picture or of many.
        Sizes may differ. Each picture is read once, and resized for each model.
    batch_size : int
        Number of images that are computed at a time. It changes only memory and speed. Default: 32.
    grid : (int, int), optional
        Rows and columns to which the token grid of every model is resized, by antialiased bilinear interpolation. Default:
        None, which takes the smallest of the models' grids.
    crop : bool or "own"
        Whether the centre of each picture is cut out in the proportions of the models' input. "own" cuts as the networks' own
        preprocessing does, which must be the same for all. Otherwise whole pictures are stretched to these proportions.
        Default: False.
    dtype : "float32", "float16" or "bfloat16", optional
        Type of the result. float16 is half as large as float32 and ends at 65504. bfloat16 is for stores only. Default: None,
        which takes float32; for a new store float16, and for an existing store its type.
    progress : bool, optional
        Whether to show a progress bar. Default: None, which shows it if stderr is a terminal, and in a notebook.
    store : path-like, optional
        Folder of an `usae.ActivationStore` to write to, for activations that do not fit into memory. An extraction that was
        interrupted continues after the images in the store. Files are then compared by name and not read again; other pictures
        are compared by their contents. Default: None, which returns arrays.
    shard_images : int
        Number of images in a file of the store. At most as many are computed again after an interruption. Default: 256.
    mask : array of bool, or iterable of arrays of bool, optional
        Which tokens of each picture count, on the common grid: [n, tokens], [n, rows, columns], or an iterable of [tokens] or
        [rows, columns] for each picture, also for those that cannot be read. [1, tokens] is the same for all. The result
        carries the mask, so that training and evaluation leave the other tokens out. Default: None, which means that all count.
    on_error : "raise" or "skip"
        What happens if a picture cannot be read. With "skip" it is left out for every model, with its mask, so that rows stay
        aligned, and a warning at the end says how many were left out. Default: "raise".
    skipped : list, optional
        A list to which a `SkippedPicture` (number, name, reason) is appended for each picture that is left out. Default: None.

    Returns
    -------
    dict of str to ndarray, MaskedActivations or ActivationStore
        Activations of each model, [n, tokens, width], with tokens row by row over the common grid. With `mask` they are
        `usae.MaskedActivations`.

    Raises
    ------
    InvalidInputError
        For arguments and pictures that cannot be used, for models whose tokens cannot be aligned, for activations that are not
        finite, and for activations beyond the range of `dtype`. Also for a store with other images, layers or models; the
        message names the first difference.
    CheckpointError
        If the store is damaged or cannot be written.
    """
    reader = Reader(on_error, skipped)
    if store is not None:
        plan = Plan.of(models, batch_size, grid, crop)
        return _into_store.extract(plan, images, dtype, progress, store, shard_images, mask, reader)
    kept = "float32" if dtype is None else dtype
    batches_of_images, n = _aligned_batches(models, images, batch_size, grid, crop, kept, mask, reader)
    parts: list[Mapping[str, np.ndarray]] = []
    result: dict[str, np.ndarray] = {}
    found: list[np.ndarray] = []
    done = 0
    with progress_bar(n, progress, desc="extracting", unit="image") as bar:
        for batch in batches_of_images:
            size = len(next(iter(batch.values())))
            if isinstance(batch, MaskedActivations):
                found.append(batch.mask)
            if n is None:
                parts.append(batch)
            else:
                for name, x in batch.items():
                    result.setdefault(name, np.empty((n, *x.shape[1:]), x.dtype))[done : done + size] = x
            done += size
            bar.update(size)
    reader.check_some(done)
    if n is None:
        result = {name: np.concatenate([part[name] for part in parts]) for name in models}
    elif done < n:
        result = {name: x[:done] for name, x in result.items()}
    return MaskedActivations(result, np.concatenate(found)) if found else result


def batches(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: Literal["float32", "float16"] = "float32",
    mask: Any = None,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield what `extract` returns, `batch_size` images at a time, for `usae.UniversalSAE.partial_fit` or files of your own.

    Arguments are checked in the call, and pictures when they are read.

    Parameters
    ----------
    models, images, batch_size, grid, crop, dtype, mask, on_error, skipped
        As for `extract`, except that the default of `dtype` is "float32".

    Yields
    ------
    dict of str to ndarray, or MaskedActivations
        Activations of each model, [at most batch_size, tokens, width]. With `mask` they are `usae.MaskedActivations`.

    Raises
    ------
    InvalidInputError
        As for `extract`.
    """
    reader = Reader(on_error, skipped)
    return _until_the_warning(_aligned_batches(models, images, batch_size, grid, crop, dtype, mask, reader)[0], reader)


def _until_the_warning(pieces: Iterator[Mapping[str, np.ndarray]], reader: Reader) -> Iterator[Mapping[str, np.ndarray]]:
    yield from pieces
    reader.warn(stacklevel=3)


def _aligned_batches(
    models: object, images: Any, batch_size: object, grid: Any, crop: object, dtype: object, mask: Any, reader: Reader
) -> tuple[Iterator[Mapping[str, np.ndarray]], int | None]:
    """Return batches of aligned activations, and the number of images if it is known in advance."""
    if not isinstance(dtype, str) or dtype not in ("float32", "float16"):
        raise InvalidInputError(f'dtype must be "float32" or "float16", got {checks.shown(dtype)}')
    plan = Plan.of(models, batch_size, grid, crop)
    named, n = named_pictures(images, plan.channels)
    numbers: list[int] = []
    batches_of_images = plan.batches(_pixels(reader, named, numbers), str(dtype))
    if mask is None:
        return batches_of_images, n
    return _masked(batches_of_images, PictureMasks(mask, plan.n_tokens, n), numbers, reader), n


def _pixels(reader: Reader, named: Iterator[Picture], numbers: list[int]) -> Iterator[Tensor]:
    """Yield the pixels of pictures, and append the pictures' numbers to `numbers`."""
    for _, pixels in reader.loaded(named):
        numbers.append(reader.number)
        yield pixels


def _masked(
    batches_of_images: Iterator[dict[str, np.ndarray]], masks: PictureMasks, numbers: list[int], reader: Reader
) -> Iterator[MaskedActivations]:
    for batch in batches_of_images:
        yield MaskedActivations(batch, masks.of(numbers))
        numbers.clear()
    masks.check_used_up(reader.number + 1)
