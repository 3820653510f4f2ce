"""Baselines in which one half of the autoencoder stays random while the other half is trained.

On the usual scores such baselines come near trained autoencoders (Korznikov et al., arXiv 2602.14111), so a score that they
reach says nothing about what was learned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import numpy as np

from usae._core.autoencoder import Autoencoder
from usae._core.tensors import TRAINED
from usae._data.activations import Activations
from usae._data.chunks import rows_of
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis.baselines import before_training, train_in_orders
from usae.analysis.consistency import planned_steps

logger = logging.getLogger("usae")

SCALE_ROWS = 2048
"""Rows whose reconstruction determines the first size of codes."""

Half = Literal["dictionary", "encoder"]
HALVES: tuple[Half, ...] = ("dictionary", "encoder")


def train_frozen(
    sae: UniversalSAE,
    train: Mapping[str, Activations],
    half: Half,
    steps: int | None,
    progress: bool | None,
) -> UniversalSAE:
    """Train an autoencoder like `sae` whose dictionaries, or encoders but for a common factor, stay as they were drawn.

    Its initialisation is random, each model's by itself, and duplicate concepts are not merged, which would move rows.
    """
    logger.info("training with a frozen random %s", half)
    own = sae._initialized()
    initialization = "tied" if own.recipe.initialization == "data" else own.recipe.initialization
    control = before_training(sae, train, steps, own.seed, initialization=initialization, merge_cosine=None)
    autoencoder = control._initialized()
    names = ["dictionary"] if half == "dictionary" else [name for name in autoencoder.parameter_names() if name in TRAINED]
    if half == "encoder":
        names.remove("dictionary")
    if autoencoder.recipe.encoder == "linear":
        _give_codes_their_size(control, train)
    places = [(model, name) for model in range(len(autoencoder.names)) for name in names]
    drawn = dict(zip(places, autoencoder.read_all(places)[0], strict=True))

    def restore(autoencoder: Autoencoder) -> None:
        autoencoder.write_all(drawn if half == "dictionary" else drawn | _rescaled(autoencoder, drawn))

    orders = [own.seed] * len(train)
    train_in_orders(control, train, orders, planned_steps(sae, steps), progress, f"frozen {half}", restore)
    return control


def _give_codes_their_size(sae: UniversalSAE, train: Mapping[str, Activations]) -> None:
    """Scale random encoders so that the first reconstruction has the right norm, as that of the initialisation "data" has."""
    autoencoder = sae._initialized()
    for model, (name, x) in enumerate(train.items()):
        rows = rows_of(x, slice(0, min(SCALE_ROWS, x.n_tokens)))
        mean, scale = autoencoder.exact_mean(model), autoencoder.read(model, "scale").astype(float)
        token = (rows.astype(float) - mean) / scale
        found = (sae.decode(sae.encode(rows, name), name).astype(float) - mean) / scale
        product, square = float(np.vdot(token, found)), float(np.vdot(found, found))
        if product > 0 and square > 0:
            tensors = [(model, tensor) for tensor in ("encoder_weight", "encoder_bias")]
            values = autoencoder.read_all(tensors)[0]
            autoencoder.write_all(
                {place: value * np.float32(product / square) for place, value in zip(tensors, values, strict=True)}
            )


def _rescaled(autoencoder: Autoencoder, drawn: Mapping[tuple[int, str], np.ndarray]) -> dict[tuple[int, str], np.ndarray]:
    """Return what decides the size of codes, as it was drawn but for the common factor that training asks for.

    A factor for all concepts of a model does not change which are selected. Without it codes could not have the size that
    dictionary rows of norm at most 1 need. With BatchNorm it is that of its weights and biases, which undo any other.
    """
    suffixes = ("bn_weight", "bn_bias") if autoencoder.recipe.encoder == "batchnorm" else ("encoder_weight", "encoder_bias")
    result: dict[tuple[int, str], np.ndarray] = {}
    for model in range(len(autoencoder.names)):
        places = [(model, name) for name in suffixes]
        trained = autoencoder.read_all(places)[0]
        product = sum(float(np.vdot(drawn[place], now)) for place, now in zip(places, trained, strict=True))
        square = sum(float(np.vdot(drawn[place], drawn[place])) for place in places)
        factor = np.float32(max(product / square, 0)) if square > 0 else np.float32(1)
        result |= {place: drawn[place] * factor for place in places}
    return result
