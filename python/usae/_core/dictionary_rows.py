"""What a recipe makes of the rows of a dictionary where codes are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from usae.recipes import Recipe


BOUND = 1 + 1e-6
"""Rows with a longer norm are divided by it, with ``dictionary_norm="bounded"``: 1, but for rounding."""


def used_rows(dictionary: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the vectors that codes of 1 add, in standardised units, of rows as they are trained, float32 or float64."""
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
    if recipe.dictionary_norm == "bounded":
        divisors = np.where(norms > BOUND, norms, 1).astype(dictionary.dtype)
    else:
        divisors = norms + dictionary.dtype.type(recipe.dictionary_epsilon)
        divisors[divisors == 0] = 1  # a row of zeros adds nothing
    large = ~np.isfinite(norms[:, 0])  # rows whose squares are too large for float32, from 1e19 on
    exact = dictionary[large].astype(float)
    rows = dictionary / divisors
    rows[large] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return rows


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Divide rows by their norms. Rows of zeros stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
