"""Chunks of activations as arrays for NumPy, so that memory does not grow with the number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from usae._base.float_types import widened
from usae._data import masks
from usae._data.activations import Activations

CHUNK = 8192
"""Tokens that are processed at once: 50 MB as float64 for a model of width 768."""


def chunks(n_tokens: int, multiple: int = 1, size: int = CHUNK) -> Iterator[slice]:
    """Yield consecutive slices of at most `size` rows, or of `multiple` if that is more; all but the last a multiple of it."""
    size = max(size // multiple, 1) * multiple
    for start in range(0, n_tokens, size):
        yield slice(start, min(start + size, n_tokens))


def n_chunks(n_tokens: int, multiple: int = 1, size: int = CHUNK) -> int:
    """Number of slices that `chunks` yields."""
    return -(-n_tokens // (max(size // multiple, 1) * multiple))


def rows_of(activations: Activations, rows: slice | np.ndarray) -> np.ndarray:
    """Return some rows, [n, width], in a type of NumPy. Rows of [images, tokens, width] are numbered image by image."""
    return widened(activations.raw_rows(rows), activations.bfloat16)


def tokens_per_image(acts: Mapping[str, Activations]) -> int | None:
    """Number of tokens of an image, if all arrays that are [images, tokens, width] agree on it; None otherwise."""
    counts = {x.array.shape[1] for x in acts.values() if x.array.ndim == 3}
    return rows_per_image(acts, counts.pop()) if len(counts) == 1 else None


def rows_per_image(acts: Mapping[str, Activations], tokens: int) -> int | None:
    """Number of rows that count of each image of `tokens` rows; None if they are at different places in different images."""
    rows = next(iter(acts.values())).rows
    return tokens if rows is None else masks.rows_of_image(rows, tokens)
