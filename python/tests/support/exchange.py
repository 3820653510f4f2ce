"""Small autoencoders for exports, and files as other libraries write them."""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy

import usae

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

import exchange_formulas as formulas  # noqa: E402, F401
import exchange_table as table  # noqa: E402

N, D, K = 40, 12, 5


def trained(**recipe):
    """Fitted once for each recipe; for tests that do not change it."""
    return table.trained(table.Case("", recipe))


def acts():
    return table.activations(False)


def random_parts(seed=0, n=N, d=D, out=None, unit=True, spread=0.0):
    """Encoder [n, d], its bias, dictionary rows [n, out] of equal norm (or norms that differ), decoder bias; float32."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, out or d))
    if unit:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows *= 1 + spread * random.random((n, 1))
    weight, bias, mean = random.standard_normal((n, d)), 0.1 * random.standard_normal(n), random.standard_normal(out or d)
    return [np.ascontiguousarray(part, dtype=np.float32) for part in (weight, bias, rows, mean)]


def tokens(n=300, d=D, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def written(folder, config, weights, fields, tensors):
    folder.mkdir(exist_ok=True)
    (folder / config).write_text(json.dumps(fields))
    safetensors.numpy.save_file({name: np.array(value, order="C") for name, value in tensors.items()}, folder / weights)
    return folder


def saelens(folder, parts, more=(), **fields):
    weight, bias, rows, mean = parts
    tensors = {"W_enc": weight.T, "b_enc": bias, "W_dec": rows, "b_dec": mean, **dict(more)}
    fields = {"architecture": "topk", "k": K, "apply_b_dec_to_input": False, "normalize_activations": "none"} | fields
    return written(folder, "cfg.json", "sae_weights.safetensors", fields, tensors)


def sparsify(folder, parts, **fields):
    weight, bias, rows, mean = parts
    tensors = {"encoder.weight": weight, "encoder.bias": bias, "W_dec": rows, "b_dec": mean}
    return written(
        folder, "cfg.json", "sae.safetensors", {"activation": "topk", "k": K, "d_in": weight.shape[1]} | fields, tensors
    )


def visaebench(folder, parts, more=(), **fields):
    weight, bias, rows, mean = parts
    tensors = {"encoder.weight": weight, "encoder.bias": bias, "decoder.weight": rows, "decoder.bias": mean, **dict(more)}
    return written(folder, "config.json", "model.safetensors", {"activation": "topk", "k": K} | fields, tensors)


def assert_same(sae, x, codes, values, models=("model", "model"), factor=1.0):
    """The autoencoder computes these codes, perhaps times a factor for each concept, and these reconstructions."""
    ours = sae.encode(x, models[0])
    differ = (ours.to_dense() > 0) != (codes > 0)
    assert np.maximum(ours.to_dense(), codes)[differ].max(initial=0) < 1e-6 * codes.max()  # a ReLU of what rounds to 0
    np.testing.assert_allclose(ours.to_dense(), codes * factor, rtol=0, atol=1e-5 * np.abs(codes * factor).max())
    np.testing.assert_allclose(sae.decode(ours, models[1]), values, rtol=0, atol=1e-5 * np.abs(values).max())
    return sae


def changed(file, **fields):
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def one_model(n=N, d=D, **recipe):
    """An autoencoder of one model that was not trained."""
    return usae.UniversalSAE(n, K, recipe=usae.recipes.default(**recipe)).initialize({"vit": d})
