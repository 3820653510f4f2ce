"""How floating-point types of activations round, and how bfloat16, which NumPy lacks, becomes float32."""

from __future__ import annotations

import numpy as np

MUCH, TOO_MUCH = 1e-3, 0.1
"""Shares of the variance that rounding may be before it is a warning, and before it is an error."""

_FRACTION_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
FLOATS = tuple(_FRACTION_BITS)
_SMALLEST_EXPONENTS = {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}


def step(size: np.ndarray, dtype: str) -> np.ndarray:
    """Return the distance of neighbouring numbers of a type at these sizes. Rounding has a variance of step**2 / 12."""
    exponent = np.floor(np.log2(size, out=np.full_like(size, -np.inf), where=size > 0))
    return np.exp2(np.maximum(exponent, _SMALLEST_EXPONENTS[dtype]) - _FRACTION_BITS[dtype])


def widened(array: np.ndarray, bfloat16: bool) -> np.ndarray:
    """Return floats in a type of NumPy. bfloat16, viewed as uint16, is the upper half of a float32."""
    return (array.astype(np.uint32) << 16).view(np.float32) if bfloat16 else array
