"""Ridge regression from sums of products, so that rows need not be kept."""

from __future__ import annotations

import numpy as np


class Ridge:
    """Ridge regression on one model's dimensions. One eigendecomposition serves every target and penalty.

    All moments are sums of products of distances from the mean of the rows that were fitted. Penalties are multiples of the
    mean variance of the dimensions.
    """

    def __init__(self, gram: np.ndarray):
        """Decompose the sums of products of the source's dimensions, [width, width]."""
        values, self.vectors = np.linalg.eigh(gram)
        self.values = np.maximum(values, 0)
        self.unit = self.values.mean() or 1.0

    def weights(self, cross: np.ndarray, penalty: float | np.ndarray) -> np.ndarray:
        """Return the coefficients, [width of the source, n targets], for one penalty or one for each target.

        `cross` are the sums of products of the source and the targets, [width of the source, n targets].
        """
        return self.vectors @ (self.vectors.T @ cross / (self.values[:, None] + penalty * self.unit))

    def best_penalties(self, cross: np.ndarray, gram: np.ndarray, other: np.ndarray, penalties: np.ndarray) -> np.ndarray:
        """Return the penalty of each target that predicts other rows best, [n targets].

        `gram` and `other` are what `Ridge` and `cross` are, but of the other rows, and about the mean of the fitted ones.
        """
        rotated, seen = self.vectors.T @ cross, self.vectors.T @ other
        between = self.vectors.T @ gram @ self.vectors
        errors = np.empty((len(penalties), cross.shape[1]))
        for error, penalty in zip(errors, penalties, strict=True):
            weights = rotated / (self.values[:, None] + penalty * self.unit)
            np.einsum("dc,dc->c", weights, between @ weights - 2 * seen, out=error)
        return penalties[np.argmin(errors, axis=0)]

    @staticmethod
    def squared_error(weights: np.ndarray, gram: np.ndarray, cross: np.ndarray, squares: np.ndarray) -> float:
        """Return the squared error of predicting the rows whose moments are given; `squares` are those of the targets."""
        return float(np.trace(squares) - np.sum(weights * (2 * cross - gram @ weights)))
