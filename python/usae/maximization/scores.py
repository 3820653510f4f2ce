"""Scores of an optimised image: how strongly a model fires the concept on it."""

from __future__ import annotations

import dataclasses

import numpy as np

from usae._estimator.codes import Codes
from usae._estimator.universal_sae import UniversalSAE
from usae.maximization.image_models import ImageModel
from usae.maximization.maximizer import resized
from usae.maximization.result import Firing


@dataclasses.dataclass(frozen=True)
class ConceptScores:
    """Scores of a concept in one model on one image, or on boxes of it together. `Firing` describes the first four."""

    share: float
    peak: float
    rank: float
    of_code: float
    r2: float
    """R2 of the autoencoder's reconstruction of these activations, relative to the mean of its training data."""


def score_image(
    sae: UniversalSAE,
    concept: int,
    model: ImageModel,
    name: str,
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    batch_size: int = 16,
) -> ConceptScores:
    """Score an image, [3, height, width] in 0..1, or boxes of it, [n, 4], after resizing to the model's input."""
    views = resized(image, model, boxes)
    starts = range(0, len(views), batch_size)
    activations = np.concatenate([_activations(model, views[start : start + batch_size]) for start in starts])
    tokens = activations.reshape(-1, activations.shape[-1])
    codes = sae.encode(tokens, name)
    here = (codes.indices == concept) & (codes.values > 0)
    mean_code = _mean_code(codes)
    total = mean_code.sum()
    autoencoder = sae._initialized()
    mean = autoencoder.read(autoencoder.index(name), "mean")  # sae.parameters(name) would copy the whole dictionary too
    about_mean = np.square(tokens - mean, dtype=np.float64).sum()
    error = np.square(tokens - sae.decode(codes, name), dtype=np.float64).sum()
    return ConceptScores(
        share=float(here.any(1).mean()),
        peak=float(codes.values[here].max(initial=0)),
        rank=float(np.nonzero(here)[1].mean() + 1) if here.any() else float("nan"),
        of_code=float(mean_code[concept] / total) if total > 0 else 0.0,
        r2=float(1 - error / about_mean) if about_mean > 0 else float("nan"),
    )


def _activations(model: ImageModel, views: np.ndarray) -> np.ndarray:
    """Return activations. A model that can be called is called, because `vjp` builds a graph."""
    found = model(views) if callable(model) else model.vjp(views)[0]
    return np.asarray(found, np.float32)


def _mean_code(codes: Codes) -> np.ndarray:
    used = codes.indices >= 0
    sums = np.bincount(codes.indices[used], weights=codes.values[used], minlength=codes.n_concepts)
    return sums / len(codes)


def as_firing(scores: list[list[ConceptScores]]) -> Firing:
    """Collect scores by image and model."""
    fields = ("share", "peak", "rank", "of_code")
    return Firing(**{name: np.array([[getattr(score, name) for score in row] for row in scores]) for name in fields})


def peak_ratio(peaks: list[float]) -> float:
    """Return the smallest peak divided by the largest. NaN if there is only one, or if none is above 0."""
    return min(peaks) / max(peaks) if len(peaks) > 1 and max(peaks) > 0 else float("nan")
