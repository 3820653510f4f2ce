"""`extract` and `batches`: activations of several models over the same images, where row t of every model is the same place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Literal, overload

import numpy as np

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import MaskedActivations
from usae._data.store import ActivationStore, DType
from usae.errors import InvalidInputError
from usae.torch import _into_store
from usae.torch._extraction_plan import Inputs, Plan
from usae.torch._feeder import Feeder, Feeding, Outcome, kept
from usae.torch._images import Picture, named_pictures
from usae.torch._layer_output import Grid
from usae.torch._masks import PictureMasks
from usae.torch._model import Model
from usae.torch._preprocessing import Crop
from usae.torch._reader import Reader, SkippedPicture

OnError = Literal["raise", "skip"]
Pieces = Generator[Mapping[str, np.ndarray], None, None]


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
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
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
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
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
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
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
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
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
    num_workers : int, optional
        Number of threads that decode and resize pictures while the networks compute. Results do not depend on it. 0 does it in
        between. Default: None, which takes half the cores that this process may use (`usae.set_num_threads`) if all networks
        are on the CPU, otherwise as many as cores, and at most 16.
    prefetch : int, optional
        Number of batches that are read ahead. Default: None, which takes 2, and 0 for an iterator, of which no more than the
        next batch is taken then.
    reduce : bool
        Whether JPEG files that are much larger than the networks' images are decoded at 1/2, 1/4 or 1/8 of their size, so that
        at least twice the networks' size is left. It is several times as fast for large photographs, and changes pixels a
        little: docs/extraction.md says how much. Default: False, so that a picture has the same pixels however it comes.

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
        plan = Plan.of(models, batch_size, grid, crop, reduce)
        feeding = Feeding.of(num_workers, prefetch, plan.models, images)
        return _into_store.extract(plan, images, dtype, progress, store, shard_images, mask, reader, feeding)
    as_type = "float32" if dtype is None else dtype
    batches_of_images, n = _aligned_batches(
        models, images, batch_size, grid, crop, as_type, mask, reader, num_workers, prefetch, reduce
    )
    parts: list[Mapping[str, np.ndarray]] = []
    result: dict[str, np.ndarray] = {}
    found: list[np.ndarray] = []
    done = 0
    with contextlib.closing(batches_of_images), progress_bar(n, progress, desc="extracting", unit="image") as bar:
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
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield what `extract` returns, `batch_size` images at a time, for `usae.UniversalSAE.partial_fit` or files of your own.

    Arguments are checked in the call, and pictures when they are read.

    Parameters
    ----------
    models, images, batch_size, grid, crop, dtype, mask, on_error, skipped, num_workers, prefetch, reduce
        As for `extract`, except that the default of `dtype` is "float32". Threads end with the generator, also if it is closed
        or deleted before its end.

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
    pieces, _ = _aligned_batches(models, images, batch_size, grid, crop, dtype, mask, reader, num_workers, prefetch, reduce)
    return _until_the_warning(pieces, reader)


def _until_the_warning(pieces: Pieces, reader: Reader) -> Pieces:
    yield from pieces
    reader.warn(stacklevel=3)


def _aligned_batches(
    models: object,
    images: Any,
    batch_size: object,
    grid: Any,
    crop: object,
    dtype: object,
    mask: Any,
    reader: Reader,
    num_workers: object,
    prefetch: object,
    reduce: object,
) -> tuple[Pieces, int | None]:
    """Return batches of aligned activations, and the number of images if it is known in advance."""
    if not isinstance(dtype, str) or dtype not in ("float32", "float16"):
        raise InvalidInputError(f'dtype must be "float32" or "float16", got {checks.shown(dtype)}')
    plan = Plan.of(models, batch_size, grid, crop, reduce)
    feeding = Feeding.of(num_workers, prefetch, plan.models, images)
    named, n = named_pictures(images, plan.channels)
    masks = None if mask is None else PictureMasks(mask, plan.n_tokens, n)
    return _pieces(plan, named, str(dtype), masks, reader, feeding), n


def _pieces(
    plan: Plan, named: Iterator[Picture], dtype: str, masks: PictureMasks | None, reader: Reader, feeding: Feeding
) -> Pieces:
    numbers: list[int] = []
    with Feeder(feeding, plan, lambda picture, pixels: Outcome(picture, plan.inputs_of(pixels))) as feeder:
        for batch in plan.batches(_inputs(feeder.outcomes(named), reader, numbers), dtype):
            yield batch if masks is None else MaskedActivations(batch, masks.of(numbers))
            numbers.clear()
    if masks is not None:
        masks.check_used_up(reader.number + 1)


def _inputs(outcomes: Iterator[Outcome], reader: Reader, numbers: list[int]) -> Iterator[Inputs]:
    """Yield pictures as networks take them, and append the pictures' numbers to `numbers`."""
    for outcome in kept(outcomes, reader):
        numbers.append(reader.number)
        yield outcome.inputs
