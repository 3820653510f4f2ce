"""Activations of several models over the same images, row t of each the same place."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import check_names
from usae._data.store import ActivationStore, DType
from usae.errors import InvalidInputError
from usae.torch._images import fitted, pictures
from usae.torch._layers import Grid, grid_like, without_graph
from usae.torch._model import LARGEST_SIDE, Model, as_array, as_pair

MOST_PREFIX_TOKENS = 16
"""As many class and register tokens are looked for when a message proposes how many to drop."""


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
        from usae.torch import _into_store

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


class Plan(NamedTuple):
    """What is to be done with each batch of pictures."""

    models: dict[str, Model]
    batch_size: int
    grid: Grid | None
    """To which all tokens are brought; None where no model has one."""
    crop: bool

    @staticmethod
    def of(models: object, batch_size: object, grid: Any, crop: object) -> Plan:
        """InvalidInputError for what cannot be used, models that cannot be aligned included."""
        checked = _checked_models(models)
        size = checks.integer(batch_size, "batch_size", 1, LARGEST_SIDE)
        if crop:
            _check_proportions(checked)
        return Plan(checked, size, _common_grid(checked, None if grid is None else as_pair(grid, "grid")), bool(crop))

    def pieces(self, rows: Iterator[Tensor], dtype: str) -> Iterator[dict[str, np.ndarray]]:
        while batch := list(itertools.islice(rows, self.batch_size)):
            sizes = {model.known_size for model in self.models.values()}
            inputs = {size: torch.stack([fitted(picture, size, self.crop) for picture in batch]) for size in sizes}
            yield {
                name: _kept(_aligned(model, inputs[model.known_size], self.grid), dtype, name, model)
                for name, model in self.models.items()
            }


def _aligned(model: Model, images: Tensor, grid: Grid | None) -> np.ndarray:
    """Activations [n, tokens, width] of images in 0..1, on `grid`."""
    with without_graph():
        tokens, own = model.activations(model.normalized(images))
        if own is None or own == grid or grid is None:
            return as_array(tokens)
        places = tokens.float().transpose(1, 2).unflatten(2, own)
        places = F.interpolate(places, size=grid, mode="bilinear", antialias=True, align_corners=False)
        return as_array(places.flatten(2).transpose(1, 2))


def _kept(x: np.ndarray, dtype: str, name: str, model: Model) -> np.ndarray:
    if dtype == "float32":
        return x
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidInputError(
            f'dtype="float16" cannot hold the activations of model {name!r} at layer {model.layer!r}, which reach '
            f'{np.abs(x).max():.6g}, above 65504; use dtype="float32", or bfloat16, which has the range of float32: '
            f'dtype="bfloat16" with a store, torch.from_numpy(x).bfloat16() for batches of your own'
        )
    return half


def _common_grid(models: dict[str, Model], wanted: Grid | None) -> Grid | None:
    """The grid to bring all tokens to; None where no model has one and all have as many tokens."""
    grids = {name: model.grid for name, model in models.items()}
    known = [grid for grid in grids.values() if grid is not None]
    if len(known) == len(grids):
        return wanted or min(known, key=math.prod)
    without = [name for name, grid in grids.items() if grid is None]
    if known or wanted or len({models[name].n_tokens for name in without}) > 1:
        reasons = "; ".join(_without_grid(name, models[name]) for name in without)
        raise InvalidInputError(
            f"models must all have tokens on a grid, so that row t is the same place in each, but {reasons}; give "
            f"Model(..., tokens=) the number of class and register tokens, or grid=(rows, columns)"
        )
    return None


def _without_grid(name: str, model: Model) -> str:
    n, size = model.n_tokens, model.known_size
    text = f"the {n} tokens of {name!r} at layer {model.layer!r} have none"
    for prefix in range(1, min(MOST_PREFIX_TOKENS, n - 1) + 1):
        if grid := grid_like(n - prefix, size):
            return f"{text} ({prefix} fewer would be {grid[0]} x {grid[1]})"
    return text


def _checked_models(models: object) -> dict[str, Model]:
    if not isinstance(models, Mapping):
        raise InvalidInputError(f"models must be a mapping from names to usae.torch.Model, got {type(models).__name__}")
    check_names(models, "models")
    for name, model in models.items():
        if not isinstance(model, Model):
            raise InvalidInputError(
                f"models[{name!r}] must be a usae.torch.Model, got {type(model).__name__}; usae.torch.Model(module) makes one"
            )
    return dict(models)


def _check_proportions(models: dict[str, Model]) -> None:
    sizes = {name: model.known_size for name, model in models.items()}
    height, width = next(iter(sizes.values()))
    if any(h * width != w * height for h, w in sizes.values()):
        raise InvalidInputError(
            f"crop=True needs models whose inputs have the same proportions, or their tokens would be of different parts of a "
            f"picture, got {', '.join(f'{name}: {h} x {w}' for name, (h, w) in sizes.items())}; use crop=False"
        )
