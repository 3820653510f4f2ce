"""Permutation nulls: how often concepts co-fire by chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import html
from usae._base.json import plain
from usae._base.progress import progress_bar
from usae._data.activations import Activations
from usae._data.chunks import chunks, n_chunks, rows_of
from usae._estimator.codes import Codes
from usae.analysis import cofiring

if TYPE_CHECKING:
    import scipy.sparse

    from usae._estimator.universal_sae import UniversalSAE

NEIGHBOURS = 64
"""Number of concepts with similar firing counts that are permuted among each other."""

DRAWN_AT_ONCE = 2**22
"""Number of co-fire counts that are drawn at once and kept in memory: 32 MB."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CofireNull:
    """Co-firing compared with co-firing after a permutation, for M models and m concepts.

    Numbers of a concept that never fires in some model are NaN, because it cannot co-fire.

    Attributes
    ----------
    permuted : "tokens", "images" or "concepts"
        What is permuted under the null.
    n_draws : int
        Number of permutations that were drawn.
    level : float
        Share of the null distribution that a band holds. With .95 a number is above its band by chance at most 2.5 % of the
        time.
    observed : ndarray of int64, [m]
        Number of tokens in which the concept fires in every model.
    mean, low, high : ndarray of float64, [m]
        Mean of that count under the null, and the band that holds the middle `level` of its distribution.
    z : ndarray of float64, [m]
        (observed - mean) / standard deviation. Infinite if the count does not vary under the null and the observed count is
        larger.
    p_value : ndarray of float64, [m]
        Probability under the null of the observed number of co-fires or more. If it is counted from draws, it is never below
        1 / (1 + n_draws).
    above_by_chance : float
        Share of concepts above their band under the null, to compare `share_above` with. It is less than (1 - level) / 2
        because counts are whole numbers.
    proportion : ndarray of float64, [M]
        `Evaluation.mean_cofire_proportion`: the mean over each model's 1,000 most energetic concepts.
    proportion_mean, proportion_low, proportion_high : ndarray of float64, [M]
        Mean and band of `proportion` under the null. NaN for a model in which none of these concepts fires.
    smallest_log_p : ndarray of float64, [n_draws], optional
        Logarithm of the smallest probability of all concepts in each permutation of images, with which `Evaluation.universal`
        compares the observed ones. None for other permutations.
    """

    permuted: str
    n_draws: int
    level: float
    observed: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    z: np.ndarray
    p_value: np.ndarray
    above_by_chance: float
    proportion: np.ndarray
    proportion_mean: np.ndarray
    proportion_low: np.ndarray
    proportion_high: np.ndarray
    smallest_log_p: np.ndarray | None = None

    @property
    def expected(self) -> np.ndarray:
        """Mean of the counts under the null with the observed one among them, float64 [m]: no draw differs from it in kind."""
        return (self.mean * self.n_draws + self.observed) / (self.n_draws + 1)

    @property
    def share_above(self) -> float:
        """Share of the concepts that are alive in every model whose count is above the band."""
        alive = ~np.isnan(self.high)
        return float(np.mean(self.observed[alive] > self.high[alive])) if alive.any() else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON. What is not finite, such as an infinite z, becomes None."""
        values = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return values | {"share_above": plain(self.share_above)}

    def _repr_html_(self) -> str:
        """Return the mean co-fire proportions beside those of the null, for notebooks."""
        values = (self.proportion, self.proportion_mean, self.proportion_low, self.proportion_high)
        numbers = [f"{cofiring.mean_of_known(each):.4f}" for each in values]
        head = ["", "observed", "null", "low", "high", "concepts above", "by chance"]
        shares = [f"{self.share_above:.1%}", f"{self.above_by_chance:.1%}"]
        caption = f"Mean co-fire proportion with {self.permuted} permuted, {self.n_draws:,} draws"
        return html.table(caption, head, [[f"{self.permuted} permuted", *numbers, *shares]])

    def __repr__(self) -> str:
        return (
            f"CofireNull({self.permuted}; mean co-fire proportion {cofiring.mean_of_known(self.proportion):.3f}, null "
            f"{cofiring.mean_of_known(self.proportion_mean):.3f}; {self.share_above:.1%} of concepts above the band, by chance "
            f"{self.above_by_chance:.1%})"
        )


# --- Tokens: known distributions -----------------------------------------------------------------------------------------


def tokens_null(
    firing: np.ndarray, cofire: np.ndarray, n_tokens: int, *, energy: np.ndarray, level: float, n_draws: int, seed: int,
    progress: bool | None,
) -> CofireNull:  # fmt: skip
    """Null distribution if the tokens of each model are permuted independently, which keeps all firing counts.

    The number of co-fires of two models is then hypergeometric. With each further model it is hypergeometric given the number
    so far. Mean and second factorial moment have a closed form for any number of models: with firing counts F_i, the expected
    number of co-fires is N prod_i (F_i / N), and that of ordered pairs of co-firing tokens is N (N - 1) prod_i [F_i (F_i - 1) /
    (N (N - 1))]. Quantiles and probabilities are exact for two models, and estimated from draws for more.
    """
    rng = np.random.default_rng([seed, 1])
    n_models, n_concepts = firing.shape
    alive = firing.min(0) > 0
    counts = firing.astype(float)
    mean = n_tokens * np.prod(counts / n_tokens, 0)
    pairs = n_tokens * (n_tokens - 1.0)
    both = pairs * np.prod(counts * (counts - 1) / max(pairs, 1.0), 0)
    deviation = np.sqrt(np.maximum(both + mean - mean**2, 0))

    low, high, p_value = (np.full(n_concepts, np.nan) for _ in range(3))
    by_chance, each, proportions = 0.0, cofiring.weights(firing, energy), np.zeros((n_draws, n_models))
    living = np.flatnonzero(alive)
    size = max(1, DRAWN_AT_ONCE // n_draws)
    parts = [living[start : start + size] for start in range(0, len(living), size)]
    with progress_bar(len(parts), progress, "tokens permuted", "part") as bar:
        for part in parts:
            draws = _sample_cofires(firing[:, part], n_tokens, n_draws, rng)
            proportions += draws @ each[:, part].T
            if n_models == 2:
                low[part], high[part], p_value[part], chance = _exact(firing[:, part], n_tokens, cofire[part], level)
            else:
                low[part], high[part], p_value[part], chance = _counted(draws, cofire[part], level)
            by_chance += chance.sum()
            bar.update()
    return _null(
        "tokens", n_draws, level, firing, cofire, energy, np.where(alive, mean, np.nan), low, high, deviation, p_value,
        by_chance / max(len(living), 1), proportions,
    )  # fmt: skip


def _sample_cofires(firing: np.ndarray, n_tokens: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw numbers of co-fires under permutation, int64 [n_draws, concepts]."""
    count = np.broadcast_to(firing[0], (n_draws, firing.shape[1]))
    for other in firing[1:]:
        count = rng.hypergeometric(count, n_tokens - count, other)
    return count


def _exact(
    firing: np.ndarray, n_tokens: int, cofire: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return band, probability of the observed count or more, and probability of a count above the band, for two models."""
    from scipy.stats import hypergeom

    null = hypergeom(n_tokens, firing[0], firing[1])
    high = null.ppf((1 + level) / 2)
    return null.ppf((1 - level) / 2), high, np.clip(null.sf(cofire - 1), 0, 1), null.sf(high)


def _counted(draws: np.ndarray, cofire: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the same as `_exact`, estimated from draws, [n_draws, concepts]."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    p_value = (1 + (draws >= cofire).sum(0)) / (1 + len(draws))
    return low.astype(float), high.astype(float), p_value, (draws > high).mean(0)


def _null(
    permuted: str, n_draws: int, level: float, firing: np.ndarray, cofire: np.ndarray, energy: np.ndarray, mean: np.ndarray,
    low: np.ndarray, high: np.ndarray, deviation: np.ndarray, p_value: np.ndarray, by_chance: float, proportions: np.ndarray,
) -> CofireNull:  # fmt: skip
    """Make the result. `proportions` has the mean co-fire proportions of each draw, [n_draws, M]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (cofire - mean) / deviation
    z[cofire == mean] = 0
    band = np.quantile(proportions, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return CofireNull(
        permuted, n_draws, level, cofire, mean, low, high, z, p_value, float(by_chance),
        cofiring.mean_proportions(firing, cofire, energy), proportions.mean(0), band[0], band[1],
    )  # fmt: skip


def _from_draws(
    permuted: str, level: float, firing: np.ndarray, cofire: np.ndarray, energy: np.ndarray, draws: np.ndarray,
    proportions: np.ndarray,
) -> CofireNull:  # fmt: skip
    alive = firing.min(0) > 0
    low, high, p_value, chance = _counted(draws, cofire, level)
    for values in (low, high, p_value):
        values[~alive] = np.nan
    mean = np.where(alive, draws.mean(0), np.nan)
    by_chance = chance[alive].mean() if alive.any() else np.nan
    return _null(
        permuted, len(draws), level, firing, cofire, energy, mean, low, high, draws.std(0), p_value, by_chance, proportions,
    )  # fmt: skip


# --- Images and concepts: permutations of codes ----------------------------------------------------------------------------


def images_null(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    firing: np.ndarray,
    cofire: np.ndarray,
    *,
    energy: np.ndarray,
    tokens_per_image: int,
    threshold: float,
    level: float,
    n_draws: int,
    seed: int,
    progress: bool | None,
) -> CofireNull:
    """Null distribution if images of each model are permuted independently. A token keeps its place in the image."""
    import scipy.sparse

    rng = np.random.default_rng([seed, 2])
    n_tokens = next(iter(acts.values())).n_tokens
    n_images = n_tokens // tokens_per_image
    with progress_bar(n_chunks(n_tokens) + n_draws, progress, "images permuted", "part") as bar:
        parts: list[list[Any]] = []
        for rows in chunks(n_tokens):
            parts.append([fires(sae.encode(rows_of(x, rows), name), threshold) for name, x in acts.items()])
            bar.update()
        first, *others = (scipy.sparse.vstack(matrices, format="csr") for matrices in zip(*parts, strict=True))
        del parts
        places = np.arange(tokens_per_image)
        draws = np.empty((n_draws, first.shape[1]), np.int64)
        for draw in draws:
            orders = [rng.permutation(n_images) for _ in others]
            draw[:] = 0
            for rows in chunks(n_images, size=max(1, 8192 // tokens_per_image)):
                together = first[rows.start * tokens_per_image : rows.stop * tokens_per_image]
                for matrix, order in zip(others, orders, strict=True):
                    together = together.multiply(matrix[(order[rows, None] * tokens_per_image + places).ravel()])
                draw += _counts(together)
            bar.update()
    proportions = draws @ cofiring.weights(firing, energy).T
    result = _from_draws("images", level, firing, cofire, energy, draws, proportions)
    each = (cofiring.log_cofire_p_values(firing, draw, n_tokens, result.expected) for draw in draws)
    smallest = np.array([np.min(values, initial=0, where=~np.isnan(values)) for values in each])  # 0, certain, if none is alive
    return dataclasses.replace(result, smallest_log_p=smallest)


def concepts_null(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    firing: np.ndarray,
    cofire: np.ndarray,
    *,
    energy: np.ndarray,
    threshold: float,
    level: float,
    n_draws: int,
    seed: int,
    progress: bool | None,
) -> CofireNull:
    """Null distribution if concepts of each model but the first are permuted among those that fire about as often."""
    rng = np.random.default_rng([seed, 3])
    n_tokens = next(iter(acts.values())).n_tokens
    n_models, n_concepts = firing.shape
    slots = np.empty((n_draws, n_models, n_concepts), np.int32)  # [draw, model, concept] -> the index it is counted under
    slots[:, 0] = np.arange(n_concepts)
    for slot in slots:
        for model in range(1, n_models):
            slot[model] = _permuted_among_neighbours(firing[model], rng)
    draws = np.zeros((n_draws, n_concepts), np.int64)
    with progress_bar(n_chunks(n_tokens), progress, "concepts permuted", "part") as bar:
        for rows in chunks(n_tokens):
            first, *others = (fires(sae.encode(rows_of(x, rows), name), threshold) for name, x in acts.items())
            for draw, slot in zip(draws, slots, strict=True):
                together = first
                for matrix, new in zip(others, slot[1:], strict=True):
                    together = together.multiply(_relabelled(matrix, new))
                draw += _counts(together)
            bar.update()
    proportions = np.empty((n_draws, n_models))
    each = cofiring.weights(firing, energy)
    permuted = np.empty_like(each)
    for draw, slot, proportion in zip(draws, slots, proportions, strict=True):
        for model in range(n_models):
            permuted[model, slot[model]] = each[model]
        proportion[:] = permuted @ draw
    return _from_draws("concepts", level, firing, cofire, energy, draws, proportions)


def fires(codes: Codes, threshold: float) -> scipy.sparse.csr_array:
    """Return where concepts fire, as a sparse matrix of truth values, [n_tokens, n_concepts], in canonical form."""
    import scipy.sparse

    chosen = (codes.values > threshold) & (codes.indices >= 0)
    starts = np.concatenate(([0], np.cumsum(chosen.sum(1))))
    matrix = scipy.sparse.csr_array((np.ones(starts[-1], bool), codes.indices[chosen], starts), shape=codes.shape)
    matrix.sort_indices()
    return matrix


def _counts(matrix: scipy.sparse.csr_array) -> np.ndarray:
    """Count the true elements of each column."""
    return np.bincount(matrix.tocsr().indices, minlength=matrix.shape[1])


def _relabelled(matrix: scipy.sparse.csr_array, new: np.ndarray) -> scipy.sparse.csr_array:
    import scipy.sparse

    result = scipy.sparse.csr_array((matrix.data, new[matrix.indices], matrix.indptr), shape=matrix.shape)
    result.sort_indices()
    return result


def _permuted_among_neighbours(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation that moves each concept that fires to the place of one that fires about as often."""
    new = np.arange(len(counts))
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    for block in np.array_split(order, max(1, len(order) // NEIGHBOURS)):
        new[block] = rng.permutation(block)
    return new
