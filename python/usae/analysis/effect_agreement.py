"""Whether ablating a concept changes the same images, and the same classes, in two networks, beside other concepts as null."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae._base.json import plain
from usae._base.ranking import largest
from usae.errors import InvalidInputError

CONTROLS = 20
"""Other concepts that a concept is compared with, in both directions: the smallest p-value is 1 / 41."""

LEAST_IMAGES = 10
"""Smallest number of images of which a rank correlation is computed. That of fewer is chance."""

BLOCK = 128
"""Concepts that are compared at a time."""

Similarity = Callable[[int, int, np.ndarray, np.ndarray], np.ndarray]
"""Function of two models and of concepts of each, int64 [n], to how alike their effects are, float64 [n], or NaN."""


class MeanAgreement(NamedTuple):
    """Mean agreement over concepts beside that of controls, each float64 [M, M]; NaN for i = j."""

    value: np.ndarray
    """The mean over concepts for which it can be told."""
    null: np.ndarray
    """The mean over draws, each of one control for each concept."""
    low: np.ndarray
    """End of the band in which 95 % of draws are."""
    high: np.ndarray
    """The other end."""
    p_value: np.ndarray
    """Share of draws, and the concepts themselves, whose mean is at least as large."""
    n_concepts: np.ndarray
    """How many concepts it is a mean over."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EffectAgreement:
    """How alike the effects of the concept with the same index are in two networks, for M models and n concepts.

    Numbers are NaN for i = j, and where there are too few images, or no change, to tell.

    Attributes
    ----------
    value : ndarray of float64, [M, M, n]
        The agreement. [i, j] and [j, i] are the same.
    controls : ndarray of float64, [M, M, n, q]
        Agreement of the concept's effects with those of other concepts of about equal energy and firing rate: its own in model
        i with theirs in model j, and theirs in model i with its own in model j. NaN where there are fewer such concepts.
    mismatch : ndarray of float64, [M, M, n]
        By what factor mean code or firing rate of these concepts differ from its own: the median of the larger one. 1 is equal.
    """

    value: np.ndarray
    controls: np.ndarray
    mismatch: np.ndarray

    @property
    def null(self) -> np.ndarray:
        """Mean of the controls, float64 [M, M, n]."""
        known = ~np.isnan(self.controls)
        with np.errstate(invalid="ignore"):
            return np.where(known, self.controls, 0).sum(-1) / known.sum(-1)

    @property
    def p_value(self) -> np.ndarray:
        """Rank of the concept among itself and its controls, as a share: 1 / (q + 1) if it agrees best. float64 [M, M, n]."""
        known = ~np.isnan(self.controls)
        with np.errstate(invalid="ignore"):
            better = (known & (self.controls >= self.value[..., None])).sum(-1)
        rank = (1 + better) / (1 + known.sum(-1))
        return np.where(np.isnan(self.value) | ~known.any(-1), np.nan, rank)

    def mean(self, concepts: Any = None, *, draws: int = 1000, seed: int = 0) -> MeanAgreement:
        """Return the mean over concepts beside that of controls.

        Parameters
        ----------
        concepts : array of bool or of int, optional
            Places of the concepts in `value`. Default: None, which takes all.
        draws : int
            How often a control of each concept is drawn. Default: 1000.
        seed : int
            Seed of the draws. Default: 0.
        """
        draws = checks.integer(draws, "draws", 1, 10**6)
        rng = np.random.default_rng(checks.integer(seed, "seed", 0, 2**62 - 1))
        places = places_of(concepts, self.value.shape[2])
        n_models = len(self.value)
        found = np.full((6, n_models, n_models), np.nan)
        for i in range(n_models):
            for j in range(i + 1, n_models):
                found[:, i, j] = found[:, j, i] = _beside_draws(
                    self.value[i, j, places], self.controls[i, j, places], draws, rng
                )
        return MeanAgreement(*found)

    def to_dict(self) -> dict[str, Any]:
        """Return `value`, `null`, `p_value` and `mismatch` as plain Python values, ready for JSON. NaN becomes None."""
        return {name: plain(getattr(self, name)) for name in ("value", "null", "p_value", "mismatch")}


def _beside_draws(value: np.ndarray, controls: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the numbers of `MeanAgreement` for one pair of models: values [n], controls [n, q]."""
    known = ~np.isnan(value) & ~np.isnan(controls).all(1)
    value, controls = value[known], controls[known]
    if not len(value):
        return (np.nan,) * 5 + (0.0,)
    controls = np.take_along_axis(controls, np.argsort(np.isnan(controls), 1, kind="stable"), 1)  # NaN comes last
    chosen = (rng.random((draws, len(value))) * (~np.isnan(controls)).sum(1)).astype(np.int64)
    means = controls[np.arange(len(value)), chosen].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return value.mean(), means.mean(), low, high, (1 + (means >= value.mean()).sum()) / (1 + draws), len(value)


def places_of(concepts: Any, n: int) -> np.ndarray:
    """Return places among `n` concepts as int64, of truth values or integers."""
    if concepts is None:
        return np.arange(n)
    given = np.asarray(concepts)
    if given.dtype.kind == "b" and given.shape == (n,):
        return np.flatnonzero(given)
    if given.dtype.kind in "iu" and given.ndim == 1 and (not len(given) or (given.min() >= 0 and given.max() < n)):
        return given.astype(np.int64)
    raise InvalidInputError(f"concepts must be truth values [{n}], or integers from 0 to {n - 1}, got {checks.shown(concepts)}")


def compared(similarity: Similarity, mean_code: np.ndarray, rate: np.ndarray, known: np.ndarray) -> EffectAgreement:
    """Compare the effects of each concept in each pair of models, and with those of controls.

    Parameters
    ----------
    similarity : callable
        How alike effects of concepts are, by their places.
    mean_code, rate : ndarray of float64, [M, n]
        Mean code and firing rate, by which concepts are matched.
    known : ndarray of bool, [M, n]
        Concepts that have an effect.
    """
    n_models, n = mean_code.shape
    value, mismatch = np.full((2, n_models, n_models, n), np.nan)
    controls = np.full((n_models, n_models, n, 2 * CONTROLS), np.nan)
    for i in range(n_models):
        for j in range(i + 1, n_models):
            places = np.flatnonzero(known[i] & known[j])
            value[i, j, places] = similarity(i, j, places, places)
            features = [np.log(each[model, places]) for each in (mean_code, rate) for model in (i, j)]
            for part, others, distances in _nearest(np.array(features)):
                own = np.repeat(places[part], others.shape[1])
                there = places[others.ravel()]
                both = [similarity(i, j, *each).reshape(others.shape) for each in ((own, there), (there, own))]
                controls[i, j, places[part], : 2 * others.shape[1]] = np.concatenate(both, 1)
                mismatch[i, j, places[part]] = np.exp(np.median(distances, 1)) if others.shape[1] else np.nan
            for each in (value, controls, mismatch):
                each[j, i] = each[i, j]
    return EffectAgreement(value, controls, mismatch)


def _nearest(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield for some concepts at a time their nearest other ones, [n, at most CONTROLS], and how far these are."""
    n = features.shape[1]
    for start in range(0, n, BLOCK):
        part = slice(start, min(start + BLOCK, n))
        distances = np.abs(features[:, part, None] - features[:, None]).max(0)
        distances[np.arange(part.stop - start), np.arange(start, part.stop)] = np.inf  # a concept is no control of itself
        others, found = largest(-distances, min(CONTROLS, n - 1)) if n > 1 else (np.zeros((1, 0), int), np.zeros((1, 0)))
        yield part, others, -found


def of_images(sizes: Sequence[np.ndarray]) -> Similarity:
    """Return the rank correlation over images of the sizes of effects, [images, n] for each model."""
    ranks = [_standardized_ranks(each) for each in sizes]

    def similarity(i: int, j: int, of_i: np.ndarray, of_j: np.ndarray) -> np.ndarray:
        found = np.empty(len(of_i))
        for start in range(0, len(of_i), BLOCK):
            part = slice(start, start + BLOCK)
            found[part] = np.einsum("ck,ck->c", ranks[i][of_i[part]], ranks[j][of_j[part]])
        return found

    return similarity


def of_active_images(sizes: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> Similarity:
    """Return the same over the images in which both concepts are active, by their codes, [images, n] for each model."""

    def similarity(i: int, j: int, of_i: np.ndarray, of_j: np.ndarray) -> np.ndarray:
        found = np.full(len(of_i), np.nan)
        for place, (a, b) in enumerate(zip(of_i, of_j, strict=True)):
            both = (codes[i][:, a] > 0) & (codes[j][:, b] > 0)
            if both.sum() >= LEAST_IMAGES:
                ranks = _standardized_ranks(np.stack([sizes[i][both, a], sizes[j][both, b]], 1))
                found[place] = ranks[0] @ ranks[1]
        return found

    return similarity


def of_classes(changes: Sequence[np.ndarray | None]) -> Similarity:
    """Return the cosine of the mean changes of logits, [n, classes] for each model; NaN for models of other classes."""

    def similarity(i: int, j: int, of_i: np.ndarray, of_j: np.ndarray) -> np.ndarray:
        one, other = changes[i], changes[j]
        if one is None or other is None or one.shape[1] != other.shape[1]:
            return np.full(len(of_i), np.nan)
        a, b = one[of_i], other[of_j]
        with np.errstate(invalid="ignore"):
            return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))

    return similarity


def _standardized_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks of numbers [images, n] over images, with mean 0 and norm 1, float32 [n, images]; NaN if all are equal."""
    from scipy.stats import rankdata  # takes long to import

    ranks = np.empty(values.shape[::-1], np.float32)
    for start in range(0, values.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        own = rankdata(values[:, part], axis=0).T
        own -= own.mean(1, keepdims=True)
        norm = np.linalg.norm(own, axis=1, keepdims=True)
        ranks[part] = np.divide(own, norm, out=np.full(own.shape, np.nan), where=norm > 0)
    return ranks
