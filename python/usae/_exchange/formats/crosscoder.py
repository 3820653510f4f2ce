"""The crosscoders of science-of-finetuning: ``config.json`` and ``model.safetensors`` of a BatchTopKCrossCoder.

Their encoder sums over models, with one bias. So an export has the encoder of one model, and the dictionaries of all.
"""

from __future__ import annotations

import pathlib

import numpy as np

from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32, lost_k, refuse_pair, whole_k
from usae.errors import CheckpointError, InvalidInputError

NAME = "crosscoder"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_NO_NORMALIZATION = 4  # the value of CodeNormalization.NONE
_OF_ACTIVATIONS = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")


def write(foreign: ForeignSAE, names: Names) -> Content:
    refuse_pair(names, NAME, "leave it out: all models are decoded")
    threshold = foreign.threshold()
    if foreign.thresholds is not None and threshold is None:
        raise InvalidInputError(
            "format must be one with a threshold for each concept, got 'crosscoder', which has one for all; 'saelens' has them"
        )
    if threshold is None:
        raise InvalidInputError(
            "format must be one with TopK for selection='topk', got 'crosscoder', which has BatchTopK; 'saelens' has TopK"
        )
    widths = {rows.shape[1] for rows in foreign.rows}
    if len(widths) > 1:
        of = {name: rows.shape[1] for name, rows in zip(names.decoded, foreign.rows, strict=True)}
        raise InvalidInputError(
            f"format must be another where widths differ, got 'crosscoder' for widths {of}; 'saelens' takes a target"
        )
    n_models, width = len(foreign.rows), widths.pop()
    index = names.decoded.index(names.model)
    config = {
        "activation_dim": width,
        "dict_size": foreign.n_concepts,
        "num_layers": n_models,
        "k": whole_k(foreign),
        "encoder_layers": [index],
        "num_decoder_layers": n_models,
        "init_with_transpose": False,
        "code_normalization": "NONE",
        "target_rms": 1.0,
    }
    nothing = np.full((n_models, width), np.nan, np.float32)  # activations are not normalised
    tensors = {
        "encoder.weight": as_float32(foreign.weight.T[None], "encoder"),
        "encoder.bias": as_float32(foreign.bias, "encoder's bias"),
        "decoder.weight": as_float32(np.stack(foreign.rows), "dictionary"),
        "decoder.bias": as_float32(np.stack(foreign.means), "mean"),
        "k": np.array(whole_k(foreign), np.int32),
        "threshold": np.array(threshold, np.float32),
        "code_normalization_id": np.array(_NO_NORMALIZATION, np.int64),
        "activation_mean": nothing,
        "activation_std": nothing.copy(),
        "activation_global_scale": np.ones(n_models, np.float32),
        "target_rms": np.array(1, np.float32),
    }
    loading = "dictionary_learning.dictionary.BatchTopKCrossCoder.from_pretrained({path}, from_hub=True)"
    lost = {"encoders": f"it encodes {names.model!r} alone; export the others to folders of their own"} | lost_k(foreign)
    return Content("BatchTopKCrossCoder", {CONFIG: config}, WEIGHTS, tensors, loading, lost)


def is_one(tensors: Tensors) -> bool:
    return "code_normalization_id" in tensors


def read(folder: pathlib.Path) -> ForeignSAE:
    fields = Fields(folder / CONFIG, json_of(folder / CONFIG))
    tensors = Tensors.of(folder / WEIGHTS)
    needed = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", "k", "threshold", "code_normalization_id")
    tensors.only(needed, _OF_ACTIVATIONS)
    if tensors.count("code_normalization_id") != _NO_NORMALIZATION:
        raise CheckpointError(f"{tensors.label}: code_normalization_id must be {_NO_NORMALIZATION}, NONE; use another")
    _check_no_statistics(tensors)
    layers = fields.content.get("encoder_layers")
    weight = tensors.floats("encoder.weight", None, None, None)
    if len(weight) != 1:
        raise CheckpointError(
            f"{tensors.label}: encoder.weight must be of one model, got a sum over {len(weight)}; usae encodes one at a time"
        )
    rows = tensors.floats("decoder.weight", None, weight.shape[2], weight.shape[1])
    if not (isinstance(layers, list) and len(layers) == 1 and isinstance(layers[0], int) and 0 <= layers[0] < len(rows)):
        layers = [0] if len(rows) == 1 else None
    if layers is None:
        raise fields.error("encoder_layers", f"the number of one of {len(rows)} models")
    bias, means = tensors.floats("encoder.bias", weight.shape[2]), tensors.floats("decoder.bias", *rows.shape[::2])
    thresholds = np.full(len(bias), float(tensors.floats("threshold")))
    return ForeignSAE(weight[0].T, bias, tuple(rows), tuple(means), layers[0], tensors.mean_count("k"), thresholds)


def _check_no_statistics(tensors: Tensors) -> None:
    """Refuse statistics with which activations are normalised; NaN is none."""
    for key in _OF_ACTIVATIONS[:2]:
        if key in tensors and not tensors.is_nan(key):
            raise CheckpointError(f"{tensors.label}: {key} normalises activations; fold it into the weights, and save that")
