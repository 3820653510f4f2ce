"""What a universal sparse autoencoder makes of aligned activations, in numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Result of `UniversalSAE.evaluate`. M models, m concepts; [i, j] means encoded from model i, decoded to model j.

    A concept *fires* in a token when its code is above `threshold`; it *co-fires* when it does so in every model.

    Attributes
    ----------
    model_names : tuple of str, [M]
    n_tokens : int
        Rows that were evaluated.
    threshold : float
    r2 : ndarray of float64, [M, M]
        1 - squared error / squared distance from each dimension's mean over these rows, in the models' own units.
        Predicting the mean scores exactly 0.
    r2_standardized : ndarray of float64, [M, M]
        The same in standardised units.
    r2_scalar_mean : ndarray of float64, [M, M]
        In standardised units, against one mean over all dimensions, as the published code does. For comparison only: a
        reconstruction that knows nothing but the mean of each dimension scores above 0.
    mse : ndarray of float64, [M, M]
        Mean squared error of an element in the models' own units.
    l0 : ndarray of float64, [M]
        Mean number of active concepts in a token, whatever the threshold.
    firing_counts : ndarray of int64, [M, m]
        Tokens in which a concept fires.
    pair_cofire_counts : ndarray of int64, [M, M, m]
        Tokens in which it fires in both of two models; of a model with itself, its firing counts.
    cofire_counts : ndarray of int64, [m]
        Tokens in which it fires in every model.
    union_counts : ndarray of int64, [m]
        Tokens in which it fires in any model.
    mean_activation : ndarray of float64, [M, m]
        Mean code over all tokens, those without the concept included.
    max_activation : ndarray of float32, [M, m]
    code_products : ndarray of float64, [M, M, m]
        Sum over tokens of the product of two models' codes: what `correlation` is made of.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    threshold: float
    r2: np.ndarray
    r2_standardized: np.ndarray
    r2_scalar_mean: np.ndarray
    mse: np.ndarray
    l0: np.ndarray
    firing_counts: np.ndarray
    pair_cofire_counts: np.ndarray
    cofire_counts: np.ndarray
    union_counts: np.ndarray
    mean_activation: np.ndarray
    max_activation: np.ndarray
    code_products: np.ndarray

    @property
    def dead(self) -> np.ndarray:
        """Concepts that never fire in a model, bool [M, m]."""
        return self.firing_counts == 0

    @property
    def dead_everywhere(self) -> np.ndarray:
        """Concepts that never fire in any model, bool [m]."""
        return np.logical_and.reduce(self.dead)

    @property
    def firing_entropy(self) -> np.ndarray:
        """How evenly a concept fires over the models, float64 [m].

        1: equally in all; 0: in one alone; 0.631: equally in two of three. NaN for concepts that never fire, and for all
        of them where there is one model only. With p_i the share of the concept's firing that falls to model i, it is
        -sum_i p_i log p_i / log M.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.firing_counts / self.firing_counts.sum(0)
            terms = np.where(share == 0, 0.0, share * np.log(share))
            entropy = -terms.sum(0) / np.log(len(self.model_names))
        return entropy + 0.0  # no negative zero

    @property
    def cofire_proportion(self) -> np.ndarray:
        """Share of a concept's firing in model i that is co-firing, float64 [M, m]; NaN where it never fires in i."""
        with np.errstate(invalid="ignore"):
            return self.cofire_counts / self.firing_counts

    @property
    def energy(self) -> np.ndarray:
        """Importance of a concept in a model, float64 [M, m].

        The squared norm of what the concept adds to the mean reconstruction, || mean(code) * dictionary row ||^2, in
        standardised units. Dictionary rows have norm 1 there, so it is the square of the mean code.
        """
        return self.mean_activation**2

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain Python values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def summary(self) -> str:
        """A table for people: the cross-reconstruction matrix, and what the concepts do."""
        names = [name if len(name) <= 16 else name[:15] + "…" for name in self.model_names]
        first = max(len("encoded \\ decoded"), *map(len, names))
        widths = [max(8, len(name)) for name in names]

        def row(head: str, cells: list[str]) -> str:
            return "  ".join([head.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])

        alive = (~self.dead).sum(1)
        lines = [
            f"R2 of {self.n_tokens:,} tokens, in each model's own units",
            row("encoded \\ decoded", names),
            *(row(name, [f"{value:.3f}" for value in values]) for name, values in zip(names, self.r2, strict=True)),
            "",
            row("", names),
            row("active concepts", [f"{value:.1f}" for value in self.l0]),
            row("concepts alive", [f"{value:,}" for value in alive]),
            "",
            f"{len(self.cofire_counts):,} concepts; {int(self.dead_everywhere.sum()):,} fire in no model, "
            f"{int((self.cofire_counts > 0).sum()):,} in all models at once (threshold {self.threshold:g})",
        ]
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return (
            f"Evaluation({', '.join(self.model_names)}; n_tokens={self.n_tokens}, "
            f"r2 from {self.r2.min():.3f} to {self.r2.max():.3f})"
        )
