"""What other libraries compute from their files, in a few lines of NumPy for each; the tests and the table use them.

Each function takes the folder of an export and activations, [n_tokens, width], float32, and returns codes, [n_tokens,
n_concepts], and reconstructions, [n_tokens, width of the decoded model]. `benchmarks/exchange.py` holds them to the libraries.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import numpy as np
import safetensors.numpy


def topk(pre: np.ndarray, k: int) -> np.ndarray:
    """Keep the k largest of each row, as torch.topk does, and then what is above 0."""
    kept = np.argsort(-pre, axis=1, kind="stable")[:, :k]
    result = np.zeros_like(pre)
    np.put_along_axis(result, kept, np.take_along_axis(pre, kept, 1), 1)
    return np.maximum(result, 0)


def above(pre: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    return np.maximum(pre, 0) * (pre > threshold)


def files(folder: pathlib.Path, config: str, weights: str) -> tuple[dict, dict[str, np.ndarray]]:
    return json.loads((folder / config).read_text()), safetensors.numpy.load_file(folder / weights)


def saelens(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cfg, w = files(folder, "cfg.json", "sae_weights.safetensors")
    assert not cfg["apply_b_dec_to_input"] and cfg["normalize_activations"] == "none"
    pre = x @ w["W_enc"] + w["b_enc"]
    z = topk(pre, cfg["k"]) if cfg["architecture"] == "topk" else above(pre, w["threshold"])
    return z, z @ w["W_dec"] + w["b_dec"]


def sparsify(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cfg, w = files(folder, "cfg.json", "sae.safetensors")
    given = x if cfg["transcode"] else x - w["b_dec"]
    z = topk(given @ w["encoder.weight"].T + w["encoder.bias"], cfg["k"])
    return z, z @ w["W_dec"] + w["b_dec"]


def visaebench(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cfg, w = files(folder, "config.json", "model.safetensors")
    pre = x @ w["encoder.weight"].T + w["encoder.bias"]
    z = topk(pre, cfg["k"]) if cfg["activation"] == "topk" else above(pre, w["jump_thresholds"])
    return z, z @ w["decoder.weight"] + w["decoder.bias"]


def dictionary_learning(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    w = {name: value.numpy() for name, value in torch.load(folder / "ae.pt", weights_only=True).items()}
    if trainer["dict_class"] == "JumpReluAutoEncoder":
        z = above(x @ w["W_enc"] + w["b_enc"], w["threshold"])
        return z, z @ w["W_dec"] + w["b_dec"]
    assert trainer["k"] == w["k"]
    pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    z = topk(pre, trainer["k"]) if trainer["dict_class"] == "AutoEncoderTopK" else above(pre, w["threshold"])
    return z, z @ w["decoder.weight"].T + w["b_dec"]


def overcomplete(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In standardised units, which are beside it: the library has no bias in its decoder."""
    cfg, w = files(folder, "config.json", "model.safetensors")
    (model,) = json.loads((folder / "usae_export.json").read_text())["models"]
    mean, scale = np.float32(model["mean"]), np.float32(model["scale"])
    pre = (x - mean) / scale @ w["encoder.final_block.0.weight"].T + w["encoder.final_block.0.bias"]
    z = topk(np.maximum(pre, 0), cfg["top_k"])
    rows = w["dictionary._weights"]
    rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8) * np.exp(w["dictionary.multiplier"])
    return z, z @ rows * scale + mean


def crosscoder(folder: pathlib.Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Given the activations of the encoded model; it returns the reconstruction of that model."""
    cfg, w = files(folder, "config.json", "model.safetensors")
    (index,) = cfg["encoder_layers"]
    assert cfg["code_normalization"] == "NONE" and w["code_normalization_id"] == 4 and np.isnan(w["activation_mean"]).all()
    z = above(x @ w["encoder.weight"][0] + w["encoder.bias"], w["threshold"])
    return z, (np.einsum("bf,lfd->bld", z, w["decoder.weight"]) + w["decoder.bias"])[:, index]


FORWARDS: dict[str, Callable[[pathlib.Path, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "saelens": saelens,
    "sparsify": sparsify,
    "visaebench": visaebench,
    "dictionary_learning": dictionary_learning,
    "overcomplete": overcomplete,
    "crosscoder": crosscoder,
}
