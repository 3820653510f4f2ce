"""The numbers of `usae.Evaluation`, from activations in memory or in a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from usae._base.progress import follower, row_bar
from usae._core.autoencoder import Autoencoder
from usae._core.merged_evaluations import MergedEvaluations
from usae._data.activations import Activations, are_stored
from usae._data.chunks import CHUNK, chunks
from usae._data.read_ahead import ReadAhead

PART = 2 * CHUNK
"""Rows of a store that are evaluated at once. A store with at most this many rows gives the same bits as arrays."""


def evaluate(
    autoencoder: Autoencoder, acts: Mapping[str, Activations], threshold: float, progress: bool | None
) -> dict[str, np.ndarray]:
    """Return the arrays of an `Evaluation`, by field. For a store, counts are exact and floats are equal up to rounding.

    `progress` is that of `progress_bar`, for more rows than a part has.
    """
    n_tokens = next(iter(acts.values())).n_tokens
    if not are_stored(acts):
        with row_bar(n_tokens, progress, "evaluating", PART) as bar:
            return _of_arrays(autoencoder, acts, threshold, follower(bar))
    together = MergedEvaluations(autoencoder)
    with ReadAhead(_parts(acts, n_tokens)) as parts, row_bar(n_tokens, progress, "evaluating", PART) as bar:
        for part in parts:
            numbers = _of_arrays(autoencoder, part, threshold)
            if n_tokens <= PART:
                return numbers
            together.add(part, numbers)
            bar.update(next(iter(part.values())).n_tokens)
    return together.result()


def _parts(acts: Mapping[str, Activations], n_tokens: int) -> Iterator[dict[str, Activations]]:
    for rows in chunks(n_tokens, size=PART):
        yield {name: x.part(rows) for name, x in acts.items()}


def _of_arrays(
    autoencoder: Autoencoder, acts: Mapping[str, Activations], threshold: float, told: Callable[[int], None] | None = None
) -> dict[str, np.ndarray]:
    n_models, n_concepts = len(autoencoder.names), autoencoder.n_concepts
    pairs, concepts = (n_models, n_models), (n_models, n_concepts)
    numbers: dict[str, np.ndarray] = {
        "r2": np.empty(pairs),
        "r2_standardized": np.empty(pairs),
        "r2_scalar_mean": np.empty(pairs),
        "mse": np.empty(pairs),
        "l0": np.empty(n_models),
        "firing_counts": np.empty(concepts, np.int64),
        "pair_cofire_counts": np.empty((*pairs, n_concepts), np.int64),
        "cofire_counts": np.empty(n_concepts, np.int64),
        "union_counts": np.empty(n_concepts, np.int64),
        "mean_activation": np.empty(concepts),
        "max_activation": np.empty(concepts, np.float32),
        "code_products": np.empty((*pairs, n_concepts)),
    }
    autoencoder.core.evaluate([x.native for x in acts.values()], threshold, numbers, told)
    return numbers
