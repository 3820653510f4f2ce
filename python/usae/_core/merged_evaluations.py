"""Evaluation of a store, part by part: the core evaluates only arrays in memory.

Counts of the parts are added. R2 needs two sums over all rows: squared errors, which follow from the numbers of each part, and
squared distances from the mean of all rows, which are accumulated here in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from usae._data.activations import Activations
from usae._data.chunks import rows_of

if TYPE_CHECKING:
    from usae._core.autoencoder import Autoencoder

ALMOST_CONSTANT = 1e-6
"""Variance, in standardised units, below which the squared error of a part cannot be computed from its R2."""

SUMS = ("firing_counts", "pair_cofire_counts", "cofire_counts", "union_counts", "code_products")
MEANS = ("l0", "mean_activation", "mse")


class MergedEvaluations:
    """Sums over the parts that were added so far."""

    def __init__(self, autoencoder: Autoencoder):
        self._autoencoder = autoencoder
        self._n = 0
        self._sums: dict[str, np.ndarray] = {}
        self._largest = np.zeros((len(autoencoder.names), autoencoder.n_concepts), np.float32)
        self._standardized_errors = np.zeros((len(autoencoder.names), len(autoencoder.names)))
        self._scales = [autoencoder.read(i, "scale").astype(float) for i in range(len(autoencoder.names))]
        self._means = [autoencoder.exact_mean(i) for i in range(len(autoencoder.names))]
        self._moments = [_Moments(width) for width in autoencoder.widths.values()]

    def add(self, acts: Mapping[str, Activations], numbers: Mapping[str, np.ndarray]) -> None:
        n = next(iter(acts.values())).n_tokens
        self._n += n
        for name in (*SUMS, *MEANS):
            value = numbers[name] * (n if name in MEANS else 1)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        np.maximum(self._largest, numbers["max_activation"], out=self._largest)
        for j, x in enumerate(acts.values()):
            z = (rows_of(x, slice(0, n)) - self._means[j]) / self._scales[j]
            moments = _Moments(x.width)
            moments.add(z)
            self._moments[j].merge(moments)
            total = moments.about_one_mean()
            if total > ALMOST_CONSTANT * z.size:
                self._standardized_errors[:, j] += (1 - numbers["r2_scalar_mean"][:, j]) * total
            else:
                self._standardized_errors[:, j] += self._decoded_errors(acts, j, z)

    def _decoded_errors(self, acts: Mapping[str, Activations], target: int, z: np.ndarray) -> list[float]:
        """Sum of squared errors of the target model, decoded from each model's code, in standardised units."""
        core, result = self._autoencoder.core, []
        for source, x in enumerate(acts.values()):
            values, indices = np.empty((len(z), core.slots), np.float32), np.empty((len(z), core.slots), np.int32)
            core.encode(source, x.native, values, indices)
            decoded = np.empty(z.shape, np.float32)
            core.decode(target, values, indices, decoded)
            result.append(float(((((decoded - self._means[target]) / self._scales[target]) - z) ** 2).sum()))
        return result

    def result(self) -> dict[str, np.ndarray]:
        """Return the arrays of an `Evaluation` of all rows, by field."""
        n = self._n
        widths = np.array(list(self._autoencoder.widths.values()))
        own_units = [float((m.squares * scale**2).sum()) for m, scale in zip(self._moments, self._scales, strict=True)]
        numbers = {name: self._sums[name] / n if name in MEANS else self._sums[name] for name in self._sums}
        scores = {
            "r2": self._explained(self._sums["mse"] * widths, own_units),
            "r2_standardized": self._explained(self._standardized_errors, [m.squares.sum() for m in self._moments]),
            "r2_scalar_mean": self._explained(self._standardized_errors, [m.about_one_mean() for m in self._moments]),
        }
        return {"max_activation": self._largest} | scores | numbers

    def _explained(self, errors: np.ndarray, variations: list[float]) -> np.ndarray:
        """Return the share of each model's variation that is explained. NaN where nothing varies, as in the core."""
        pairs = zip(variations, self._moments, strict=True)
        return 1 - errors / np.array([variation if moments.varies else np.nan for variation, moments in pairs])


class _Moments:
    """Mean of each dimension, and sum of squared distances from it, over rows that come in parts (Chan et al.)."""

    def __init__(self, width: int):
        self.n = 0
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)

    def add(self, rows: np.ndarray) -> None:
        """Set the moments to those of the first rows."""
        self.n = len(rows)
        self.mean = rows.mean(0)
        self.squares = ((rows - self.mean) ** 2).sum(0)

    def merge(self, other: _Moments) -> None:
        n, delta = self.n + other.n, other.mean - self.mean
        self.squares = self.squares + other.squares + delta**2 * (self.n * other.n / n)
        self.mean = self.mean + delta * (other.n / n)
        self.n = n

    @property
    def varies(self) -> bool:
        """Whether the squares are more than what rounding of the mean leaves."""
        return bool(self.squares.sum() > 2.0**-80 * self.n * (self.mean**2).sum())

    def about_one_mean(self) -> float:
        """Sum of squared distances of all elements from the mean of all elements."""
        return float(self.squares.sum() + self.n * ((self.mean - self.mean.mean()) ** 2).sum())
