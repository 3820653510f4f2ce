"""``usae maximize``: images that fire concepts of a saved autoencoder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae.cli.activations import HELP as ACTS_HELP
from usae.cli.activations import load_activations
from usae.cli.exemplars import exemplars
from usae.cli.networks import HELP, load_networks, pairs
from usae.cli.options import print_json, use_threads


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
    parser.add_argument(
        "--acts", nargs="+", metavar="ACTS", help=f"natural activations to compare with, best held-out ones: {ACTS_HELP}"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures that a store in --acts was made of; the best are drawn beside"
    )
    parser.add_argument("--joint", action="store_true", help="one image for all networks instead of one for each")
    parser.add_argument("--steps", type=int, default=256, metavar="N", help="of optimisation (%(default)s)")
    parser.add_argument("--views", type=int, default=16, metavar="N", help="crops in a step (%(default)s)")
    parser.add_argument(
        "--canvas", type=int, metavar="PIXELS", help="side of the image; 2.3 times that of the networks' if left out"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="images from so many seeds, to see how they vary")
    parser.add_argument("--seed", type=int, default=0, help="of start, crops and noise (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="left out: all cores")
    parser.add_argument("--output", type=Path, default=Path("maximization"), metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print report.json instead of words, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    sae = usae.load(options.model)
    concepts = list(dict.fromkeys(options.concept))
    for concept in concepts:  # all, before hours are spent on the first
        if not 0 <= concept < sae.n_concepts:
            raise usae.InvalidInputError(f"--concept must be from 0 to {sae.n_concepts - 1}, got {concept}")
    models = load_networks(options.network, pairs(options.layer, "--layer"))
    acts = load_activations(options.acts, "--acts") if options.acts else {}
    dataset = sae.evaluate(acts) if acts else None
    beside: tuple[Any, ...] = exemplars(sae, acts, options.images, concepts) if options.images else ()
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for concept in concepts:
        results.append(
            usae.maximize(
                sae,
                concept,
                models,
                steps=options.steps,
                views=options.views,
                canvas=options.canvas,
                joint=options.joint,
                dataset=dataset,
                n_seeds=options.seeds,
                seed=options.seed,
            )
        )
        write(results, options.output, beside)  # after each: an interrupt loses one
        if not options.json:
            print(results[-1].report(), end="\n\n", flush=True)
    if options.json:
        print_json([result.to_dict() for result in results])
    else:
        print(f"Written to {options.output}: maximization.png, images.npz, report.json")


def write(results: list[usae.Maximization], folder: Path, beside: tuple[Any, ...]) -> None:
    arrays: dict[str, Any] = {"models": np.array(results[0].model_names)}
    for result in results:
        arrays[f"image_{result.concept}"] = result.images
        arrays[f"attribution_{result.concept}"] = result.attribution
    np.savez_compressed(folder / "images.npz", **arrays)
    report = json.dumps([result.to_dict() for result in results], indent=1, allow_nan=False)
    (folder / "report.json").write_text(report + "\n")
    usae.plot.maximization(results, *beside).savefig(folder / "maximization.png", dpi=150)
