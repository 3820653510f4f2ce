"""Concepts that are close to each other: by their dictionary rows, and by firing in the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usae._base.ranking import largest

NEIGHBOURS = 10
BLOCK = 512
"""Concepts that are compared with all others at once."""


def by_dictionary(units: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the concepts with the largest cosine of dictionary rows, averaged over models, and these cosines, [m, 10].

    `units` are dictionary rows of norm 1, [m, width]. The concept itself is left out. -1 where there are fewer.
    """
    n = len(units[0])
    concepts, cosines = _empty(n)
    for start in range(0, n, BLOCK):
        block = slice(start, start + BLOCK)
        mean = sum(np.asarray(rows[block] @ rows.T, np.float64) for rows in units) / len(units)
        _take_largest(np.asarray(mean), start, concepts[block], cosines[block])
    return concepts, cosines


def by_firing(tokens: np.ndarray, n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the concepts with the largest IoU of firing, and these, [m, 10].

    The IoU of two concepts is the number of tokens in which both fire, divided by the number in which one of them does. Here
    both are of the same model's code. `tokens` are the concepts of some tokens, [n, slots], m where there are fewer.
    """
    import scipy.sparse

    rows, _ = np.nonzero(tokens < n_concepts)
    columns = tokens[tokens < n_concepts]
    ones = np.ones(len(rows), np.float32)
    fires = scipy.sparse.csr_matrix((ones, (rows, columns)), shape=(len(tokens), n_concepts))
    by_concept = fires.T.tocsr()
    counts = np.asarray(fires.sum(0)).ravel()
    concepts, ious = _empty(n_concepts)
    for start in range(0, n_concepts, BLOCK):
        block = slice(start, start + BLOCK)
        both = (by_concept[block] @ fires).toarray()
        union = counts[block, None] + counts[None] - both
        with np.errstate(invalid="ignore"):
            iou = np.where(union > 0, both / union, 0)
        _take_largest(iou, start, concepts[block], ious[block])
    return concepts, ious


def _empty(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((n, NEIGHBOURS), -1, np.int32), np.zeros((n, NEIGHBOURS), np.float32)


def _take_largest(scores: np.ndarray, start: int, concepts: np.ndarray, kept: np.ndarray) -> None:
    """Write the concepts with the largest positive scores of a block, [block, m], into `concepts` and `kept`."""
    here = np.arange(len(scores))
    scores = scores.copy()
    scores[here, start + here] = -np.inf
    chosen, values = largest(scores, NEIGHBOURS)
    there, n = values > 0, chosen.shape[1]
    concepts[:, :n], kept[:, :n] = np.where(there, chosen, -1), np.where(there, values, 0)
