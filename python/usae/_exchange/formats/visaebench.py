"""VISAEBench (0.1): ``config.json`` and ``model.safetensors``, or ``sae.pt``."""

from __future__ import annotations

import pathlib

import numpy as np

from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32, lost_k, refuse_pair, whole_k
from usae.errors import CheckpointError

NAME = "visaebench"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_OF_OVERCOMPLETE = {
    "encoder.final_block.0.weight": "encoder.weight",
    "encoder.final_block.0.bias": "encoder.bias",
    "dictionary._weights": "decoder.weight",
}
_DEFAULT_THRESHOLD = 0.01  # of a JumpReLU whose file has none


def write(foreign: ForeignSAE, names: Names) -> Content:
    refuse_pair(names, NAME, "'saelens' (thresholds) and 'sparsify' (TopK) have transcoders")
    (rows,), (mean,) = foreign.rows, foreign.means
    config = {
        "activation": "topk" if foreign.thresholds is None else "jumprelu",
        "input_dim": foreign.weight.shape[1],
        "hidden_dim": foreign.n_concepts,
        "k": whole_k(foreign),
    }
    tensors = {
        "encoder.weight": as_float32(foreign.weight, "encoder"),
        "encoder.bias": as_float32(foreign.bias, "encoder's bias"),
        "decoder.weight": as_float32(rows, "dictionary"),
        "decoder.bias": as_float32(mean, "mean"),
    }
    if foreign.thresholds is not None:  # its JumpReLU compares with >, as usae does, and its BatchTopK with >=
        tensors["jump_thresholds"] = as_float32(foreign.thresholds, "threshold")
    loading = 'visaebench.hub.load_sae({path}, device="cpu")  # visaebench.evaluate(..., mean=0.0, std=1.0)'
    return Content(str(config["activation"]), {CONFIG: config}, WEIGHTS, tensors, loading, lost_k(foreign))


def read(folder: pathlib.Path) -> ForeignSAE:
    fields = Fields(folder / CONFIG, json_of(folder / CONFIG))
    weights = next((folder / name for name in (WEIGHTS, "sae.pt", "model.pt") if (folder / name).exists()), folder / WEIGHTS)
    tensors = Tensors.of(weights)
    activation = fields.text("activation", fields.text("sae_type", "topk")).lower()
    extra = ("jump_thresholds", "thresholds", "_running_threshold")
    factor = 1.0
    if "encoder.final_block.0.weight" in tensors:  # the names of overcomplete, whose rows are taken as they are
        factor = float(np.exp(tensors.floats("dictionary.multiplier"))) if "dictionary.multiplier" in tensors else 1.0
        tensors = tensors.renamed(_OF_OVERCOMPLETE, without=("dictionary.multiplier",))
    tensors.only(("encoder.weight", "encoder.bias", "decoder.weight"), ("decoder.bias", *extra))
    weight = tensors.floats("encoder.weight", None, None)
    n, width = weight.shape
    bias, rows = tensors.floats("encoder.bias", n), tensors.floats("decoder.weight", n, width) * factor
    mean = tensors.floats("decoder.bias", width) if "decoder.bias" in tensors else np.zeros(width)
    k: float | None = None
    thresholds = None
    if activation == "topk":
        k = fields.integer("k")
    elif activation == "jumprelu":
        key = next((key for key in extra[:2] if key in tensors), None)
        thresholds = np.full(n, _DEFAULT_THRESHOLD) if key is None else tensors.floats(key, n)
    elif activation == "batchtopk":
        thresholds = np.full(n, _below(_threshold(fields, tensors)))
        k = fields.mean_count("k") if "k" in fields.content else None
    else:
        raise fields.unusable("activation", "usae can represent topk, batchtopk and jumprelu")
    return ForeignSAE(weight, bias, (rows,), (mean,), 0, k, thresholds)


def _threshold(fields: Fields, tensors: Tensors) -> float:
    if fields.content.get("threshold") is not None:
        return fields.number("threshold")
    if "_running_threshold" in tensors:
        return float(tensors.floats("_running_threshold"))
    raise CheckpointError(
        f"{fields.file}: threshold must be a number, as activation is batchtopk, got none; copy its config.json again"
    )


def _below(threshold: float) -> float:
    """Return the threshold t' with which p > t' says the same as p >= t."""
    return float(np.nextafter(np.float32(threshold), np.float32(0))) if threshold > 0 else 0.0
