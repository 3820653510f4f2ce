"""Conversion of activations to the type of a store, which must hold their range and their spread."""

from __future__ import annotations

import dataclasses

import numpy as np

from usae._base.float_types import MUCH, TOO_MUCH, widened
from usae._base.warning import warn
from usae._data.activations import Activations
from usae._data.store_files import DTYPES
from usae._data.stored_array import as_bfloat16
from usae.errors import InvalidInputError

LARGEST: dict[str, float] = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max), "bfloat16": 3.38e38}
"""Largest number that each type of a store holds."""

FEWEST_ROWS = 32
"""Rows from which on a spread is judged."""

MOST_ROWS, MOST_NUMBERS = 512, 2**19
"""Rows that are looked at, evenly spaced, and numbers in them. Of wide rows, there are fewer."""

FAR, MOST_FAR = 5.0, 0.1
"""Rows farther from the median than this many median distances are no part of the spread, up to this share of the rows."""


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
    """A sample of one model's rows, and of what rounding to a store's type changed in them, over the shards of a writer."""

    rows: np.ndarray | None = None  # [n, width]
    errors: np.ndarray | None = None  # squared, [n, width]; NaN where rows are known as they were rounded
    warned: bool = False

    def with_rows(self, floats: np.ndarray, kept: np.ndarray | None, counting: np.ndarray | None = None) -> Rounding:
        """Return this sample with more rows, [..., width], or some of them.

        `kept` is what they were rounded to. None means that `floats` are rounded rows, whose errors nobody knows.
        `counting` are the numbers of the rows that count. Default: None, which means all.
        """
        width = floats.shape[-1]
        most = min(MOST_ROWS, max(FEWEST_ROWS * 2, MOST_NUMBERS // width))
        numbers = np.arange(floats.size // width) if counting is None else counting
        some = numbers[:: max(1, -(-len(numbers) // most))]
        if not len(some):
            return self
        rows = floats.reshape(-1, width)[some].astype(float)
        errors = np.full(rows.shape, np.nan) if kept is None else (kept.reshape(-1, width)[some].astype(float) - rows) ** 2
        if self.rows is not None and self.errors is not None:
            rows, errors = np.concatenate([self.rows, rows]), np.concatenate([self.errors, errors])
        step = -(-len(rows) // most)
        return Rounding(rows[::step], errors[::step], self.warned)

    def check(self, label: str, model: str, dtype: str) -> None:
        """Refuse or warn of too much rounding. Says nothing of a few rows, or where nothing varies."""
        if self.rows is None or self.errors is None or len(self.rows) < FEWEST_ROWS:
            return
        typical = _typical(self.rows)
        known = typical & ~np.isnan(self.errors[:, 0])
        variance = self.rows[typical].var(0)
        if not known.any() or not variance.sum() > 0:
            return
        errors = self.errors[known].mean(0)
        share, lost = float(errors.sum() / variance.sum()), int((errors > TOO_MUCH * variance).sum())
        remedy = "subtract the mean of each dimension before"
        if dtype != "float32":
            remedy = f'make the store with dtype="float32", or {remedy}'
        if share > TOO_MUCH:
            raise InvalidInputError(
                f"{label} must keep its spread when it is rounded to {dtype}, got rounding errors of {share:.1%} of its "
                f"variance; {remedy}"
            )
        if (share > MUCH or lost) and not self.warned:
            object.__setattr__(self, "warned", True)
            of_lost = f", and more than {TOO_MUCH:.0%} of that of {lost} of {len(errors)} dimensions" if lost else ""
            warn(f"model {model!r}: rounding to {dtype} is {share:.1%} of the variance of the activations{of_lost}; {remedy}")


def _typical(rows: np.ndarray) -> np.ndarray:
    """Return which rows are within `FAR` median distances of the median; all of them if too many are not.

    Rows that equal each other are one for the medians, so that padding decides nothing.
    """
    distinct = list({row.tobytes(): number for number, row in enumerate(rows)}.values())
    distances = np.linalg.norm(rows - np.median(rows[distinct], axis=0), axis=1)
    near = distances <= FAR * np.median(distances[distinct])
    far = len(distinct) - int(near[distinct].sum())
    return near if far <= MOST_FAR * len(distinct) else np.ones(len(rows), bool)
