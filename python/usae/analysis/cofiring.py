"""Formulas of co-firing: its mean proportion, how probable it is by chance, and what is called universal."""

from __future__ import annotations

import math

import numpy as np

UNIVERSAL_ENTROPY = 0.9
"""Smallest firing entropy of a concept that is called universal. It fires about equally often in every model."""

UNIVERSAL_SHARE = 0.05
"""Smallest share of its firing in each model that such a concept co-fires."""

ERROR_RATE = 0.05
"""Largest probability that any concept that co-fires by chance alone is called universal."""

MOST_ENERGETIC = 1000
"""Number of each model's most energetic concepts, over which co-fire proportions are averaged, as in the paper."""


def most_energetic(energy: np.ndarray, top: int = MOST_ENERGETIC) -> np.ndarray:
    """Return each model's concepts with the largest energy, largest first, int [M, top], or all if there are fewer."""
    return np.argsort(-energy, axis=1, kind="stable")[:, :top]


def mean_proportions(firing: np.ndarray, cofire: np.ndarray, energy: np.ndarray, top: int = MOST_ENERGETIC) -> np.ndarray:
    """Compute `Evaluation.mean_cofire_proportion` from firing counts [M, m], co-fire counts [m] and energy [M, m]."""
    with np.errstate(invalid="ignore"):
        chosen = np.take_along_axis(cofire / firing, most_energetic(energy, top), 1)
    return np.array([mean_of_known(values) for values in chosen])


def weights(firing: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return factors, float64 [M, m], whose product with co-fire counts is the mean co-fire proportions, up to rounding.

    They are 0 for concepts that do not count, and NaN for a model of which none does.
    """
    counts = np.zeros(firing.shape, bool)
    np.put_along_axis(counts, most_energetic(energy), True, axis=1)
    counts &= firing > 0
    each = np.divide(1.0, firing, out=np.zeros(firing.shape), where=counts)
    n = counts.sum(1, keepdims=True)
    return np.where(n > 0, each / np.maximum(n, 1), np.nan)


def mean_of_known(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN if all are."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def log_cofire_p_values(
    firing: np.ndarray, cofire: np.ndarray, n_tokens: int, expected: np.ndarray | None = None
) -> np.ndarray:
    """Return upper bounds of the log probability that independent firing gives so many co-fires or more, [...] for [M, ...].

    The null keeps the firing counts F_i, and every arrangement of a model's firing over the N tokens is as probable as any
    other. Given where model i fires, a co-fire at each of these F_i tokens has the probability q_i = prod_{j != i} F_j / N.
    These events are negatively associated (Joag-Dev and Proschan 1983), so that Chernoff's bound for F_i independent ones holds
    (Dubhashi and Ranjan 1998): P(C >= c) <= exp(-F_i KL(c / F_i || q_i)). It holds for each i, and the smallest is returned. It
    is 0 where c is not above what is expected, and NaN where a model never fires.

    `expected` are co-fires, [...], of a null in which they are no fewer; q_i is then at least their share of F_i.
    """
    firing, cofire = np.asarray(firing, float), np.asarray(cofire, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.log(firing / float(n_tokens))
        total = rates.sum(0)
        smallest = np.zeros(firing.shape[1:])
        for fires, rate in zip(firing, rates, strict=True):
            log_q = total - rate
            if expected is not None:
                log_q = np.maximum(log_q, np.minimum(np.log(expected / fires), 0))
            share = cofire / fires
            inside = share * (np.log(share) - log_q)
            outside = (1 - share) * (np.log1p(-share) - np.log(-np.expm1(log_q)))
            divergence = np.where(share > 0, inside, 0) + np.where(share < 1, outside, 0)
            smallest = np.minimum(smallest, np.where(share > np.exp(log_q), -fires * divergence, 0))
    return np.where(firing.min(0) > 0, smallest, np.nan)


def log_limit(n_tested: int, error_rate: float) -> float:
    """Return the log probability below which a concept co-fires above chance, one of so many that are tested (Bonferroni)."""
    return math.log(error_rate) - math.log(max(n_tested, 1))


def log_limit_of_draws(smallest: np.ndarray, error_rate: float) -> float:
    """Return the same limit from draws of the null, given the smallest log probability of all concepts in each, [n_draws].

    A concept passes if, counting itself among the draws, at most the share `error_rate` of them has a concept as unlikely as
    it (Westfall and Young's single step). Nothing passes, -inf, if there are fewer than 1 / error_rate - 1 draws.
    """
    allowed = math.floor(error_rate * (1 + len(smallest)) * (1 + 1e-12)) - 1
    return -math.inf if allowed < 0 else float(np.nextafter(np.sort(smallest)[allowed], -math.inf))
