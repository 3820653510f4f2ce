"""SAELens (6.54): ``cfg.json`` and ``sae_weights.safetensors``."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32
from usae.errors import CheckpointError, InvalidInputError

NAME = "saelens"
CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"

# Without a version from 6 on, SAELens reads the file as an older one, and drops what it does not know.
_VERSION = "6.54.12"

_TOPK = ("topk",)
_RELU = ("standard", "transcoder")
_JUMPRELU = ("jumprelu", "jumprelu_transcoder")
_TRANSCODERS = ("transcoder", "jumprelu_transcoder")


def write(foreign: ForeignSAE, names: Names) -> Content:
    if foreign.thresholds is None and names.is_pair:
        raise InvalidInputError(
            f"target must be None or {names.model!r}, the model itself, for 'saelens', which has no transcoder with TopK, got "
            f"{names.target!r}; 'sparsify' has one for models of equal width"
        )
    (rows,), (mean,) = foreign.rows, foreign.means
    tensors = {
        "W_enc": as_float32(foreign.weight.T, "encoder"),
        "b_enc": as_float32(foreign.bias, "encoder's bias"),
        "W_dec": as_float32(rows, "dictionary"),
        "b_dec": as_float32(mean, "mean"),
    }
    own: dict[str, Any]
    if foreign.thresholds is None:
        architecture, own = "topk", {"k": foreign.k, "rescale_acts_by_decoder_norm": False}
    else:
        tensors["threshold"] = as_float32(foreign.thresholds, "threshold")
        architecture, own = ("jumprelu_transcoder", {"d_out": rows.shape[1]}) if names.is_pair else ("jumprelu", {})
    config = {
        "architecture": architecture,
        "d_in": foreign.weight.shape[1],
        "d_sae": foreign.n_concepts,
        **own,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _VERSION, "model_name": names.model, "target_name": names.target, "library": "usae"},
    }
    return Content(architecture, {CONFIG: config}, WEIGHTS, tensors, "sae_lens.SAE.load_from_disk({path})")


def read(folder: pathlib.Path) -> ForeignSAE:
    fields = Fields(folder / CONFIG, json_of(folder / CONFIG))
    architecture = _architecture(fields)
    tensors = Tensors.of(folder / WEIGHTS)
    extra = ("threshold",) if architecture in _JUMPRELU else ()
    tensors.only(("W_enc", "b_enc", "W_dec", "b_dec", *extra))
    weight = tensors.floats("W_enc", None, None).T
    n = len(weight)
    rows, bias, mean = tensors.floats("W_dec", n, None), tensors.floats("b_enc", n), tensors.floats("b_dec", None)
    is_transcoder = architecture in _TRANSCODERS
    if len(mean) != rows.shape[1] or (not is_transcoder and rows.shape[1] != weight.shape[1]):
        raise CheckpointError(
            f"{tensors.label}: b_dec must be [{rows.shape[1]}] and W_enc [{rows.shape[1]}, {n}], as W_dec says, got "
            f"{list(mean.shape)} and {[weight.shape[1], n]}; copy it again"
        )
    factor = _factor(folder, fields)
    weight, rows, mean = weight * factor, rows / factor, mean / factor
    if not is_transcoder and fields.boolean("apply_b_dec_to_input", True):
        bias = bias - weight @ mean
    k, thresholds = None, None
    if architecture in _TOPK:
        k = fields.integer("k")
    else:
        thresholds = tensors.floats("threshold", n) if extra else np.zeros(n)
    by_norms = architecture in _TOPK and fields.boolean("rescale_acts_by_decoder_norm", False)
    return ForeignSAE(weight, bias, (rows,), (mean,), None if is_transcoder else 0, k, thresholds, by_norms=by_norms)


def _architecture(fields: Fields) -> str:
    """Return the architecture, of files before version 6 too, in which TopK was an activation of the standard one."""
    content = dict(fields.content)
    architecture = fields.text("architecture", "standard")
    activation = content.get("activation_fn_str", content.get("activation_fn"))
    if architecture == "standard" and activation == "topk":
        kwargs = content.get("activation_fn_kwargs")
        content |= {"architecture": "topk", "k": kwargs.get("k") if isinstance(kwargs, dict) else None}
        fields.content = content
        return "topk"
    if architecture not in (*_TOPK, *_RELU, *_JUMPRELU) or (architecture == "standard" and activation not in (None, "relu")):
        raise fields.unusable(
            "architecture" if architecture != "standard" else "activation_fn",
            f"usae can represent {', '.join((*_TOPK, *_RELU, *_JUMPRELU))}; of a training checkpoint, save the inference model",
        )
    return architecture


def _factor(folder: pathlib.Path, fields: Fields) -> float:
    """Return the number by which activations are multiplied before they are encoded."""
    normalization = fields.content.get("normalize_activations", "none")
    if normalization in ("none", None, False):
        return 1.0
    if normalization == "expected_average_only_in" or normalization is True:
        if not (folder / SCALER).exists():
            raise fields.unusable(
                "normalize_activations",
                f"its factor is in {SCALER}, which is missing; copy it too",
            )
        scaler = Fields(folder / SCALER, json_of(folder / SCALER))
        factor = scaler.number("scaling_factor")
        if factor <= 0:
            raise scaler.error("scaling_factor", "a number above 0")
        return factor
    raise fields.unusable(
        "normalize_activations", 'usae can represent "none"; fold it into the weights in SAELens, and save that'
    )
