"""Where in images concepts fire: how smooth these maps are, and how much of an image they take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class FiringMaps(NamedTuple):
    """Measures of the map of a concept's code over an image, for each pair of an image and a concept that fires in it.

    Pairs are sorted by image, then by concept.
    """

    images: np.ndarray
    """Places of the images in what was given, int64 [pairs]."""
    concepts: np.ndarray
    """Numbers of the concepts, int64 [pairs]."""
    coherence: np.ndarray
    """Moran's I, float64 [pairs]; NaN without a grid, and for a map that is the same everywhere or of one token."""
    area: np.ndarray
    """Share of the image's tokens in which the concept fires, float64 [pairs]."""


def firing_maps(
    values: np.ndarray,
    concepts: np.ndarray,
    n_concepts: int,
    grid: tuple[int, int] | None,
    *,
    threshold: float = 0.0,
    counts: np.ndarray | None = None,
) -> FiringMaps:
    """Measure the maps of codes of some images, [images, tokens, slots].

    Moran's I of a map x of n tokens with mean u is n / E * sum of (x_i - u) (x_j - u) over the E pairs of tokens beside or
    below each other, divided by the sum of (x_i - u)^2: 1 is smooth, about 0 scattered. A token in which the concept does not
    fire is 0. Nothing of the size of tokens times concepts is made: tokens that do not fire come in by their number alone.

    Parameters
    ----------
    values, concepts : ndarray
        Codes and numbers of their concepts. A slot whose value is not above the threshold does not fire.
    n_concepts : int
    grid : (int, int) or None
        Rows and columns of the tokens.
    threshold : float
        A concept fires if its code is larger. Default: 0.
    counts : ndarray of bool, [images, tokens], optional
        Tokens that count. Others are not part of a map. Default: None, for all.
    """
    n_images, places, _ = values.shape
    there = np.ones((n_images, places), bool) if counts is None else counts
    image, place, slot = np.nonzero((values > threshold) & there[..., None])
    key = (image * n_concepts + concepts[image, place, slot]) * places + place  # of one token, concepts differ
    order = np.argsort(key)
    key, x = key[order], values[image[order], place[order], slot[order]].astype(np.float64)
    pair, place = np.divmod(key, places)
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    images, of_pair = np.divmod(pair[first], n_concepts)
    fires = np.diff(first, append=len(pair))
    n = there.sum(1)[images]
    if grid is None or not len(first):
        return FiringMaps(images, of_pair, np.full(len(first), np.nan), fires / n)
    coherence = _morans_i(key, x, place, first, fires, n, images, there.reshape(n_images, *grid))
    return FiringMaps(images, of_pair, coherence, fires / n)


def _morans_i(
    key: np.ndarray,
    x: np.ndarray,
    place: np.ndarray,
    first: np.ndarray,
    fires: np.ndarray,
    n: np.ndarray,
    images: np.ndarray,
    there: np.ndarray,
) -> np.ndarray:
    """Moran's I of each pair, whose entries begin at `first`. `there`, [images, rows, columns], are tokens that count.

    With y = x - u where the concept fires, and -u elsewhere, sums over pairs of neighbours fall into those with both, one and
    none of them firing. So no large numbers cancel where a map is almost the same everywhere.
    """
    _, rows, columns = there.shape
    pairs = len(first)
    edges, neighbours = _neighbours(there)
    of = np.repeat(np.arange(pairs), fires)
    mean = np.add.reduceat(x, first) / n
    y = x - mean[of]
    squares = np.add.reduceat(y**2, first) + (n - fires) * mean**2
    degree = neighbours[images[of], place]
    one = np.add.reduceat(degree * y, first)
    touching = np.add.reduceat(degree, first)
    both, products, sums = np.zeros(pairs, np.int64), np.zeros(pairs), np.zeros(pairs)
    beside = np.flatnonzero((key[1:] == key[:-1] + 1) & (place[:-1] % columns != columns - 1))
    below = np.minimum(np.searchsorted(key, key + columns), len(key) - 1)
    above = np.flatnonzero((key[below] == key + columns) & (place < (rows - 1) * columns))
    for a, b in ((beside, beside + 1), (above, below[above])):
        both += np.bincount(of[a], minlength=pairs)
        products += np.bincount(of[a], y[a] * y[b], pairs)
        sums += np.bincount(of[a], y[a] + y[b], pairs)
    total = products - mean * (one - sums) + mean**2 * (edges[images] - touching + both)
    same = (fires == n) & (np.maximum.reduceat(x, first) == np.minimum.reduceat(x, first))
    known = (edges[images] > 0) & ~same
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, n / edges[images] * total / squares, np.nan)


def _neighbours(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of neighbours of each image, [images], and the neighbours of each token, [images, tokens]."""
    degree = np.zeros(there.shape, np.int64)
    beside, below = there[:, :, 1:] & there[:, :, :-1], there[:, 1:] & there[:, :-1]
    degree[:, :, 1:] += beside
    degree[:, :, :-1] += beside
    degree[:, 1:] += below
    degree[:, :-1] += below
    return beside.sum((1, 2)) + below.sum((1, 2)), degree.reshape(len(there), -1)
