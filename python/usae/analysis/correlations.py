"""Pearson correlations from means of codes and of their products."""

from __future__ import annotations

import numpy as np


def variances(mean: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    """Return variances of n numbers that are not negative, given their means and the means of their squares.

    It is NaN where they are all the same up to the precision of sums of float64.
    """
    # Sums of n terms and their means have relative errors of at most n + 2 roundings of 2**-53. The mean is squared.
    rounding = (3 * n + 8) * 2.0**-53
    variance = second - mean**2
    return np.where(variance > rounding * second, variance, np.nan)


def pearson(
    mean: np.ndarray, second: np.ndarray, other_mean: np.ndarray, other_second: np.ndarray, products: np.ndarray, n: int
) -> np.ndarray:
    """Return correlations, given means of the numbers, of their squares, and of the products with the other ones.

    It is NaN where one of the two has no variance.
    """
    variance, other = variances(mean, second, n), variances(other_mean, other_second, n)
    return np.clip((products - mean * other_mean) / np.sqrt(variance * other), -1, 1)
