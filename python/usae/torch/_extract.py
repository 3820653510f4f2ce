"""Activations of several models over the same images, row t of each the same place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import numpy as np

from usae._base.progress import progress_bar
from usae._data.store import ActivationStore, DType
from usae.errors import InvalidInputError
from usae.torch import _into_store
from usae.torch._images import pictures
from usae.torch._layers import Grid
from usae.torch._model import Model
from usae.torch._plan import Plan


@overload
def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    progress: bool | None = None,
) -> dict[str, np.ndarray]: ...


@overload
def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: bool = False,
    dtype: DType | None = None,
    progress: bool | None = None,
    store: str | os.PathLike[str],
    shard_images: int = 256,
) -> ActivationStore: ...


def extract(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: bool = False,
    dtype: DType | None = None,
    progress: bool | None = None,
    store: str | os.PathLike[str] | None = None,
    shard_images: int = 256,
) -> dict[str, np.ndarray] | ActivationStore:
    """Run every model over the same images; the result is what `usae.UniversalSAE.fit` takes.

    Parameters
    ----------
    models : mapping of str to Model
    images : array, folder, or a sequence or iterable
        uint8 [n, H, W, 3]; floats [n, 3, H, W] in 0..1; a folder, whose picture files are taken in the order of their names;
        or a sequence or iterable of files, PIL images and such arrays, of one picture or of many. Sizes may differ. Each
        picture is read once, and resized for each model.
    batch_size : int
        Images at a time; changes memory and speed only.
    grid : (int, int), optional
        Rows and columns to which every model's tokens are brought, by antialiased bilinear interpolation. Left out: the
        smallest of the models' own.
    crop : bool
        Take the centre of each picture in the proportions of the models' input. Otherwise whole pictures are squeezed to them.
    dtype : "float32", "float16" or "bfloat16", optional
        What is kept. float16 is half as large and ends at 65504; bfloat16 is for stores only. Left out: float32, in a store
        float16, or what an existing store has.
    progress : bool, optional
        Show a bar. Left out: where stderr is a terminal, or in a notebook.
    store : path-like, optional
        Write into an `usae.ActivationStore` there, for what memory does not hold. One that was interrupted is continued after
        the images that it has: files are then compared by name and not read again, other pictures by their contents.
    shard_images : int
        Images of a file of the store; as many are done again after an interruption.

    Returns
    -------
    dict of str to ndarray, or ActivationStore
        For each model [n, tokens, width], tokens row by row over the common grid; with `store` in files.

    Raises
    ------
    InvalidInputError
        For arguments and pictures that cannot be used, models whose tokens cannot be aligned, activations that are not
        finite, and those that `dtype` cannot hold. For a store of other images, layers or models, with the first difference.
    CheckpointError
        For a store that is damaged or cannot be written.
    """
    if store is not None:
        plan = Plan.of(models, batch_size, grid, crop)
        return _into_store.extract(plan, images, dtype, progress, store, shard_images)
    pieces, n = _pieces_of(models, images, batch_size, grid, crop, "float32" if dtype is None else dtype)
    parts: list[dict[str, np.ndarray]] = []
    result: dict[str, np.ndarray] = {}
    done = 0
    with progress_bar(n, progress, desc="extracting", unit="image") as bar:
        for piece in pieces:
            size = len(next(iter(piece.values())))
            if n is None:
                parts.append(piece)
            else:
                for name, x in piece.items():
                    result.setdefault(name, np.empty((n, *x.shape[1:]), x.dtype))[done : done + size] = x
            done += size
            bar.update(size)
    if done == 0:
        raise InvalidInputError("images must hold at least one picture, got none")
    return result if n is not None else {name: np.concatenate([part[name] for part in parts]) for name in models}


def batches(
    models: Mapping[str, Model],
    images: Any,
    *,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
) -> Iterator[dict[str, np.ndarray]]:
    """What `extract` would return, `batch_size` images at a time: for `usae.UniversalSAE.partial_fit`, or files of your own.

    Parameters and errors are those of `extract`. Arguments are checked when it is called, pictures when they are reached.

    Yields
    ------
    dict of str to ndarray
        For each model [at most batch_size, tokens, width].
    """
    return _pieces_of(models, images, batch_size, grid, crop, dtype)[0]


def _pieces_of(
    models: object, images: Any, batch_size: object, grid: Any, crop: object, dtype: object
) -> tuple[Iterator[dict[str, np.ndarray]], int | None]:
    """Batches of aligned activations, and the number of images where that is known before."""
    if dtype not in ("float32", "float16"):
        raise InvalidInputError(f'dtype must be "float32" or "float16", got {dtype!r}')
    plan = Plan.of(models, batch_size, grid, crop)
    rows, n = pictures(images)
    return plan.pieces(rows, str(dtype)), n
