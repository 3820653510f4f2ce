"""Conversion of activations to the type of a store, which must hold their range and their spread."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from usae._base.warning import warn
from usae._data.activations import Activations
from usae._data.store_files import DTYPES
from usae._data.stored_array import as_bfloat16, widened
from usae.errors import InvalidInputError

LARGEST: dict[str, float] = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max), "bfloat16": 3.38e38}
"""Largest number that each type of a store holds."""

FEWEST_ROWS = 32
"""Rows from which on a spread is judged."""

MOST_ROWS = 4096
"""Rows of a shard that are looked at, evenly spaced."""

MUCH, TOO_MUCH = 1e-3, 0.1
"""Shares of a model's variance that rounding may be before it is a warning, and before it is an error."""


def narrowed(x: Activations, dtype: str, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Convert activations to the store's type, and return them with the floats that they were.

    InvalidInputError if they are not finite in that type.
    """
    array = np.asarray(x.array)
    floats = widened(array, x.bfloat16)
    if x.rows is not None:
        floats = _without_large(floats, x.rows, LARGEST[dtype])
    with np.errstate(over="ignore"):
        kept = np.ascontiguousarray(floats, np.float32 if dtype == "bfloat16" else DTYPES[dtype])
    if dtype == "bfloat16":
        kept = np.where(np.isfinite(kept), as_bfloat16(kept), np.uint16(0x7F80))
    if np.isfinite(widened(kept, dtype == "bfloat16")).all():
        return kept, floats
    where = f" (layer {layer!r})" if layer is not None else ""
    if not np.isfinite(floats).all():
        place = np.argwhere(~np.isfinite(floats))[0].tolist()
        raise InvalidInputError(f"{x.label}{where} must be finite, got {floats[tuple(place)]} at {place}")
    ends = {"float16": "65504", "float32": "3.4e38", "bfloat16": "3.4e38"}[dtype]
    remedy = 'dtype="bfloat16", which has the range of float32' if dtype == "float16" else "smaller units"
    raise InvalidInputError(
        f"{x.label}{where} must be within {ends} to be stored as {dtype}, got {np.abs(floats).max():.6g}; make the store with "
        f"{remedy}"
    )


def _without_large(floats: np.ndarray, rows: np.ndarray, largest: float) -> np.ndarray:
    """Return the activations with 0 for numbers that are not finite or too large, in rows other than `rows`."""
    left_out = np.ones(floats.shape[:-1], bool)
    left_out.reshape(-1)[rows] = False
    result = floats.copy()
    part = result[left_out]
    part[~(np.abs(part) <= np.float64(largest))] = 0
    result[left_out] = part
    return result


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Moments of one model's rows, and of what rounding to a store's type changed in them, over the shards of a writer."""

    n: int = 0
    mean: Any = 0.0  # of each dimension, [width]
    squares: Any = 0.0  # of distances from the mean, [width]
    errors: Any = 0.0  # squared, [width]
    warned: bool = False

    def with_rows(self, floats: np.ndarray, kept: np.ndarray, counting: np.ndarray | None = None) -> Rounding:
        """Return these moments and those of more rows, [..., width], or of some of many, together (Chan et al.).

        `counting` are the numbers of the rows that count. Default: None, which means all.
        """
        numbers = np.arange(floats.size // floats.shape[-1]) if counting is None else counting
        some = numbers[:: max(1, -(-len(numbers) // MOST_ROWS))]
        rows, rounded = (x.reshape(-1, x.shape[-1])[some].astype(float) for x in (floats, kept))
        added = len(rows)
        if not added:
            return self
        mean = rows.mean(0)
        delta, n = mean - self.mean, self.n + added
        squares = self.squares + ((rows - mean) ** 2).sum(0) + delta**2 * (self.n * added / n)
        errors = self.errors + ((rounded - rows) ** 2).sum(0)
        return Rounding(n, self.mean + delta * (added / n), squares, errors, self.warned)

    def check(self, label: str, model: str, dtype: str) -> None:
        """Refuse or warn of too much rounding. Says nothing of a few rows, or where nothing varies."""
        variation = float(np.sum(self.squares))
        if self.n < FEWEST_ROWS or not variation > 0:
            return
        share = float(np.sum(self.errors)) / variation
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = int((np.asarray(self.errors) > TOO_MUCH * np.asarray(self.squares)).sum())
        if share > TOO_MUCH:
            raise InvalidInputError(
                f"{label} must keep its spread when it is rounded to {dtype}, got rounding errors of {share:.1%} of its "
                f'variance; make the store with dtype="float32", or subtract the mean of each dimension before'
            )
        if (share > MUCH or lost) and not self.warned:
            object.__setattr__(self, "warned", True)
            warn(
                f"model {model!r}: rounding to {dtype} is {share:.1%} of the variance of the activations, and more than "
                f'{TOO_MUCH:.0%} of that of {lost} dimensions; make the store with dtype="float32", or subtract the mean of '
                f"each dimension before"
            )
