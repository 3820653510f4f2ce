"""Embeddings of images that users give, such as CLIP's."""

from __future__ import annotations

import numpy as np

from usae._base import checks
from usae._base.tensors import on_cpu
from usae.errors import InvalidInputError


def of_images(embeddings: object, n_images: int) -> np.ndarray:
    """Check the argument `embeddings`. Returns unit vectors, float64 [n_images, width], relative to the mean of all images."""
    images = matrix(embeddings)
    if images is None or len(images) != n_images:
        raise InvalidInputError(f"embeddings must be finite numbers [{n_images}, width], got {checks.array_shown(embeddings)}")
    units = unit(images)
    return unit(units - units.mean(0))


def matrix(x: object) -> np.ndarray | None:
    """Return finite numbers [n, width] as float64; None for anything else."""
    try:
        array = np.asarray(on_cpu(x), np.float64)
    except Exception:  # what a caller's objects raise
        return None
    return array if array.ndim == 2 and array.size and np.isfinite(array).all() else None


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def mean_cosines(embeddings: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the mean cosine of each two of some images, float64 [rows]. `images` [rows, n] has -1 where there are fewer.

    The sum over pairs is (|sum of e|^2 - sum of |e|^2) / 2, so no pair is looked at. NaN with fewer than two images.
    """
    total, squares = np.zeros((len(images), embeddings.shape[1])), np.zeros(len(images))
    for column in images.T:
        there = column >= 0
        total[there] += embeddings[column[there]]
        squares[there] += (embeddings[column[there]] ** 2).sum(1)
    n = (images >= 0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, ((total**2).sum(1) - squares) / (n * (n - 1)), np.nan)
