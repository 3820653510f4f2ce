"""overcomplete (0.3): the state_dict of a TopKSAE, with what the library does not keep beside it."""

from __future__ import annotations

import math
import pathlib

import numpy as np

from usae._core.tensors import BATCHNORM_EPSILON
from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32, refuse_pair, refuse_short_rows, refuse_threshold
from usae.errors import CheckpointError

NAME = "overcomplete"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_WEIGHT, _BIAS, _ROWS, _MULTIPLIER = (
    "encoder.final_block.0.weight", "encoder.final_block.0.bias", "dictionary._weights", "dictionary.multiplier",
)  # fmt: skip
_NORM = ("weight", "bias", "running_mean", "running_var")


def write(foreign: ForeignSAE, names: Names) -> Content:
    refuse_threshold(
        foreign, NAME, "its BatchTopK has no threshold in a state_dict; 'saelens', 'visaebench' and 'dictionary_learning' have"
    )
    refuse_pair(names, NAME, "'sparsify' has transcoders with TopK")
    (rows,) = foreign.rows
    refuse_short_rows(foreign, NAME)
    config = {
        "class": "TopKSAE",
        "input_shape": foreign.weight.shape[1],
        "nb_concepts": foreign.n_concepts,
        "top_k": foreign.k,
        "encoder_module": "linear",
    }
    tensors = {
        _WEIGHT: as_float32(foreign.weight, "encoder"),
        _BIAS: as_float32(foreign.bias, "encoder's bias"),
        _ROWS: as_float32(rows, "dictionary"),
        _MULTIPLIER: np.array(0, np.float32),
    }
    loading = (
        f"sae = overcomplete.sae.TopKSAE({config['input_shape']}, {config['nb_concepts']}, top_k={config['top_k']}); "
        "sae.load_state_dict(safetensors.torch.load_file({path} + '/model.safetensors')); sae.eval()"
    )
    lost = {"mean": "it has no bias in its decoder: give it (x - mean) / scale, and map what it decodes back"}
    return Content("TopKSAE", {CONFIG: config}, WEIGHTS, tensors, loading, lost)


def is_one(tensors: Tensors) -> bool:
    return _ROWS in tensors


def read(folder: pathlib.Path, k: float | None) -> ForeignSAE:
    if k is None and (folder / CONFIG).exists():
        k = Fields(folder / CONFIG, json_of(folder / CONFIG)).integer("top_k")
    return of_state(Tensors.of(folder / WEIGHTS), k)


def of_state(tensors: Tensors, k: float | None) -> ForeignSAE:
    """Read a state_dict. Of a JumpSAE it has thresholds; of a TopKSAE it does not have k."""
    norm = [f"encoder.final_block.1.{name}" for name in _NORM]
    has_norm = norm[2] in tensors
    allowed = (_MULTIPLIER, "thresholds", *((*norm, "encoder.final_block.1.num_batches_tracked") if has_norm else ()))
    tensors.only((_WEIGHT, _BIAS, _ROWS, *(norm if has_norm else ())), allowed)
    weight = tensors.floats(_WEIGHT, None, None)
    n, width = weight.shape
    bias, rows = tensors.floats(_BIAS, n), tensors.floats(_ROWS, n, width)
    if has_norm:
        scale, shift, mean, variance = (tensors.floats(name, n) for name in norm)
        if (variance < 0).any():
            raise CheckpointError(f"{tensors.label}: {norm[3]} must be 0 or more, got negative numbers; save it again")
        gain = scale / np.sqrt(variance + BATCHNORM_EPSILON)
        weight, bias = gain[:, None] * weight, (bias - mean) * gain + shift
    rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8)
    if _MULTIPLIER in tensors:
        logarithm = float(tensors.floats(_MULTIPLIER))
        if abs(logarithm) > 80:
            raise CheckpointError(f"{tensors.label}: {_MULTIPLIER} must be from -80 to 80, got {logarithm}; save it again")
        rows = rows * math.exp(logarithm)
    means = (np.zeros(width),)
    if "thresholds" in tensors:
        with np.errstate(over="ignore"):
            thresholds = np.exp(tensors.floats("thresholds", n))
        return ForeignSAE(weight, bias, (rows,), means, 0, k, thresholds)
    if k is None:
        raise CheckpointError(f"{tensors.label}: the number of active concepts is not in a state_dict of overcomplete; give k=")
    return ForeignSAE(weight, bias, (rows,), means, 0, k)
