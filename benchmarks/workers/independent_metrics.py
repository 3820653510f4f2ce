"""Computes VISAEBench's metrics: independent_metrics.py JOBS, in its environment.

JOBS has the files of one network's held-out activations and their labels, and a list of autoencoders: a folder that VISAEBench
loads, or the name of something else that has codes (see `Linear`, `told`). What comes out is written to each one's ``out``.

Each metric is the library's own class with its defaults. The autoencoder encodes once: metrics of codes get the codes as their
activations, and an autoencoder that returns what it gets.
"""

import importlib.metadata
import json
import pathlib
import sys
import warnings

import exchange_library
import numpy as np
import torch
from labels_and_nulls import shuffled_kinds, shuffled_positions, shuffled_within, squares, told

exchange_library.without_init("visaebench")

from visaebench.hub.loader import load_sae  # noqa: E402
from visaebench.metrics import METRIC_REGISTRY  # noqa: E402


class Same:
    """Codes that were computed already."""

    def encode(self, x):
        return x


class Linear:
    """Orthonormal rows without selection: principal components, or the network's own dimensions."""

    def __init__(self, rows):
        self.rows = rows

    def encode(self, x):
        return x @ self.rows.T

    def decode(self, codes):
        return codes @ self.rows


class Pooled:
    """Another network, whose mean tokens are there already; images are numbers."""

    def __init__(self, tokens):
        self.tokens = tokens

    def extract_activations(self, images, *, layer):
        return self.tokens[images][:, None]


def metric(name, *, grid=None):
    return METRIC_REGISTRY[name](**({"grid_size": grid} if grid else {}))


def localization(codes, side):
    found = metric("localization", grid=(side, side)).compute(Same(), codes, device="cpu")
    scored = found.metadata["num_features_scored"]
    return (found.value if scored else None), scored


def of_codes(codes, labels, pool, side, seed):
    """Return the metrics of codes, [images, tokens, concepts], each with its null."""
    random, options = np.random.default_rng(seed), {"device": "cpu", "seed": 42 + seed}
    images = list(range(len(codes)))
    groups = {
        str(kind): {"class_indices": sorted({c for c, k in zip(labels["classes"], labels["kinds"], strict=True) if k == kind})}
        for kind in set(labels["kinds"])
    }

    def probing(values):
        return metric("sparse_probing").compute(Same(), codes, labels=values, **options).value

    def meaning(order):
        found = metric("monosemanticity")
        return found.compute(Same(), codes, images=images, evaluator_backbone=Pooled(pool[order]), **options)

    def absorption(values):
        return metric("absorption").compute(Same(), codes, labels=values, sibling_groups=groups, **options)

    value, scored = localization(codes, side)
    found = {"localisation": (value, localization(shuffled_positions(codes, random), side)[0])}
    found["class probing"] = probing(labels["classes"]), probing(random.permutation(labels["classes"]))
    found["kind probing"] = probing(labels["kinds"]), probing(shuffled_kinds(labels, random))
    own, exchanged = meaning(np.arange(len(codes))), meaning(random.permutation(len(codes)))
    found["monosemanticity"] = own.value, exchanged.value
    own, exchanged = absorption(labels["classes"]), absorption(shuffled_within(labels["classes"], labels["kinds"], random))
    found["absorption"] = own.value, exchanged.value
    facts = {"localised concepts": scored, "absorption tests": own.metadata["num_tests"]}
    return found, facts | {f"absorption, {what}": own.metadata[what] for what in ("mean_overlap", "mean_f1_gap")}


def of_reconstructions(sae, x, labels, seed, n_concepts):
    found = metric("fvu").compute(sae, x.reshape(-1, x.shape[-1]), device="cpu", dict_size=n_concepts)
    kept = metric("downstream_preservation").compute(sae, x, labels=labels["classes"], device="cpu", seed=42 + seed)
    facts = {"L0": found.metadata["l0"], "never fire": found.metadata["dead_pct"] / 100}
    facts["accuracy, original"] = kept.metadata["accuracy_original"]
    tokens = x.reshape(-1, x.shape[-1])
    residual = sum((part - sae.decode(sae.encode(part))).double().square().sum() for part in tokens.split(4096))
    unexplained = float(residual / (tokens.double() - tokens.double().mean(0)).square().sum())
    return {"FVU": (found.value, None), "1 - R2": (unexplained, None), "preservation": (kept.value, None)}, facts


def measured(job, x, labels, pool, side):
    kind = job["what"]
    if kind in ("half of the grid", "3 x 3 tokens"):
        shape = (side, side // 2) if kind == "half of the grid" else (3, 3)
        codes = squares(len(x), side, shape, np.random.default_rng(job["seed"]))
        return {"localisation": (localization(codes, side)[0], None)}, {}
    if kind == "told":
        return of_codes(told(labels, x.shape[1]), labels, pool, side, job["seed"])
    sae = load_sae(job["path"], device="cpu") if kind == "autoencoder" else Linear(torch.from_numpy(np.load(job["path"])))
    with torch.no_grad():
        codes = torch.cat([sae.encode(part) for part in x.reshape(-1, x.shape[-1]).split(4096)])
        found, facts = of_reconstructions(sae, x, labels, job["seed"], codes.shape[1])
        if job["codes"]:
            of_these = of_codes(codes.reshape(*x.shape[:2], -1), labels, pool, side, job["seed"])
            found, facts = found | of_these[0], facts | of_these[1]
    return found, facts


def main(file):
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="M3 downstream preservation requires|Features|invalid value|divide by zero")
    work = json.loads(file.read_text())
    x, pool = (torch.from_numpy(np.load(work[part])) for part in ("held_out", "pool"))
    version = importlib.metadata.version("visaebench")
    for job in work["jobs"]:
        found, facts = measured(job, x, work["labels"], pool, work["grid"])
        result = {"metrics": found, "facts": facts, "version": version}
        pathlib.Path(job["out"]).write_text(json.dumps(result, default=float))
        print(job["out"], flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
