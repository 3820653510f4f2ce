"""Numbers and names as transforms and image processors keep them."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from usae.torch._preprocessing import Pair

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's filters by their numbers, with which image processors of transformers name them."""


class Unreadable(ValueError):
    """Says why something cannot be read; `_transforms.of` makes an error of it that names the argument."""


def as_sides(value: Any) -> Pair:
    """Return (height, width) from one integer or two."""
    if isinstance(value, numbers.Integral):
        return int(value), int(value)
    return (int(value[0]), int(value[-1]))


def numbers_of(value: Any, n: int = 1) -> list[float]:
    """Return numbers, one a channel, as a list; a single one `n` times."""
    if value is None:
        raise Unreadable("it does not say mean and std")
    found: list[float] = np.asarray(value, np.float64).ravel().tolist()
    return found * n if np.ndim(value) == 0 else found


def name_of_filter(value: Any) -> str:
    if isinstance(value, int):
        return RESAMPLING[value]
    return str(getattr(value, "value", value)).lower()
