"""Checked arguments of an extraction, and the computation of one batch of pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from usae._base import checks
from usae._data.activations import check_names
from usae._data.narrowing import Rounding
from usae.errors import InvalidInputError
from usae.torch._inputs import as_array
from usae.torch._layer_output import Grid, grid_like, without_graph
from usae.torch._model import Model
from usae.torch._model_arguments import LARGEST_SIDE, as_pair
from usae.torch._network_errors import errors_of_memory
from usae.torch._passes import Pass, passes
from usae.torch._pixels import Draft
from usae.torch._preprocessing import Crop, check_own_cut, checked_crop
from usae.torch._reduced import draft_for

MOST_PREFIX_TOKENS = 16
"""Largest number of class and register tokens that a message proposes to drop."""


Inputs = dict[tuple[Any, ...], Tensor]
"""A picture as networks take it, by `Model.input_kind`, in 0..1."""


class Plan(NamedTuple):
    """The checked arguments of an extraction."""

    models: dict[str, Model]
    batch_size: int
    grid: Grid | None
    """The grid to which all tokens are resized. None if no model has one."""
    crop: Crop
    draft: Draft | None = None
    """What has large files decoded at a smaller size. None: they are decoded in full."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of channels that the models take."""
        return tuple(sorted({model.channels for model in self.models.values()}))

    @staticmethod
    def of(models: object, batch_size: object, grid: Any, crop: object, reduce: object = False) -> Plan:
        """Check arguments. InvalidInputError for any that cannot be used, and for models that cannot be aligned."""
        checked = _checked_models(models)
        size = checks.integer(batch_size, "batch_size", 1, LARGEST_SIDE)
        for model in checked.values():
            model.known_size, model.known_scale  # noqa: B018  # an error if they are not known
        cut = checked_crop(crop)
        if cut:
            _check_same_part(checked, cut)
        draft = draft_for(checked.values(), cut) if checks.boolean(reduce, "reduce") else None
        return Plan(checked, size, _common_grid(checked, None if grid is None else as_pair(grid, "grid")), cut, draft)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of a picture."""
        return next(iter(self.models.values())).n_tokens if self.grid is None else math.prod(self.grid)

    def inputs_of(self, picture: Tensor) -> Inputs:
        """Resize a picture once for each kind of input. Any thread may do it."""
        kinds = {model.input_kind: model for model in self.models.values()}
        return {kind: model.resized(picture, self.crop) for kind, model in kinds.items()}

    def batches(
        self, rows: Iterator[Inputs], dtype: str, rounding: dict[str, Rounding] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the activations of each batch of pictures. InvalidInputError if `dtype` does not hold range or spread.

        `rounding` is what earlier calls found, by model, to which this one adds. Default: None, for nothing.
        """
        rounding = {} if rounding is None else rounding
        in_turn = passes(self.models)
        while batch := list(itertools.islice(rows, self.batch_size)):
            inputs = {kind: torch.stack([row[kind] for row in batch]) for kind in batch[0]}
            found: dict[str, np.ndarray] = {}
            for each in in_turn:
                for name, wide in _aligned(each, inputs[each.first.input_kind], self.grid).items():
                    found[name] = converted(wide, dtype, name, self.models[name])
                    if found[name].dtype != wide.dtype:
                        rounding[name] = rounding.get(name, Rounding()).with_rows(wide, found[name])
                        rounding[name].check(f"activations of {name!r}", name, dtype)
            yield {name: found[name] for name in self.models}


def _aligned(each: Pass, images: Tensor, grid: Grid | None) -> dict[str, np.ndarray]:
    """Return activations, [n, tokens, width], of images in 0..1, on `grid`."""
    with without_graph():
        return {name: _on_grid(tokens, own, grid) for name, (tokens, own) in each.activations(images).items()}


def _on_grid(tokens: Tensor, own: Grid | None, grid: Grid | None) -> np.ndarray:
    if own is None or own == grid or grid is None:
        return as_array(tokens)
    places = tokens.float().transpose(1, 2).unflatten(2, own)
    with errors_of_memory(f"activations on the grid {grid}"):
        places = F.interpolate(places, size=grid, mode="bilinear", antialias=True, align_corners=False)
    return as_array(places.flatten(2).transpose(1, 2))


def converted(x: np.ndarray, dtype: str, name: str, model: Any) -> np.ndarray:
    """Return float32 activations of a `Model` or `TextModel` in a type. InvalidInputError if they are beyond its range."""
    if dtype == "float32":
        return x
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidInputError(
            f"dtype must hold the activations of model {name!r} at layer {model.layer!r}, which reach {np.abs(x).max():.6g}, "
            f'got "float16", which ends at 65504; use dtype="float32", or bfloat16, which has the range of float32: '
            f'dtype="bfloat16" with a store, torch.from_numpy(x).bfloat16() for batches of your own'
        )
    return half


def _common_grid(models: dict[str, Model], wanted: Grid | None) -> Grid | None:
    """Return the grid to which all tokens are resized. None if no model has one and all have equally many tokens."""
    grids = {name: model.grid for name, model in models.items()}
    known = [grid for grid in grids.values() if grid is not None]
    if len(known) == len(grids):
        return wanted or min(known, key=math.prod)
    without = [name for name, grid in grids.items() if grid is None]
    if known or wanted or len({models[name].n_tokens for name in without}) > 1:
        reasons = "; ".join(_without_grid(name, models[name]) for name in without)
        raise InvalidInputError(
            f"models must all have tokens on a grid, so that row t is the same place in each, got others: {reasons}; give "
            f"Model(..., n_prefix_tokens=) the number of class and register tokens, or grid=(rows, columns)"
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
                f"models[{name!r}] must be a usae.torch.Model, got {type(model).__name__}; usae.torch.Model(module) makes one; "
                f"networks of text are for extract_texts"
            )
    return dict(models)


def _check_same_part(models: dict[str, Model], crop: Crop) -> None:
    """Refuse to crop if models would see different parts of a picture."""
    sizes = {name: model.known_size for name, model in models.items()}
    height, width = next(iter(sizes.values()))
    if any(h * width != w * height for h, w in sizes.values()):
        raise InvalidInputError(
            f"crop must be False where inputs have different proportions, or tokens would be of different parts of a picture, "
            f"got {crop} and {', '.join(f'{name}: {h} x {w}' for name, (h, w) in sizes.items())}; use crop=False"
        )
    if crop != "own":
        return
    for model in models.values():
        check_own_cut(model.preprocessing)
    cuts = {name: model.preprocessing.cut for name, model in models.items()}
    if len({cut[:2] for cut in cuts.values() if cut}) > 1:
        given = ", ".join(f"{name}: {cut.mode}, {cut.share:.4g}" for name, cut in cuts.items() if cut)
        raise InvalidInputError(
            f"crop must be True or False where networks cut pictures in different ways, or tokens would be of different parts "
            f'of a picture, got "own" and {given}; use crop=True'
        )
