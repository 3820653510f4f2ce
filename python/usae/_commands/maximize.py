"""``usae maximize``: images that fire concepts of a saved autoencoder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae._commands.networks import HELP, load_networks, pairs
from usae._commands.options import print_json, use_threads


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "maximize",
        help="for concepts of a saved autoencoder, the image that each network wants to see",
        description="Coordinated activation maximization: writes images.npz, report.json and a picture of all concepts.",
    )
    parser.add_argument("model", help="folder of a saved autoencoder (UniversalSAE.save)")
    parser.add_argument("--concept", type=int, action="append", required=True, metavar="K", help="may be given several times")
    parser.add_argument("--network", action="append", required=True, metavar="NAME=SPEC", help=HELP)
    parser.add_argument("--layer", action="append", default=[], metavar="NAME=LAYER", help="dotted name of the network's layer")
    parser.add_argument("--joint", action="store_true", help="one image for all networks instead of one for each")
    parser.add_argument("--steps", type=int, default=256, metavar="N", help="of optimisation (%(default)s)")
    parser.add_argument("--views", type=int, default=16, metavar="N", help="crops in a step (%(default)s)")
    parser.add_argument(
        "--canvas", type=int, metavar="PIXELS", help="side of the image; 2.25 times that of the networks' if left out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of start, crops and noise (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="left out: all cores")
    parser.add_argument("--output", type=Path, default=Path("maximization"), metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print report.json instead of words, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    sae = usae.load(options.model)
    models = load_networks(options.network, pairs(options.layer, "--layer"))
    results = [
        usae.maximize(
            sae,
            concept,
            models,
            steps=options.steps,
            views=options.views,
            canvas=options.canvas,
            joint=options.joint,
            seed=options.seed,
        )
        for concept in options.concept
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    arrays = {f"concept_{result.concept}": result.images for result in results}
    np.savez_compressed(options.output / "images.npz", allow_pickle=False, **arrays)
    report = json.dumps([result.to_dict() for result in results], indent=1, allow_nan=False)
    (options.output / "report.json").write_text(report + "\n")
    usae.plot.maximization(results).savefig(options.output / "maximization.png", dpi=150)
    if options.json:
        print_json([result.to_dict() for result in results])
        return
    print("\n\n".join(result.report() for result in results))
    print(f"\nWritten to {options.output}: maximization.png, images.npz, report.json")
