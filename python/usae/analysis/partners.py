"""Partners of concepts: which concept of another model fires most alike, and whether it is the one with the same index."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html, text_tables
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae._base.progress import progress_bar
from usae._data.activations import Activations, check_known
from usae._data.chunks import chunks, n_chunks, rows_of
from usae.analysis import agreement, correlations
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas

    from usae._estimator.universal_sae import UniversalSAE
    from usae.analysis.evaluation import Evaluation

SUMS = 2**25
"""Most sums of products of a pass: 256 MB. What needs more takes several passes."""

CHUNK, SLAB = 2048, 256
"""Tokens, and concepts, whose products are looked at together."""

EQUAL = 1e-9
"""Correlations that differ by less count as equal: sums of float64 in two orders differ by less."""

AMONG = 10
"""Of how many best partners summaries say whether the same index is one."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Partners:
    """Partners of concepts, for M models and m concepts: `Evaluation.partners`.

    The partner of a concept of model i in model j is the concept of j, at any index, whose code correlates most with its code
    over all tokens. [i, j, c] is about concept c of model i and all concepts of model j. For i = j, and for concepts whose code
    does not vary in model i, numbers are NaN and indices -1.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    rank : ndarray of float64, [M, M, m]
        Rank of the same index among all concepts of model j. 1: no other correlates more. An index whose code does not vary in
        model j comes after all whose codes do.
    index : ndarray of int64, [M, M, m]
        The partner. Of equal correlations it is the lower index.
    correlation : ndarray of float64, [M, M, m]
        Its correlation with the concept.
    weight : ndarray of float64, [M, m]
        Sum of the concept's code over all tokens, the weight in `wmppc`.
    """

    model_names: tuple[str, ...]
    rank: np.ndarray
    index: np.ndarray
    correlation: np.ndarray
    weight: np.ndarray

    def share(self, top: int = 1, *, weighted: bool = False) -> np.ndarray:
        """Share of the concepts of model i for which the same index is among the best of model j, float64 [M, M].

        Concepts that are never active in model i do not count.

        Parameters
        ----------
        top : int
            How many concepts of model j are looked at. Default: 1, the partner alone.
        weighted : bool
            Whether each concept has the sum of its code as weight, as in `wmppc`. Default: False, the same weight for all.
        """
        top = checks.integer(top, "top", 1, 2**24)
        weights = self.weight if checks.boolean(weighted, "weighted") else np.ones_like(self.weight)
        return self._mean(np.where(np.isnan(self.rank), np.nan, self.rank <= top), weights)

    @property
    def mppc(self) -> np.ndarray:
        """Mean correlation of the concepts of model i with their partners in model j, float64 [M, M] (2507.18512: MPPC)."""
        return self._mean(self.correlation, np.ones_like(self.weight))

    @property
    def wmppc(self) -> np.ndarray:
        """The same with each concept weighted by the sum of its code, float64 [M, M] (2507.18512: wMPPC)."""
        return self._mean(self.correlation, self.weight)

    @staticmethod
    def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        known = ~np.isnan(values)
        each = np.where(known, weights[:, None], 0)
        with np.errstate(invalid="ignore"):
            return (np.where(known, values, 0) * each).sum(2) / each.sum(2)

    def comparative_sharedness(
        self, model: str, shared_with: str | Sequence[str], against: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Tell which concepts of a model some models share and others do not, float64 [m] (2507.18512).

        With r_j the correlation with the partner in model j and s the sum of the concept's code, it is

            s (min over j in shared_with of r_j^2 - max over j in against of r_j^2)

        The largest belong to concepts that are active much, have a partner in all of the first models, and in none of the
        second. It is NaN for a concept that has no correlation with one of them.

        Parameters
        ----------
        model : str
            Name of the model of the concepts.
        shared_with : str or sequence of str
            Names of other models.
        against : str or sequence of str, optional
            Names of further models. Default: None, which takes all that are not named so far.
        """
        number = self._number(model, "model")
        first = self._others(shared_with, "shared_with", {number})
        rest = [name for i, name in enumerate(self.model_names) if i not in {number, *first}]
        if against is None and not rest:
            raise InvalidInputError(
                f"against must name at least one model, got None, and none of {', '.join(self.model_names)} is left; "
                "name fewer in shared_with"
            )
        second = self._others(rest if against is None else against, "against", {number, *first})
        squares = self.correlation[number] ** 2
        return self.weight[number] * (squares[first].min(0) - squares[second].max(0))

    def _number(self, name: object, argument: str) -> int:
        check_known(name, self.model_names, argument)
        return self.model_names.index(name)

    def _others(self, names: object, argument: str, taken: set[int]) -> list[int]:
        given = [names] if isinstance(names, str) else list(checks.listed(names, argument, "a list of model names"))
        numbers = [self._number(name, argument) for name in given]
        if not numbers or len(set(numbers)) < len(numbers) or taken & set(numbers):
            raise InvalidInputError(
                f"{argument} must hold at least one model, none twice and none that was named before, got {given}"
            )
        return numbers

    def columns(self) -> dict[str, np.ndarray]:
        """Return what `Evaluation.to_frame` has of this, each [m].

        For each pair of models ``rank[vit, dinov2]``, and likewise ``partner`` and ``partner_correlation``; with three models
        or more ``comparative_sharedness[vit, dinov2]``, of concepts that vit shares with dinov2 and with no other model.
        """
        names = self.model_names
        pairs = [(i, j, f"[{names[i]}, {names[j]}]") for i, j in np.ndindex(len(names), len(names)) if i != j]
        arrays = {"rank": self.rank, "partner": self.index, "partner_correlation": self.correlation}
        found = {f"{name}{pair}": values[i, j] for name, values in arrays.items() for i, j, pair in pairs}
        if len(names) > 2:
            found |= {f"comparative_sharedness{p}": self.comparative_sharedness(names[i], names[j]) for i, j, p in pairs}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, `mppc` and `wmppc` as plain Python values, ready for JSON. NaN becomes None."""
        values = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return values | {"mppc": plain(self.mppc), "wmppc": plain(self.wmppc)}

    def summary(self) -> str:
        """Return a table as text: for each pair of models, how often the same index is the partner, and the partners' means."""
        return "\n".join(text_tables.table(*self._table(), n_names=2, least=8))

    def _repr_html_(self) -> str:
        """Return the table of `summary`, for notebooks."""
        return html.table("", *self._table())

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept, and the columns that `Evaluation.to_frame` has of this.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("Partners.to_frame")
        return pandas.DataFrame(self.columns(), index=pandas.RangeIndex(self.rank.shape[2], name="concept"))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return the heads and cells of the table."""
        names, numbers = self.model_names, self._figures() | {"MPPC": self.mppc}
        rows = [
            [names[i], names[j]]
            + [
                "-" if np.isnan(values[i, j]) else format(values[i, j], ".3f" if title.endswith("MPPC") else ".1%")
                for title, values in numbers.items()
            ]
            for i, j in np.ndindex(len(names), len(names))
            if i != j
        ]
        return ["concepts", "in", *numbers], rows

    def lines(self) -> list[str]:
        """Return what an evaluation's summary says of partners, as means over pairs of models: nothing for one model."""
        if len(self.model_names) < 2:
            return []
        best, among, weighted, wmppc = map(agreement.mean_of_others, self._figures().values())
        return [
            f"the same index is the partner of {best:.1%} of a model's concepts in another, one of the {AMONG} best of "
            f"{among:.1%}; weighted by their codes it is of {weighted:.1%}, and partners correlate by {wmppc:.3f}"
        ]

    def _figures(self) -> dict[str, np.ndarray]:
        """Return what summaries show of each pair of models, by the titles of its columns."""
        return {
            "same index best": self.share(),
            f"among {AMONG}": self.share(AMONG),
            "weighted": self.share(weighted=True),
            "wMPPC": self.wmppc,
        }

    def __repr__(self) -> str:
        best, wmppc = (agreement.mean_of_others(values) for values in (self.share(), self.wmppc))
        return f"Partners({', '.join(self.model_names)}; same index best {best:.1%}, wMPPC {wmppc:.3f})"


def find(sae: UniversalSAE, acts: Mapping[str, Activations], evaluation: Evaluation, progress: bool | None) -> Partners:
    """Find the partners of an evaluation's concepts. `acts` are the activations that were evaluated."""
    n_models, n_concepts = evaluation.mean_activation.shape
    n_tokens, names = evaluation.n_tokens, evaluation.model_names
    models = np.arange(n_models)
    moments = evaluation.code_products[models, models] / n_tokens
    variances = correlations.variances(evaluation.mean_activation, moments, n_tokens)
    each = _Search(evaluation.mean_activation, 1 / np.sqrt(variances), np.nan_to_num(evaluation.correlation, nan=-np.inf))
    passes = list(_passes(n_models, n_concepts))
    total = len(passes) * n_chunks(n_tokens, size=CHUNK)
    with progress_bar(total, progress, "partners", "part") as bar:
        for blocks in passes:
            sums = [np.zeros((stop - start, n_concepts)) for _, _, start, stop in blocks]
            for rows in chunks(n_tokens, size=CHUNK):
                needed = sorted({model for i, j, _, _ in blocks for model in (i, j)})
                codes = {i: sae.encode(rows_of(acts[names[i]], rows), names[i]).to_csr().astype(float) for i in needed}
                for total_sums, (i, j, start, stop) in zip(sums, blocks, strict=True):
                    first = codes[i] if stop - start == n_concepts else codes[i][:, start:stop]
                    products = (first.T @ codes[j]).tocoo()
                    total_sums[products.row, products.col] += products.data  # each element is there once
                bar.update()
            for total_sums, (i, j, start, stop) in zip(sums, blocks, strict=True):
                each.look_at(total_sums / n_tokens, i, j, start, stop)
    return each.result(names, evaluation.mean_activation * n_tokens)


def _passes(n_models: int, n_concepts: int) -> Iterator[list[tuple[int, int, int, int]]]:
    """Yield for each pass blocks (i, j, start, stop): concepts start to stop of model i with all of model j."""
    size = max(1, min(n_concepts, SUMS // n_concepts))
    blocks = [
        (i, j, start, min(start + size, n_concepts))
        for i in range(n_models)
        for j in range(i + 1, n_models)
        for start in range(0, n_concepts, size)
    ]
    together = max(1, SUMS // (size * n_concepts))
    for first in range(0, len(blocks), together):
        yield blocks[first : first + together]


class _Search:
    """The best partners so far, in both directions of a pair of models, and how many are better than the same index."""

    def __init__(self, mean: np.ndarray, inverse: np.ndarray, own: np.ndarray):
        """`mean` and `inverse` are mean codes and 1 / their standard deviations, [M, m], NaN where there is none.

        `own` are the correlations of the same index, [M, M, m], or -inf.
        """
        self.mean, self.inverse, self.own = mean, inverse, own
        self.better = np.zeros(own.shape, np.int64)
        self.best = np.full(own.shape, -np.inf)
        self.index = np.full(own.shape, -1, np.int64)

    def look_at(self, products: np.ndarray, i: int, j: int, start: int, stop: int) -> None:
        """Look at mean products of codes of concepts start to stop of model i with all of model j."""
        for first in range(start, stop, SLAB):
            rows = slice(first, min(first + SLAB, stop))
            part = products[rows.start - start : rows.stop - start]
            part -= np.outer(self.mean[i, rows], self.mean[j])
            part *= self.inverse[i, rows, None]
            part *= self.inverse[j]
            part[np.isnan(part)] = -np.inf  # a code that does not vary is no partner
            self._count(part, i, j, rows, slice(None))
            self._count(part.T, j, i, slice(None), rows)

    def _count(self, found: np.ndarray, i: int, j: int, rows: slice, columns: slice) -> None:
        """Take into account correlations of some concepts of model i, the rows, with some of model j, the columns."""
        concepts, others = np.arange(self.own.shape[2])[rows], np.arange(self.own.shape[2])[columns]
        self.better[i, j, rows] += (found > self.own[i, j, rows, None] + EQUAL).sum(1)
        both = np.intersect1d(concepts, others)
        self.better[i, j, both] -= found[both - concepts[0], both - others[0]] > self.own[i, j, both] + EQUAL
        at = found.argmax(1)
        value = found[np.arange(len(found)), at]
        higher = value > self.best[i, j, rows]
        self.best[i, j, rows] = np.where(higher, value, self.best[i, j, rows])
        self.index[i, j, rows] = np.where(higher, others[at], self.index[i, j, rows])

    def result(self, names: tuple[str, ...], weight: np.ndarray) -> Partners:
        varies = ~np.isnan(self.inverse)
        known = varies[:, None] & varies.any(1)[None, :, None] & ~np.eye(len(names), dtype=bool)[..., None]
        rank = np.where(known, 1.0 + self.better, np.nan)
        best = np.where(known, np.clip(self.best, -1, 1), np.nan)
        return Partners(names, rank, np.where(known, self.index, -1), best, weight)
