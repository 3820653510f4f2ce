"""sparsify (1.3): ``cfg.json`` and ``sae.safetensors``."""

from __future__ import annotations

import pathlib

from usae._exchange.foreign_files import Fields, Tensors, json_of
from usae._exchange.foreign_sae import ForeignSAE
from usae._exchange.formats.content import Content, Names, as_float32, refuse_threshold
from usae.errors import InvalidInputError

NAME = "sparsify"
CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"


def write(foreign: ForeignSAE, names: Names) -> Content:
    refuse_threshold(foreign, NAME, "'saelens', 'visaebench' and 'dictionary_learning' have thresholds")
    (rows,), (mean,) = foreign.rows, foreign.means
    width = foreign.weight.shape[1]
    if rows.shape[1] != width:
        raise InvalidInputError(
            f"target must be a model of the width of {names.model!r}, {width}, for 'sparsify', got {names.target!r} of width "
            f"{rows.shape[1]}"
        )
    bias = foreign.bias if names.is_pair else foreign.bias_after(mean)  # a transcoder subtracts nothing
    config = {
        "activation": "topk",
        "expansion_factor": max(1, foreign.n_concepts // width),
        "normalize_decoder": False,
        "num_latents": foreign.n_concepts,
        "k": foreign.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": names.is_pair,
        "d_in": width,
    }
    tensors = {
        "encoder.weight": as_float32(foreign.weight, "encoder"),
        "encoder.bias": as_float32(bias, "encoder's bias"),
        "W_dec": as_float32(rows, "dictionary"),
        "b_dec": as_float32(mean, "mean"),
    }
    architecture = "transcoder" if names.is_pair else "topk"
    return Content(architecture, {CONFIG: config}, WEIGHTS, tensors, "sparsify.SparseCoder.load_from_disk({path})")


def read(folder: pathlib.Path) -> ForeignSAE:
    fields = Fields(folder / CONFIG, json_of(folder / CONFIG))
    if fields.text("activation", "topk") != "topk":
        raise fields.unusable("activation", 'usae can represent "topk"')
    if fields.boolean("skip_connection", False):
        raise fields.unusable("skip_connection", "usae has none")
    tensors = Tensors.of(folder / WEIGHTS)
    tensors.only(("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    weight = tensors.floats("encoder.weight", None, None)
    n, width = weight.shape
    bias, rows, mean = tensors.floats("encoder.bias", n), tensors.floats("W_dec", n, width), tensors.floats("b_dec", width)
    is_transcoder = fields.boolean("transcode", False)
    if not is_transcoder:
        bias = bias - weight @ mean
    return ForeignSAE(weight, bias, (rows,), (mean,), None if is_transcoder else 0, fields.integer("k", 32))
