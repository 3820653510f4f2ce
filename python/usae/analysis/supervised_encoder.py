"""An encoder (linear, ReLU, TopK) of one model's activations that learns a given code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from usae._estimator.universal_sae import UniversalSAE

if TYPE_CHECKING:
    import scipy.sparse

LEARNING_RATE, STEP_LIMIT, FEWEST_DIMENSIONS = 3e-3, 0.15, 32
"""Of Adam, for codes whose root mean square is 1: the rate, and its limit as in the default recipe (docs/method.md)."""

WARMUP = 50
GATHERED = 8192
"""Rows of weights that are gathered at once: 25 MB for a model of width 768."""


class SupervisedEncoder:
    """Weights, biases and moments of Adam, float32 [n targets, width + 1], for standardised activations.

    Codes are selected by the core, so that a step needs no array of tokens times concepts. Its gradient is that of the squared
    error of the pre-activations where a concept is active in the code that is learned or in the encoder's own: an encoder also
    learns where it should have selected a concept.
    """

    def __init__(self, weights: np.ndarray, biases: np.ndarray, k: int, size: float, dimensions: float, n_threads: int | None):
        """Start from weights [n targets, width] and biases.

        `size` is the root mean square of the codes, by which everything is divided, and `dimensions` are the effective
        dimensions of the activations.
        """
        width = weights.shape[1]
        self.size = size
        self.parameters = (np.concatenate([weights, biases[:, None]], axis=1) / size).astype(np.float32)
        self.first, self.second = np.zeros_like(self.parameters), np.zeros_like(self.parameters)
        self.rate = min(LEARNING_RATE, STEP_LIMIT * max(dimensions, FEWEST_DIMENSIONS) ** 0.5 / width)
        self.core = UniversalSAE(len(weights), min(k, len(weights)), n_threads=n_threads).initialize({"x": width})

    def encode(self, x: np.ndarray) -> scipy.sparse.csr_array:
        """Return the codes of standardised activations, float32 [n, width], divided by `size`."""
        parameters = {"encoder_weight": self.parameters[:, :-1], "encoder_bias": self.parameters[:, -1]}
        self.core.set_parameters("x", parameters)
        return self.core.encode(x, "x").to_csr()

    def step(self, x: np.ndarray, codes: scipy.sparse.csr_array, number: int, steps: int) -> None:
        """Do step `number` of 1 to `steps` of Adam on rows x, float32 [n, width], and the codes to learn, [n, n targets]."""
        codes = (codes / self.size).astype(np.float32)
        own = self.encode(x)
        errors = (own - codes + self._missed(x, codes, own)).tocsr()
        gradient = np.empty_like(self.parameters)
        gradient[:, :-1] = errors.T @ x
        gradient[:, -1] = np.bincount(errors.indices, errors.data, len(gradient))
        gradient /= np.float32(len(x))
        self.first += np.float32(0.1) * (gradient - self.first)
        self.second += np.float32(0.001) * (gradient * gradient - self.second)
        rate = self.rate * min(1, number / WARMUP) * (1 - (number - 1) / steps)
        update = self.first / np.float32(1 - 0.9**number)
        update /= np.sqrt(self.second / np.float32(1 - 0.999**number)) + np.float32(1e-8)
        update *= np.float32(rate)
        self.parameters -= update

    def _missed(self, x: np.ndarray, codes: scipy.sparse.csr_array, own: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """Return the pre-activations where a concept is active in `codes`, but not in the encoder's own."""
        import scipy.sparse

        rows = np.repeat(np.arange(len(x)), np.diff(codes.indptr))
        taken = np.repeat(np.arange(len(x)), np.diff(own.indptr)) * codes.shape[1] + own.indices
        missed = ~np.isin(rows * codes.shape[1] + codes.indices, taken, assume_unique=True)
        rows, columns = rows[missed], codes.indices[missed]
        values = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), GATHERED):
            part = slice(start, start + GATHERED)
            weights = self.parameters[columns[part]]
            values[part] = np.einsum("nd,nd->n", x[rows[part]], weights[:, :-1]) + weights[:, -1]
        return scipy.sparse.csr_array((values, (rows, columns)), shape=codes.shape)
