"""Agreement of codes between models, and its ceiling: how well another model's activations can predict a code at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html, text_tables
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae.analysis import cofiring

if TYPE_CHECKING:
    import pandas

LEAST_FIRINGS = 20
"""Smallest number of tokens in which a concept fires, below which a correlation of its codes is chance."""

LEAST_CEILING = 0.1
"""Smallest ceiling of which a share is computed. Below it there is next to nothing that the models could agree on."""

COLUMNS = ("agreement", "ridge", "encoder", "ceiling", "share")
"""What `AgreementCeiling.to_frame` has of each pair of models."""


def mean_of_pairs(values: np.ndarray, counts: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the mean over concepts of values [M, M, m], weighted by the energy in the first model, float64 [M, M].

    `counts`, bool [M, m], tells which concepts of the first model are used. It is NaN where none is, or none has any energy.
    """
    largest = np.max(energy, axis=1, keepdims=True, initial=0, where=counts)
    weights = np.where(counts, np.divide(energy, largest, out=np.zeros_like(energy), where=largest > 0), 0)[:, None]
    with np.errstate(invalid="ignore"):
        return (np.where(weights > 0, values, 0) * weights).sum(2) / weights.sum(2)


def mean_of_others(values: np.ndarray) -> float:
    """Return the mean over all pairs of different models of numbers [M, M]; those that are NaN are left out."""
    return cofiring.mean_of_known(values[~np.eye(len(values), dtype=bool)])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AgreementCeiling:
    """Agreement of codes beside its ceiling, for M models and m concepts: `Controls.agreement`.

    [i, j, c] is about the code of concept c in model i, and model j. It is NaN for i = j, and for concepts of model i whose
    ceiling cannot be told (`known`). All correlations are Pearson's, over the same held-out tokens.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_tokens : int
        Number of held-out tokens that were used: all, or 131,072 that are spread evenly.
    known : ndarray of bool, [M, m]
        Concepts that fire in at least 20 of these tokens and in at least 20 of those that were fitted, and whose code varies.
    energy : ndarray of float64, [M, m]
        Energy of the concepts in these tokens.
    agreement : ndarray of float64, [M, M, m]
        Correlation of the concept's codes in the two models. 0 if it is never active in model j.
    ridge : ndarray of float64, [M, M, m]
        Correlation of the code and its prediction by ridge regression on model j's activations, with ReLU.
    encoder : ndarray of float64, [M, M, m]
        Correlation of the code and its prediction by an encoder of model j's activations (linear, ReLU, TopK) that was trained
        on it.
    penalty : ndarray of float64, [M, M, m]
        Ridge penalty, as a multiple of the mean variance of model j's dimensions. It is chosen for each concept on a tenth of
        the training rows.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    known: np.ndarray
    energy: np.ndarray
    agreement: np.ndarray
    ridge: np.ndarray
    encoder: np.ndarray
    penalty: np.ndarray

    @property
    def ceiling(self) -> np.ndarray:
        """The larger of `ridge` and `encoder`, float64 [M, M, m].

        It is an estimate from below: a better predictor may exist. So the agreement of a concept can be above it.
        """
        return np.fmax(self.ridge, self.encoder)

    @property
    def share(self) -> np.ndarray:
        """`agreement` divided by `ceiling`, float64 [M, M, m]. NaN where the ceiling is below .1: nothing is there to share."""
        ceiling = self.ceiling
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(ceiling >= LEAST_CEILING, self.agreement / ceiling, np.nan)

    @property
    def unknown(self) -> np.ndarray:
        """Number of concepts of each model that fire, but whose ceiling cannot be told, int64 [M]."""
        return ((self.energy > 0) & ~self.known).sum(1)

    def mean(self, name: str = "agreement") -> np.ndarray:
        """Mean over the known concepts, weighted by their energy in the model of the code, float64 [M, M]. The diagonal is NaN.

        Parameters
        ----------
        name : "agreement", "ridge", "encoder", "ceiling" or "share"
            Of what. "share" is the mean agreement divided by the mean ceiling. Default: "agreement".
        """
        name = checks.choice(name, "name", COLUMNS)
        if name == "share":
            ceiling = self.mean("ceiling")
            return np.divide(self.mean(), ceiling, out=np.full_like(ceiling, np.nan), where=ceiling >= LEAST_CEILING)
        result = mean_of_pairs(getattr(self, name), self.known, self.energy)
        np.fill_diagonal(result, np.nan)
        return result

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of `to_frame`, each [m]: `COLUMNS` of each pair, such as "ceiling[vit, dinov2]"."""
        return {
            f"{name}[{code}, {other}]": getattr(self, name)[i, j]
            for name in COLUMNS
            for i, code in enumerate(self.model_names)
            for j, other in enumerate(self.model_names)
            if i != j
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept. In a column's name the model of the code comes first.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("AgreementCeiling.to_frame")
        return pandas.DataFrame(self.columns(), index=pandas.RangeIndex(self.known.shape[1], name="concept"))

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, `ceiling` and the means as plain Python values, ready for JSON. NaN becomes None."""
        values = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return values | {"ceiling": plain(self.ceiling), "mean": {name: plain(self.mean(name)) for name in COLUMNS}}

    def summary(self, null: np.ndarray | None = None) -> str:
        """Return a table as text: for each pair of models the means.

        Parameters
        ----------
        null : array of float, [M, M], optional
            Mean agreement of a null, such as ``controls.shuffled.paired.mean_agreement()``, for one more column. Default: None.
        """
        head, cells = self._table(null)
        lines = [self._caption(), *text_tables.table(head, cells, n_names=2, least=9)]
        told = ", ".join(f"{name} {known.sum():,}" for name, known in zip(self.model_names, self.known, strict=True))
        missing = ", ".join(f"{name} {count:,}" for name, count in zip(self.model_names, self.unknown, strict=True))
        lines.append(f"concepts with a ceiling: {told}; that fire too seldom for one: {missing}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table of `summary`, for notebooks."""
        head, cells = self._table(None)
        return html.table(self._caption(), head, cells)

    def _caption(self) -> str:
        return (
            f"Agreement of {self.n_tokens:,} tokens and its ceiling, the better of two predictions from the other model's "
            "activations; means weighted by energy"
        )

    def _table(self, null: np.ndarray | None) -> tuple[list[str], list[list[str]]]:
        """Return the heads and cells of the table."""
        names = self.model_names
        means = {name: self.mean(name) for name in COLUMNS}
        if null is not None:
            means["shuffled pairs"] = np.where(np.eye(len(names), dtype=bool), np.nan, null)
        rows = {
            (names[i], names[j]): [float(values[i, j]) for values in means.values()]
            for i, j in np.ndindex(len(names), len(names))
            if i != j
        }
        rows["all pairs", ""] = [
            self.mean_share if name == "share" else mean_of_others(values) for name, values in means.items()
        ]
        cells = [[*pair, *("-" if np.isnan(each) else f"{each:.3f}" for each in numbers)] for pair, numbers in rows.items()]
        return ["code of", "from", *means], cells

    @property
    def mean_share(self) -> float:
        """Mean agreement of all pairs divided by their mean ceiling."""
        ceiling = mean_of_others(self.mean("ceiling"))
        return mean_of_others(self.mean()) / ceiling if ceiling >= LEAST_CEILING else float("nan")

    def __repr__(self) -> str:
        return (
            f"AgreementCeiling({', '.join(self.model_names)}; agreement {mean_of_others(self.mean()):.3f} of "
            f"{mean_of_others(self.mean('ceiling')):.3f})"
        )
