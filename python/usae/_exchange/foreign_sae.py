"""A sparse autoencoder as other libraries have it: what exports are written from, and what imports are made of."""

from __future__ import annotations

import dataclasses

import numpy as np

from usae._core.autoencoder import Autoencoder
from usae._core.dictionary_rows import used_rows
from usae._core.tensors import BATCHNORM_EPSILON
from usae.errors import InvalidInputError

ROUNDING = 1e-6
"""How much norms that are equal differ, as a share, because dictionaries are float32."""


@dataclasses.dataclass(frozen=True)
class ForeignSAE:
    """One encoder with one or more decoders, which take and give activations in own units: p = W x + b, x_j = z D_j + m_j.

    Nothing is subtracted from x first; `bias_after` has the bias for libraries that subtract one. Arrays are float64.
    """

    weight: np.ndarray
    """W, [n_concepts, width]."""
    bias: np.ndarray
    """b, [n_concepts]."""
    rows: tuple[np.ndarray, ...]
    """D_j of each decoder, [n_concepts, width of j]."""
    means: tuple[np.ndarray, ...]
    """m_j of each decoder, [width of j]."""
    source: int | None
    """Which decoder is of the model that is encoded. None: there is none, as in a transcoder."""
    k: float | None = None
    """Pre-activations that are kept of each token: the largest. With thresholds, what training keeps on average, which may be
    fractional."""
    thresholds: np.ndarray | None = None
    """Pre-activations have to be larger than these, [n_concepts]. None: selection is TopK."""
    k_max: int | None = None
    """The most concepts of a token, with thresholds. None: any number."""
    by_norms: bool = False
    """Whether selection and codes are of pre-activations times the norms of dictionary rows."""

    @property
    def n_concepts(self) -> int:
        return len(self.bias)

    def bias_after(self, subtracted: np.ndarray) -> np.ndarray:
        """Return the bias for encoders that subtract this, [width], from x first."""
        return self.bias + self.weight @ subtracted

    def threshold(self) -> float | None:
        """Return the threshold of all concepts, or None where they differ."""
        if self.thresholds is None or np.ptp(self.thresholds) > 0:
            return None
        return float(self.thresholds[0])


def folded(autoencoder: Autoencoder, model: str, targets: tuple[str, ...], *, standardized: bool = False) -> ForeignSAE:
    """Fold standardisation and BatchNorm into the weights of a model's encoder and of the targets' dictionaries.

    With `standardized`, tokens and not activations are encoded and decoded. docs/exchange.md has the formulas.
    """
    own = {name: _wide(autoencoder, name) for name in {model, *targets}}
    encoder = own[model]
    weight, bias = encoder["encoder_weight"], encoder["encoder_bias"]
    if "bn_weight" in encoder:
        gain = encoder["bn_weight"] / np.sqrt(encoder["bn_running_var"] + BATCHNORM_EPSILON)
        weight, bias = gain[:, None] * weight, (bias - encoder["bn_running_mean"]) * gain + encoder["bn_bias"]
    if not standardized:
        weight = weight / encoder["scale"]
        bias = bias - weight @ encoder["mean"]
    rows, means = [], []
    for name in targets:
        dictionary = own[name]["dictionary"]
        used = used_rows(dictionary, autoencoder.recipe)
        rows.append(used if standardized else used * own[name]["scale"])
        means.append(np.zeros(used.shape[1]) if standardized else own[name]["mean"])
    # Before an encoder's first step its threshold is 0, and codes are the k largest.
    by_threshold = "threshold" in encoder and bool(encoder["threshold"][0] > 0)
    return ForeignSAE(
        weight,
        bias,
        tuple(rows),
        tuple(means),
        targets.index(model) if model in targets else None,
        autoencoder.k if by_threshold else autoencoder.whole_k,
        encoder["threshold"] + encoder.get("threshold_rest", np.zeros(len(bias))) if by_threshold else None,
        autoencoder.core.slots if by_threshold else None,
    )


def has_unit_rows(foreign: ForeignSAE) -> bool:
    """Whether the rows of the only decoder have norm 1 already, but for rounding and rows of zeros."""
    norms = np.linalg.norm(foreign.rows[0], axis=1)
    return bool((np.abs(norms - 1) <= ROUNDING)[norms > 0].all())


def with_unit_rows(foreign: ForeignSAE) -> ForeignSAE:
    """Move the norms of the rows of the only decoder into the encoder and the thresholds; rows of zeros stay.

    Raises
    ------
    InvalidInputError
        If that would change which concepts TopK takes, because norms differ.
    """
    (rows,) = foreign.rows
    norms = np.linalg.norm(rows, axis=1)
    norms = np.where(norms > 0, norms, 1)
    if foreign.thresholds is None and spread(norms) > ROUNDING:
        raise InvalidInputError(
            f"unit_rows must be False for a model with a scale for each dimension and TopK, got True; dictionary rows in own "
            f"units have norms from {norms.min():.3g} to {norms.max():.3g}, so that TopK would compare other numbers"
        )
    thresholds = None
    if foreign.thresholds is not None:
        thresholds = foreign.thresholds * (np.median(norms) if spread(norms) <= ROUNDING else norms)
    return dataclasses.replace(
        foreign,
        weight=foreign.weight * norms[:, None],
        bias=foreign.bias * norms,
        rows=(rows / norms[:, None],),
        thresholds=thresholds,
    )


def spread(norms: np.ndarray) -> float:
    """Return how much numbers above 0 differ: the largest distance from their median, as a share of it."""
    middle = float(np.median(norms))
    return float(np.abs(norms - middle).max() / middle)


def _wide(autoencoder: Autoencoder, name: str) -> dict[str, np.ndarray]:
    return {key: value.astype(np.float64) for key, value in autoencoder.parameters(name).items()}
