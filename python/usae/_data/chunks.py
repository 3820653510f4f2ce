"""Parts of activations, as arrays that numpy computes with, so that memory does not grow with the number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from usae._data.activations import Activations
from usae._data.stored_array import widened

CHUNK = 8192
"""Tokens that are looked at at once: 50 MB as float64 where a model is 768 wide."""


def chunks(n_tokens: int, multiple: int = 1, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows, or of `multiple` if that is more; all but the last a multiple of it."""
    size = max(size // multiple, 1) * multiple
    for start in range(0, n_tokens, size):
        yield slice(start, min(start + size, n_tokens))


def n_chunks(n_tokens: int, multiple: int = 1, size: int = CHUNK) -> int:
    """How many slices `chunks` makes."""
    return -(-n_tokens // (max(size // multiple, 1) * multiple))


def rows_of(activations: Activations, rows: slice | np.ndarray) -> np.ndarray:
    """Some rows, [n, width], as floats that numpy knows; rows of [images, tokens, width] are counted through."""
    return widened(activations.raw_rows(rows), activations.bfloat16)


def tokens_per_image(acts: Mapping[str, Activations]) -> int | None:
    """Tokens of an image where all arrays that are [images, tokens, width] agree on it, else None."""
    counts = {x.array.shape[1] for x in acts.values() if x.array.ndim == 3}
    return counts.pop() if len(counts) == 1 else None
