"""Names for concepts that embeddings of images and words propose, such as those of CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from usae._base import checks
from usae.analysis.embeddings import matrix, of_images, unit
from usae.analysis.image_samples import Ranked
from usae.errors import InvalidInputError

PROPOSED = 3
"""Names that a concept gets."""


def as_embeddings(embeddings: object, vocabulary: object, n_images: int) -> tuple[np.ndarray, list[str], np.ndarray] | None:
    """Check the arguments `embeddings` and `vocabulary`. Returns both as unit vectors about their mean, with the words."""
    if embeddings is None and vocabulary is None:
        return None
    if embeddings is None or vocabulary is None:
        got = "no embeddings" if embeddings is None else "no vocabulary"
        raise InvalidInputError(f"embeddings must be given together with vocabulary, got {got}; give both, of one CLIP")
    images = of_images(embeddings, n_images)
    if not isinstance(vocabulary, Mapping) or not vocabulary or not all(isinstance(word, str) for word in vocabulary):
        raise InvalidInputError(
            f"vocabulary must be a mapping from words to embeddings [{images.shape[1]}], got {checks.shown(vocabulary)}"
        )
    words = matrix(list(vocabulary.values()))
    if words is None or words.shape[1] != images.shape[1]:
        raise InvalidInputError(
            f"vocabulary must have finite embeddings [{images.shape[1]}], as wide as those of images, got "
            f"{checks.array_shown(list(vocabulary.values()) if words is None else words)}"
        )
    return images, [str(word) for word in vocabulary], _centred(words)


def proposed(top: Sequence[Ranked], images: np.ndarray, words: Sequence[str], of_words: np.ndarray) -> list[list[list[object]]]:
    """Return for each concept up to `PROPOSED` [word, score], the best first.

    The score is the cosine of a word with the mean of the embeddings of the concept's strongest images in every model, each
    counted by its code as a share of the largest. Both are taken relative to the mean of all images, and of all words.
    """
    n_concepts = len(top[0].images)
    means = np.zeros((n_concepts, images.shape[1]))
    for ranked in top:
        weight = np.where(ranked.images >= 0, ranked.scores / np.maximum(ranked.scores[:, :1], 1e-12), 0)
        for place in range(weight.shape[1]):
            means += weight[:, place, None] * images[ranked.images[:, place]]
    alive = np.linalg.norm(means, axis=1) > 0
    scores = unit(means) @ of_words.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :PROPOSED]
    return [
        [[words[i], round(float(scores[concept, i]), 3)] for i in best[concept]] if alive[concept] else []
        for concept in range(n_concepts)
    ]


def _centred(rows: np.ndarray) -> np.ndarray:
    units = unit(rows)
    return unit(units - units.mean(0)) if len(rows) > 2 else units
