"""`usae.outlying_rows`: which rows are far from all others, such as attention sinks and register artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._data.activations import Activations, as_aligned
from usae._data.chunks import chunks, rows_of
from usae.errors import InvalidInputError

SAMPLE_ROWS = 65_536
"""Most rows from which centre and median distance are computed, evenly spaced."""

ROUNDS = 5

MANY_EQUAL = 0.01
"""Rows of which more than this share are equal do not count for the median: padding says nothing about the others."""


def outlying_rows(acts: Mapping[str, Any], multiple: float = 5.0) -> dict[str, np.ndarray]:
    """Find rows whose distance from the mean is more than a multiple of the median distance.

    Parameters
    ----------
    acts : mapping of str to array, each [n_tokens, width] or [images, tokens, width]
        Activations, as for `UniversalSAE.fit`. They are read in pieces, so that a store does not have to fit into memory.
    multiple : float
        How many times the median distance is far. Default: 5.0, as `Recipe.outlier_multiple`.

    Returns
    -------
    dict of str to ndarray of bool
        For each model, True for its outlying rows; [n_tokens] or [images, tokens], as the activations are. A row that is to be
        left out of one model has to be left out of all, since row t is the same place in every model. Rows that do not count
        by a mask of `acts` are False: they are neither read nor among the rows that they are compared with.

    Raises
    ------
    InvalidInputError
        For activations that cannot be used or are not finite, and for a multiple that is not above 0.

    Notes
    -----
    Mean and median come from at most 65,536 evenly spaced rows. The mean is that of the rows that are not outlying, and the
    median does not count rows of which more than 1 % are equal, such as padding.
    Distances depend neither on units nor on a constant that is added to all rows.

    Examples
    --------
    >>> outlying = np.logical_or.reduce(list(usae.outlying_rows(acts).values()))
    >>> sae.fit(acts, mask=~outlying)
    """
    number = checks.real(multiple, "multiple", "a number above 0")
    if not number > 0:
        raise InvalidInputError(f"multiple must be a number above 0, got {multiple!r}")
    return {name: _in_place(_outlying(x, number), x) for name, x in as_aligned(acts, "acts").items()}


def _in_place(found: np.ndarray, x: Activations) -> np.ndarray:
    """Return truth values of the rows that count at their places among all rows, False elsewhere."""
    if x.rows is not None:
        everywhere = np.zeros(x.n_rows, bool)
        everywhere[x.rows] = found
        found = everywhere
    return found.reshape(x.array.shape[:-1])


def _outlying(x: Activations, multiple: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # what is not finite is refused below, with its row
        center, median = _center(rows_of(x.thinned(SAMPLE_ROWS), slice(None)).astype(float), multiple)
    found = np.empty(x.n_tokens, bool)
    for rows in chunks(x.n_tokens):
        part = rows_of(x, rows).astype(float)
        finite = np.isfinite(part).all(1)
        if not finite.all():
            row = rows.start + int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(f"{x.label} must be finite, got NaN or infinity in row {row}")
        found[rows] = _distances(part, center) > multiple * median
    return found


def _center(rows: np.ndarray, multiple: float) -> tuple[np.ndarray, float]:
    """Return the mean of the rows that are not outlying, and the median distance from it."""
    kept = np.ones(len(rows), bool)
    for _ in range(ROUNDS):
        center = rows[kept].mean(0)
        distances = _distances(rows, center)
        median = _median(distances)
        now = distances <= multiple * median
        if (now == kept).all() or not now.any():
            break
        kept = now
    return center, median


def _median(distances: np.ndarray) -> float:
    """Return the median, without that of rows which equal many others and so have one distance."""
    values, counts = np.unique(distances, return_counts=True)
    most = int(np.argmax(counts))
    if 1 < counts[most] < len(distances) and counts[most] > MANY_EQUAL * len(distances):
        distances = distances[distances != values[most]]
    return float(np.median(distances))


def _distances(rows: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return Euclidean distances. Dividing by the largest difference keeps squares of huge and tiny units in range."""
    differences = rows - center
    size = float(np.abs(differences).max())
    size = size if 0 < size < np.inf else 1.0
    return np.linalg.norm(differences / size, axis=1) * size
