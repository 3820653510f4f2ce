"""How well linear maps of another model's activations predict codes: a cheap part of `usae.controls`' "agreement".

Ridge regression, with the penalty that predicts a tenth of the training rows best for each concept, and ReLU. It is `ridge` of
`AgreementCeiling` but for rounding and the rows that choose the penalty. Codes are dense and products float32, which is faster
and takes more memory.
"""

from __future__ import annotations

import dataclasses

import numpy as np

import usae
from study.worlds import Arrays, rows
from usae.analysis import agreement
from usae.analysis.predicted_codes import PENALTIES
from usae.analysis.ridge import Ridge

CHUNK, PARTS = 4096, 10
"""Rows that are read at once, and every so many of these chunks choose the penalty."""


@dataclasses.dataclass(frozen=True)
class LinearCeiling:
    """Means over the concepts that fire often enough, weighted by energy, float [M, M]: code of i, predicted from j."""

    agreement: np.ndarray
    ceiling: np.ndarray


def linear_ceiling(sae: usae.UniversalSAE, held_out: Arrays, train: Arrays) -> LinearCeiling:
    """Fit on `train` and correlate predictions with the codes of `held_out`; NaN on the diagonal."""
    held_out, train = rows(held_out), rows(train)
    names = sae.model_names_
    seen, new = ([sae.encode(acts[name], name) for name in names] for acts in (train, held_out))
    dense = [codes.to_dense() for codes in new]
    fires = np.array(
        [[np.bincount(codes.to_csr().indices, minlength=codes.n_concepts) for codes in each] for each in (seen, new)]
    )
    known = (fires >= agreement.LEAST_FIRINGS).all(0)
    norms = np.array([np.linalg.norm(sae.dictionary(name), axis=1) for name in names])
    energy = (np.array([codes.mean(0, dtype=float) for codes in dense]) * norms) ** 2
    found, own = (np.zeros((len(names), len(names), known.shape[1])) for _ in range(2))
    for j, name in enumerate(names):
        space = sae.parameters(name)
        source = _Source(*((acts[name] - space["mean"]) / space["scale"] for acts in (train, held_out)))
        for i in range(len(names)):
            if i != j:
                found[i, j] = _correlations(dense[i], source.predicted(seen[i].to_dense()))
                own[i, j] = _correlations(dense[i], dense[j])
    result = [agreement.mean_of_pairs(values, known, energy) for values in (own, found)]
    for values in result:
        np.fill_diagonal(values, np.nan)
    return LinearCeiling(*result)


class _Source:
    """Standardised activations of the model that predicts: of training and held-out, float32 [n, width]."""

    def __init__(self, x: np.ndarray, new: np.ndarray):
        mean = x.mean(0, dtype=float).astype(np.float32)
        self.x, self.new = x - mean, new - mean
        self.learning, self.choosing = self._sums(self.x)
        self.choice, self.final = Ridge(self.learning), Ridge(self.learning + self.choosing)

    def _sums(self, z: np.ndarray) -> list[np.ndarray]:
        """Return sums of products of the activations and `z` [n, m], of the rows that are learned and of those that choose."""
        sums = [np.zeros((self.x.shape[1], z.shape[1])) for _ in range(2)]
        size = min(CHUNK, -(-len(z) // PARTS))
        mean = z.mean(0, dtype=float).astype(np.float32)
        for number, start in enumerate(range(0, len(z), size)):
            part = slice(start, start + size)
            sums[number % PARTS == 1] += self.x[part].T @ (z[part] - mean)
        return sums

    def predicted(self, z: np.ndarray) -> np.ndarray:
        """Return predictions of codes of held-out rows, by ridge regression on those of training, z [n, m]."""
        cross, other = self._sums(z)
        penalty = self.choice.best_penalties(cross, self.choosing, other, PENALTIES)
        weights = self.final.weights(cross + other, penalty).astype(np.float32)
        return np.maximum(self.new @ weights + z.mean(0, dtype=float).astype(np.float32), 0)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of each column of two arrays [n, m]; 0 where one does not vary."""
    a, b = (each - each.mean(0, dtype=float).astype(np.float32) for each in (a, b))
    size = np.sqrt(np.square(a).sum(0, dtype=float) * np.square(b).sum(0, dtype=float))
    return np.divide((a * b).sum(0, dtype=float), size, out=np.zeros(len(size)), where=size > 0)
