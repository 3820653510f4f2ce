"""Which scores need trained networks, and which need a trained autoencoder? python benchmarks/untrained.py [--quick].

`usae.controls` of the demonstration's networks: the autoencoder (512 concepts, k = 12, the default recipe, 1,000 steps on 6,000
crops; 2,000 held-out ones), the same with a frozen random half, and the same training on the same networks with random weights,
drawn three times. docs/controls.md has what came of it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae.demo import networks, photographs

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report  # noqa: E402

COLUMNS = {
    "R2 same": "r2_same",
    "R2 other": "r2_other",
    "agreement": "agreement",
    "mean co-fire proportion": "cofire_proportion",
    "universal": "universal",
    "evenly shared": "evenly_shared",
}


def cells(rows: list[dict[str, Any]]) -> list[str]:
    """Return the mean of each number, and half its range if there are several."""
    result = []
    for key in COLUMNS.values():
        values = [row[key] for row in rows if row[key] is not None]
        spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
        result.append(f"{np.mean(values):.3f}{spread}" if values else "")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few crops and steps, to check that it works")
    parser.add_argument("--threads", type=int, default=1, help="threads of training")
    parser.add_argument("--draws", type=int, default=3, help="draws of random weights")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    usae.set_num_threads(arguments.threads)
    n_train, n_held_out, steps = (60, 30, 20) if arguments.quick else (6000, 2000, 1000)
    found = photographs.load()
    images = {
        split: photographs.crops(found, split, n, seed=seed).images  # type: ignore[arg-type]
        for split, n, seed in (("train", n_train, 0), ("held_out", n_held_out, 1))
    }

    def acts_of(nets: dict[str, networks.Network]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        train, held_out = (networks.activations(nets, images[split]) for split in ("train", "held_out"))
        return train, held_out

    train, held_out = acts_of(networks.load_networks())
    sae = usae.UniversalSAE(512, 12, seed=0, n_threads=arguments.threads).fit(train, steps=steps, progress=False)
    include = ("initial", "linear", "frozen_dictionary", "frozen_encoder")
    rows = {
        name: [row] for name, row in usae.controls(sae, held_out, train=train, include=include, progress=False).table().items()
    }
    rows |= {"untrained networks": [], "untrained networks: before training": [], "untrained networks: ridge regression": []}
    for draw in range(arguments.draws):
        # The autoencoder that controls(untrained=...) trains, here by itself, to have its own baselines too.
        train, held_out = acts_of(networks.untrained_networks(draw))
        sae = usae.UniversalSAE(512, 12, seed=0, n_threads=arguments.threads).fit(train, steps=steps, progress=False)
        table = usae.controls(sae, held_out, train=train, include=("initial", "linear"), progress=False).table()
        rows["untrained networks"].append(table["this autoencoder"])
        for row in ("before training", "ridge regression"):
            rows[f"untrained networks: {row}"].append(table[row])
    report = Report("untrained", "Networks with random weights", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/untrained.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "numpy": {"version": np.__version__}}
    report.data["results"] = rows
    report.words(f"512 concepts, k = 12, {steps:,} steps; {n_held_out:,} held-out crops of 64 tokens; {arguments.draws} draws.")
    report.rows(["", *COLUMNS], [[name, *cells(row)] for name, row in rows.items()])
    report.write(arguments.output)


if __name__ == "__main__":
    main()
