"""Computes the tables of docs/scaling.md that are not measured, from results/scaling.json and results/distributed.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
WIDTH, MODELS = 768, 3
CONCEPTS = (8192, 65_536, 1_048_576)
NODES = (1, 4, 16, 64)
NETWORKS = {"1 Gbit/s": 1e9 / 8, "10 Gbit/s": 1e10 / 8, "100 Gbit/s": 1e11 / 8}
BANDWIDTH = {8: 44.9e9, 64: 300e9}
"""Bytes per second that a node copies, by its number of cores. 44.9e9 was measured on the machine of results/scaling.json and
is assumed for 8 cores. 300e9 is that of a server with a dozen memory channels."""

GRADIENT_BYTES = 4 * WIDTH * (1 + MODELS)
"""Bytes of a concept's gradients in a step: the encoder row of one model, and the dictionary rows of all."""
UPDATE_BYTES = 2 * 3 * GRADIENT_BYTES + GRADIENT_BYTES
"""Bytes of a concept's update: parameter and two moments are read and written, and the gradient's sum is read."""
STATE_BYTES = 3 * 4 * WIDTH * 2 * MODELS + GRADIENT_BYTES
"""Memory of a concept in every process: parameters, moments, and the arrays that are exchanged."""


def measured() -> dict[str, float]:
    """Return constants of one core, and of gloo, from the measurements."""
    scaling = json.loads((RESULTS / "scaling.json").read_text())
    points = [p for p in scaling["points"] if (p["n_models"], p["k"], p["threads"]) == (MODELS, 32, 2) and p.get("median")]
    m, n, t = (np.array([p[key] for p in points], float) for key in ("n_concepts", "n_tokens", "median"))
    terms = np.stack([m * n, n, m], 1) / t[:, None]  # divided by the time, so that relative errors have equal weight
    per_pair, per_token, per_concept = np.linalg.lstsq(terms, np.ones(len(t)), rcond=None)[0]
    update = 2 * 3 * GRADIENT_BYTES / scaling["limits"]["copy_bytes"]
    runs = json.loads((RESULTS / "distributed.json").read_text())["runs"]
    run = next(r for r in runs if r["recipe"] == "default" and r["processes"] == 2)
    alone = next(r for r in runs if r["recipe"] == "default" and r["processes"] == 1)
    steps = alone["ranks"][0]["steps"]
    later = np.median([sum(s["computing"][1:]) / sum(s["computing"]) for s in steps])
    return {
        "per_pair": 2 * per_pair,
        "per_token": 2 * per_token,
        "per_concept": 2 * max(0.0, per_concept - update),
        "worst_fit": float(np.abs(terms @ [per_pair, per_token, per_concept] - 1).max()),
        "gloo": run["bytes"] / run["alone"],  # in a ring of two processes, every byte is sent once
        "latency": float(np.median([s["alone"][-1] for rank in run["ranks"] for s in rank["steps"]])),
        "later": float(later),
    }


def step(constants: dict[str, float], m: int, tokens: int, nodes: int, cores: int, network: float) -> float:
    """Return the seconds of a step of `tokens` tokens over all nodes. docs/scaling.md has the formula."""
    own = tokens / nodes
    computing = (constants["per_pair"] * m * own + constants["per_token"] * own + constants["per_concept"] * m) / cores
    update = UPDATE_BYTES * m / BANDWIDTH[cores]
    if nodes == 1:
        return computing + update
    crossing = 2 * (nodes - 1) / nodes * GRADIENT_BYTES * m / network
    agreeing = 2 * np.log2(nodes) * constants["latency"]
    return computing + update + max(0.0, crossing - constants["later"] * computing) + agreeing


def table(constants: dict[str, float], tokens_of: dict[int, int]) -> str:
    """Return a table of the throughput divided by that of one node."""
    lines = ["| concepts | cores | network | " + " | ".join(f"{n} nodes" for n in NODES[1:]) + " |"]
    lines.append("|---:|---:|---:|" + "---:|" * len(NODES[1:]))
    for m in CONCEPTS:
        for cores in BANDWIDTH:
            for name, network in NETWORKS.items():
                rates = [tokens_of[n] / step(constants, m, tokens_of[n], n, cores, network) for n in NODES]
                cells = " | ".join(f"{rate / rates[0]:.2g}" for rate in rates[1:])
                lines.append(f"| {m:,} | {cores} | {name} | {cells} |")
    return "\n".join(lines)


def megabytes(m: int, tokens: int) -> str:
    """Return the megabytes that a process sends in a step: data-parallel, and with a sharded dictionary (docs/scaling.md)."""
    sharded = 3 * 4 * tokens * WIDTH * MODELS
    return f"{m:,} concepts, {tokens:,} tokens: {2 * GRADIENT_BYTES * m / 1e6:,.0f} and {sharded / 1e6:,.0f} MB"


def main() -> None:
    constants = measured()
    for name, value in constants.items():
        print(f"{name}: {value:.3g}")
    print(f"bytes of a concept: {GRADIENT_BYTES:,} cross, {UPDATE_BYTES:,} for the update, {STATE_BYTES:,} kept")
    print("\n2,048 tokens in each node:\n")
    print(table(constants, {n: 2048 * n for n in NODES}))
    print("\n65,536 tokens in all:\n")
    print(table(constants, dict.fromkeys(NODES, 65_536)))
    print("\ntokens in each node at which crossing takes as long as computing, many concepts and nodes:\n")
    for cores in BANDWIDTH:
        for name, network in NETWORKS.items():
            print(f"{cores} cores, {name}: {2 * GRADIENT_BYTES * cores / (constants['per_pair'] * network):,.0f}")
    for m in CONCEPTS:
        print(megabytes(m, 2048), megabytes(m, 65_536), sep="; ")


if __name__ == "__main__":
    main()
