"""The loss of predicting a model's mean, with which the losses of training are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from usae._data.chunks import rows_of

if TYPE_CHECKING:
    from usae._core.autoencoder import Autoencoder
    from usae._data.activations import Activations

SAMPLE = 256
"""Rows of a batch from which the loss is computed, so that it costs next to nothing."""


def mean_loss(autoencoder: Autoencoder, name: str, x: Activations, rows: np.ndarray | None) -> float:
    """Return the main loss that an empty code has in a model, on some rows of a batch; it is above 0. `rows` None: all rows.

    In standardised units it is 1 for squared errors, as long as the rows are like those that mean and scale come from.
    """
    model, recipe = autoencoder.names.index(name), autoencoder.recipe
    n_tokens = x.n_tokens if rows is None else len(rows)
    sample = np.arange(0, n_tokens, -(-n_tokens // SAMPLE))
    raw = rows_of(x, sample if rows is None else rows[sample])
    mean, scale = autoencoder.exact_mean(model), autoencoder.read(model, "scale").astype(float)
    tokens = (raw.astype(float) - mean) / scale
    if recipe.outlier_multiple is not None and (mean.any() or (scale != 1).any()):  # nothing is outlying without statistics
        factors = np.sqrt(tokens.shape[1] / np.maximum((tokens**2).sum(1), np.finfo(float).tiny))
        tokens *= np.where(recipe.outlier_multiple * factors < 1, factors, 1)[:, None]
    return max(float(np.mean(tokens**2 if recipe.loss == "mse" else np.abs(tokens))), np.finfo(float).tiny)
