"""The tensors of a model, by the names that they have in Python and in files."""

from __future__ import annotations

import numpy as np

from usae import _usae

Tensors = dict[str, np.ndarray]

PARAMETERS = {
    "mean": _usae.MEAN,
    "mean_rest": _usae.MEAN_REST,
    "scale": _usae.SCALE,
    "encoder_weight": _usae.ENCODER_WEIGHT,
    "encoder_bias": _usae.ENCODER_BIAS,
    "bn_weight": _usae.BN_WEIGHT,
    "bn_bias": _usae.BN_BIAS,
    "bn_running_mean": _usae.BN_RUNNING_MEAN,
    "bn_running_var": _usae.BN_RUNNING_VAR,
    "dictionary": _usae.DICTIONARY,
    "threshold": _usae.THRESHOLD,
    "threshold_rest": _usae.THRESHOLD_REST,
}
TRAINED = ("encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary")
EFFECTIVE_DIMENSIONS = "effective_dimensions"
BATCHNORM_EPSILON = 1e-5
"""What the core adds to variances."""

RESTS = ("mean_rest", "threshold_rest")
"""Parameters that are 0 in most autoencoders: then they are not listed, and not saved."""

OF_COLUMNS = ("mean", "mean_rest", "scale", "encoder_weight", "dictionary")
"""Those whose last dimension is a model's columns."""

INTEGERS = {"silent_tokens": _usae.SILENT_TOKENS, "counters": _usae.COUNTERS}


def is_finite(name: str, values: np.ndarray) -> bool:
    """Whether a tensor is one that training can continue from.

    A second moment is infinite if a gradient was 1e19 or more; then its parameter trains no more.
    """
    return bool(np.isfinite(values).all()) or (name.endswith("_second_moment") and not np.isnan(values).any())


TENSORS = (
    PARAMETERS
    | {f"{name}_first_moment": PARAMETERS[name] + _usae.FIRST_MOMENT for name in TRAINED}
    | {f"{name}_second_moment": PARAMETERS[name] + _usae.SECOND_MOMENT for name in TRAINED}
    | {f"{name}_gradient": PARAMETERS[name] + _usae.GRADIENT for name in TRAINED}
    | INTEGERS
    | {EFFECTIVE_DIMENSIONS: _usae.EFFECTIVE_DIMENSIONS}
)
"""The core's number of each tensor of a model, by the name it has in Python and in files."""
