"""Activations and parameters for all sides of a comparison, as files that workers map into memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.sparse

N_FACTORS = 2048  # sparse factors of which activations are made
ACTIVE = 24  # factors in a token
NOISE = 0.3  # standard deviation of the noise, for activations with standard deviation 1


def activations(folder: Path, widths: dict[str, int], n_tokens: int, seed: int = 0) -> dict[str, str]:
    """Make standardised activations of models from common sparse factors. Returns files, float32 [n_tokens, width], by model.

    A few factors are frequent and many are rare, like concepts in photographs. All are non-negative.
    """
    random = np.random.default_rng(seed)
    frequency = 1 / np.arange(10, N_FACTORS + 10)
    factors = random.choice(N_FACTORS, (n_tokens, ACTIVE), p=frequency / frequency.sum())
    strength = random.gamma(4.0, 0.5, (n_tokens, ACTIVE)).astype(np.float32)
    rows = np.arange(0, n_tokens * ACTIVE + 1, ACTIVE)
    shown = scipy.sparse.csr_array((strength.ravel(), factors.ravel(), rows), shape=(n_tokens, N_FACTORS))
    files = {}
    for name, width in widths.items():
        x = np.float32(shown @ random.standard_normal((N_FACTORS, width), dtype=np.float32))
        x -= x.mean(0)
        x /= x.std()
        x += np.float32(NOISE) * random.standard_normal((n_tokens, width), dtype=np.float32)
        files[name] = os.fspath(folder / f"{name}-{n_tokens}-{seed}.npy")
        np.save(files[name], x)
    return files


def single_parameters(folder: Path, width: int, n_concepts: int, seed: int = 1) -> str:
    """Write parameters of an autoencoder of one model, which all rivals can use, to a file.

    It has encoder_weight and dictionary, [n_concepts, width], with dictionary rows of norm 1, encoder_bias, [n_concepts], and
    mean, [width]. Codes are the k largest of ReLU(encoder_weight (x - mean) + encoder_bias).
    """
    random = np.random.default_rng(seed)
    dictionary = random.standard_normal((n_concepts, width), dtype=np.float32)
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    weight = dictionary + np.float32(0.2 / width**0.5) * random.standard_normal((n_concepts, width), dtype=np.float32)
    bias = np.float32(0.1) * random.standard_normal(n_concepts, dtype=np.float32)
    mean = np.float32(0.1) * random.standard_normal(width, dtype=np.float32)
    file = folder / f"single-{width}-{n_concepts}.npz"
    np.savez(file, encoder_weight=weight, encoder_bias=bias, dictionary=dictionary, mean=mean)
    return os.fspath(file)


def published_parameters(folder: Path, widths: dict[str, int], n_concepts: int, seed: int = 2) -> dict[str, str]:
    """Write parameters of the published architecture as PyTorch initialises them. Returns a file by model, with our names."""
    random = np.random.default_rng(seed)
    files = {}
    for name, width in widths.items():
        bound = width**-0.5
        arrays = {
            "encoder_weight": random.uniform(-bound, bound, (n_concepts, width)),
            "encoder_bias": random.uniform(-bound, bound, n_concepts),
            "bn_weight": np.ones(n_concepts),
            "bn_bias": np.zeros(n_concepts),
            "bn_running_mean": np.zeros(n_concepts),
            "bn_running_var": np.ones(n_concepts),
            "dictionary": random.standard_normal((n_concepts, width)),
        }
        files[name] = os.fspath(folder / f"published-{name}-{n_concepts}.npz")
        np.savez(files[name], **{key: np.float32(value) for key, value in arrays.items()})
    return files
