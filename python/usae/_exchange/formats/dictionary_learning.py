"""dictionary_learning (0.1): ``config.json`` and ``ae.pt``, or a state_dict alone."""

from __future__ import annotations

import pathlib

import numpy as np

from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32, lost_k, refuse_pair, whole_k
from usae.errors import CheckpointError

NAME = "dictionary_learning"
CONFIG = "config.json"
WEIGHTS = "ae.pt"

_TRAINERS = {"AutoEncoderTopK": "TopKTrainer", "BatchTopKSAE": "BatchTopKTrainer", "JumpReluAutoEncoder": "JumpReluTrainer"}
_CLASSES = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")


def write(foreign: ForeignSAE, names: Names) -> Content:
    refuse_pair(names, NAME, "'saelens' (thresholds) and 'sparsify' (TopK) have transcoders")
    (rows,), (mean,) = foreign.rows, foreign.means
    threshold = foreign.threshold()
    if foreign.thresholds is not None and threshold is None:
        cls = "JumpReluAutoEncoder"
        tensors = {
            "W_enc": as_float32(foreign.weight.T, "encoder"),
            "b_enc": as_float32(foreign.bias, "encoder's bias"),
            "W_dec": as_float32(rows, "dictionary"),
            "b_dec": as_float32(mean, "mean"),
            "threshold": as_float32(foreign.thresholds, "threshold"),
        }
    else:
        cls = "AutoEncoderTopK" if threshold is None else "BatchTopKSAE"
        tensors = {
            "encoder.weight": as_float32(foreign.weight, "encoder"),
            "encoder.bias": as_float32(foreign.bias_after(mean), "encoder's bias"),
            "decoder.weight": as_float32(rows.T, "dictionary"),
            "b_dec": as_float32(mean, "mean"),
            "k": np.array(whole_k(foreign), np.int32),
            "threshold": np.array(-1.0 if threshold is None else threshold, np.float32),
        }
    trainer = {
        "trainer_class": _TRAINERS[cls],
        "dict_class": cls,
        "activation_dim": foreign.weight.shape[1],
        "dict_size": foreign.n_concepts,
        "k": whole_k(foreign),
        "lm_name": names.model,
    }
    loading = 'dictionary_learning.utils.load_dictionary({path}, device="cpu")'
    return Content(cls, {CONFIG: {"trainer": trainer, "buffer": {}}}, WEIGHTS, tensors, loading, lost_k(foreign))


def read(folder: pathlib.Path) -> ForeignSAE:
    """Read a folder that a training of the library wrote."""
    config = Fields(folder / CONFIG, json_of(folder / CONFIG))
    trainer = config.content.get("trainer")
    if not isinstance(trainer, dict):
        raise config.error("trainer", "an object with dict_class")
    fields = Fields(folder / CONFIG, trainer)
    cls = fields.text("dict_class")
    if cls not in _CLASSES:
        raise fields.unusable("dict_class", f"usae can represent {', '.join(_CLASSES)}")
    return of_state(Tensors.of(folder / WEIGHTS), cls, _k(fields, cls) if "k" in trainer else None)


def _k(fields: Fields, cls: str) -> float:
    return fields.integer("k") if cls == "AutoEncoderTopK" else fields.mean_count("k")


def of_state(tensors: Tensors, cls: str | None = None, k: float | None = None) -> ForeignSAE:
    """Read a state_dict. Without the class it is what the names of its tensors say."""
    cls = cls or _class_of(tensors)
    if cls in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        tensors.only(("W_enc", "b_enc", "W_dec", "b_dec", "threshold"), ("k", "group_sizes"))
        weight = tensors.floats("W_enc", None, None).T
        n, width = weight.shape
        rows, bias, mean = tensors.floats("W_dec", n, width), tensors.floats("b_enc", n), tensors.floats("b_dec", width)
        if cls == "JumpReluAutoEncoder":  # which subtracts nothing
            return ForeignSAE(weight, bias, (rows,), (mean,), 0, k, tensors.floats("threshold", n))
    else:
        of_mean = "bias" if cls == "AutoEncoder" else "b_dec"
        tensors.only(("encoder.weight", "encoder.bias", "decoder.weight", of_mean), ("k", "threshold"))
        weight = tensors.floats("encoder.weight", None, None)
        n, width = weight.shape
        rows, bias = tensors.floats("decoder.weight", width, n).T, tensors.floats("encoder.bias", n)
        mean = tensors.floats(of_mean, width)
    bias = bias - weight @ mean
    if cls == "AutoEncoder":
        return ForeignSAE(weight, bias, (rows,), (mean,), 0, k, np.zeros(n))
    if "k" in tensors:
        k = tensors.count("k") if cls == "AutoEncoderTopK" else tensors.mean_count("k")
    if cls == "AutoEncoderTopK":
        if k is None:
            raise CheckpointError(f"{tensors.label}: k is missing; give k=")
        return ForeignSAE(weight, bias, (rows,), (mean,), 0, k)
    if "threshold" not in tensors:
        raise CheckpointError(f"{tensors.label}: threshold is missing; save it with a newer dictionary_learning")
    return ForeignSAE(weight, bias, (rows,), (mean,), 0, k, np.full(n, float(tensors.floats("threshold"))))


def _class_of(tensors: Tensors) -> str:
    """Return the class of a state_dict. AutoEncoderTopK and BatchTopKSAE have the same names, but only one a threshold."""
    if "W_enc" in tensors:
        return "MatryoshkaBatchTopKSAE" if "group_sizes" in tensors else "JumpReluAutoEncoder"
    if "b_dec" not in tensors:
        return "AutoEncoder"
    return "BatchTopKSAE" if "threshold" in tensors and float(tensors.floats("threshold")) >= 0 else "AutoEncoderTopK"
