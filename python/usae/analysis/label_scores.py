"""How well each concept tells each label: its best F1 and its AUROC, exactly, from sparse codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from usae._base import html
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae.analysis.given_labels import Truth

if TYPE_CHECKING:
    import pandas

AT_ONCE = 2**22
"""Numbers of concepts and labels, and entries of labels, that are scored together."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabelScores:
    """How well the codes of M models and m concepts tell L labels. Rows are images or tokens, as the labels are.

    The score of a row is the concept's code in a token, or its largest code in an image. Codes that are not above the
    evaluation's threshold count as 0.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    names : tuple of str, [L]
        Names of the labels.
    of_images : bool
        Whether rows are images; otherwise they are tokens.
    n_rows : int
        Number of rows. Those that do not count by a mask are not among them.
    positives : ndarray of int64, [L]
        Number of rows that have the label.
    f1 : ndarray of float32, [M, m, L]
        Largest F1 over all thresholds at which the concept fires: 2 TP / (2 TP + FP + FN). 0 for a concept that never fires on
        the label, NaN for a label that no row has.
    auroc : ndarray of float32, [M, m, L]
        Area under the curve of true over false positives: the probability that a row with the label has a larger score than one
        without it, where equal scores count half. 0.5 for a concept that never fires, NaN for a label that all rows or none
        have.
    """

    model_names: tuple[str, ...]
    names: tuple[str, ...]
    of_images: bool
    n_rows: int
    positives: np.ndarray
    f1: np.ndarray
    auroc: np.ndarray

    @property
    def best_f1(self) -> np.ndarray:
        """Largest F1 of a concept over all labels, float32 [M, m]. NaN without any."""
        return _best(self.f1)[0]

    @property
    def best_f1_label(self) -> np.ndarray:
        """The number of the label with the largest F1, int64 [M, m]: the first of equal ones; -1 if that F1 is 0 or NaN."""
        values, labels = _best(self.f1)
        return np.where(values > 0, labels, -1)

    @property
    def best_auroc(self) -> np.ndarray:
        """Largest AUROC of a concept over all labels, float32 [M, m]. NaN without any."""
        return _best(self.auroc)[0]

    @property
    def best_auroc_label(self) -> np.ndarray:
        """The number of the label with the largest AUROC, int64 [M, m]: the first of equal ones; -1 if that is at most 0.5."""
        values, labels = _best(self.auroc)
        return np.where(values > 0.5, labels, -1)

    def columns(self) -> dict[str, np.ndarray]:
        """Return what `Evaluation.to_frame` has of this, each [m]: the best of each model, and the name of its label."""
        names = np.array([*self.names, None], object)
        found: dict[str, np.ndarray] = {}
        for name in ("best_f1", "best_auroc"):
            values, labels = getattr(self, name), getattr(self, f"{name}_label")
            for i, model in enumerate(self.model_names):
                found |= {f"{name}[{model}]": values[i], f"{name}_label[{model}]": names[labels[i]]}
        return found

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each model, concept and label, and the columns ``f1`` and ``auroc``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("LabelScores.to_frame")
        concepts = range(self.f1.shape[1])
        index = pandas.MultiIndex.from_product([self.model_names, concepts, self.names], names=["model", "concept", "label"])
        return pandas.DataFrame({"f1": self.f1.ravel(), "auroc": self.auroc.ravel()}, index=index)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, ready for JSON. NaN becomes None."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def _repr_html_(self) -> str:
        """Return for each label the concept of each model that tells it best, for notebooks."""
        kind = "images" if self.of_images else "tokens"
        rows = []
        for label, name in enumerate(self.names):
            cells = [name, f"{self.positives[label]:,}"]
            for model in range(len(self.model_names)):
                of_label = np.nan_to_num(self.f1[model, :, label], nan=-1)
                best = int(of_label.argmax())
                cells.append(f"{best}: {of_label[best]:.3f}" if of_label[best] > 0 else "")
            rows.append(cells)
        head = ["label", kind, *self.model_names]
        return html.table(f"Concept with the best F1 for each label, of {self.n_rows:,} {kind}", head, rows)

    def __repr__(self) -> str:
        kind = "images" if self.of_images else "tokens"
        return f"LabelScores({', '.join(self.model_names)}; {len(self.names)} labels of {self.n_rows} {kind})"


def _best(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest of the labels and its number, [M, m]; NaN and 0 where none is known."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    label = known.argmax(2)
    best = np.take_along_axis(known, label[..., None], 2)[..., 0]
    return np.where(np.isfinite(best), best, np.float32(np.nan)), label


class Entries(NamedTuple):
    """Scores above 0 of rows: concepts from 0 to `n_concepts` of a block, the scores, and numbers of rows."""

    concepts: np.ndarray
    values: np.ndarray
    rows: np.ndarray


def score(entries: Entries, n_concepts: int, truth: Truth, n_rows: int, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 and AUROC, float32 [n_concepts, L], of concepts whose other scores are 0.

    Rows that do not fire are ties at 0, and come in by their number alone. Rank sums give the AUROC (Mann and Whitney), with
    the mean rank for equal scores, and F1 is largest at the score of a row with the label, with all rows of that score.
    """
    order = np.lexsort((-entries.values, entries.concepts))
    concepts, values, rows = entries.concepts[order], entries.values[order], entries.rows[order]
    starts = np.searchsorted(concepts, np.arange(n_concepts + 1))
    changes = np.flatnonzero((np.diff(concepts, prepend=-1) != 0) | (np.diff(values, prepend=0) != 0))
    ends = np.append(changes[1:], len(values))
    of = np.repeat(np.arange(len(changes)), ends - changes)  # entries of equal score
    first = starts[concepts]
    at_least = ends[of] - first  # rows with this score or a larger one
    rank = n_rows - (changes[of] - first + at_least - 1) / 2  # 1 for the smallest score
    n_labels = truth.starts[rows + 1] - truth.starts[rows]
    ends_of_labels = np.concatenate([[0], np.cumsum(n_labels)])[starts]
    f1, auroc = (np.empty((n_concepts, len(truth.names)), np.float32) for _ in range(2))
    for block in blocks(ends_of_labels, AT_ONCE, AT_ONCE // max(1, len(truth.names))):
        entry = slice(int(starts[block.start]), int(starts[block.stop]))
        part = Entries(concepts[entry] - block.start, values[entry], rows[entry])
        fires = np.diff(starts[block.start : block.stop + 1])
        f1[block], auroc[block] = _of_block(
            part, n_labels[entry], at_least[entry], rank[entry], fires, truth, n_rows, positives
        )
    return f1, auroc


def blocks(ends: np.ndarray, most: int, longest: int | None = None) -> Iterator[slice]:
    """Yield consecutive concepts, up to `longest` of them with at most `most` entries, or single ones.

    The entries of concept c are those from ``ends[c]`` to ``ends[c + 1]``.
    """
    start, n = 0, len(ends) - 1
    while start < n:
        stop = int(np.searchsorted(ends, ends[start] + most, side="right")) - 1
        stop = max(start + 1, min(stop, n if longest is None else start + longest))
        yield slice(start, stop)
        start = stop


def _of_block(
    entries: Entries,
    n_labels: np.ndarray,
    at_least: np.ndarray,
    rank: np.ndarray,
    fires: np.ndarray,
    truth: Truth,
    n_rows: int,
    positives: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Score some concepts with all labels, [n, L]. `fires` is the number of entries of each concept, [n]."""
    shape = len(fires), len(truth.names)
    entry = np.repeat(np.arange(len(n_labels)), n_labels)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(n_labels) - n_labels, n_labels)
    label = truth.labels[truth.starts[entries.rows[entry]] + within]
    key = entries.concepts[entry].astype(np.int64) * shape[1] + label
    hits = np.bincount(key, minlength=shape[0] * shape[1]).reshape(shape)
    of_hits = np.bincount(key, rank[entry], shape[0] * shape[1]).reshape(shape)
    ranks = of_hits + (positives - hits) * ((n_rows - fires[:, None] + 1) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = (ranks - positives * (positives + 1) / 2) / (positives * (n_rows - positives))
    auroc = np.where((positives > 0) & (positives < n_rows), auroc, np.nan)
    order = np.argsort(key, kind="stable")  # of each concept and label, the strongest first
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    found = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order))) + 1
    scores = 2 * found / (positives[label[order]] + at_least[entry[order]])
    f1 = np.where(positives > 0, 0.0, np.nan) * np.ones(shape)
    if len(first):
        f1.flat[key[order][first]] = np.maximum.reduceat(scores, first)
    return f1, auroc
