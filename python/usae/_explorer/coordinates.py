"""Places of concepts on the map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usae._base import checks
from usae.errors import InvalidInputError

METHODS = ("pca", "tsne")


def as_method(coordinates: object, n_concepts: int) -> str | np.ndarray:
    """Check the argument `coordinates`."""
    if isinstance(coordinates, str):
        return checks.choice(coordinates, "coordinates", METHODS)
    try:
        places = np.asarray(coordinates, np.float64)
    except (TypeError, ValueError):
        places = np.empty(0)
    if places.shape != (n_concepts, 2) or not np.isfinite(places).all():
        raise InvalidInputError(
            f'coordinates must be "pca", "tsne" or finite numbers [{n_concepts}, 2], got {checks.array_shown(coordinates)}'
        )
    return places


def placed(method: str | np.ndarray, units: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Return float32 [m, 2] from 0 to 1, of dictionary rows of norm 1 of all models side by side."""
    if isinstance(method, np.ndarray):
        return _scaled(method / 4)  # so that the difference of two does not overflow
    rows = np.concatenate(units, 1) / np.sqrt(len(units))
    components = _principal(rows, 2 if method == "pca" else min(50, *rows.shape))
    if method == "pca" or len(rows) < 5:
        return _scaled(_spread(components[:, :2]))
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError("coordinates='tsne' needs scikit-learn, which is missing; run: pip install 'usae[tsne]'") from error
    perplexity = min(30.0, (len(rows) - 1) / 3)
    return _scaled(TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(components))


def _principal(rows: np.ndarray, n: int) -> np.ndarray:
    """Principal components of rows, [m, n], each with its largest entry positive."""
    centred = np.asarray(rows - rows.mean(0), np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    chosen = vectors[:, np.argsort(-values, kind="stable")[:n]]
    found = centred @ chosen
    return np.pad(found * np.where(_largest(found) < 0, -1, 1), ((0, 0), (0, max(0, 2 - found.shape[1]))))


def _largest(components: np.ndarray) -> np.ndarray:
    return components[np.abs(components).argmax(0), np.arange(components.shape[1])]


def _spread(places: np.ndarray) -> np.ndarray:
    """Replace coordinates by their ranks, half way: principal components crowd at the centre."""
    ranks = np.argsort(np.argsort(places, axis=0, kind="stable"), axis=0) / max(1, len(places) - 1)
    return (_scaled(places) + ranks) / 2


def _scaled(places: np.ndarray) -> np.ndarray:
    low, high = places.min(0), places.max(0)
    return ((places - low) / np.where(high > low, high - low, 1)).astype(np.float32)
