"""``usae maximize``: images that fire concepts of a saved autoencoder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae.cli import activations, networks
from usae.cli.figures import drawn
from usae.cli.natural_images import top_examples_in
from usae.cli.options import Parser, add_model, add_threads, load_model, make_folder, print_json, use_threads


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "maximize",
        help="optimise images that fire concepts of a saved autoencoder in each network",
        description="Coordinated activation maximization: writes images.npz, report.json and a picture of all concepts.",
    )
    add_model(parser)
    parser.option(
        "--concept", type=int, action="append", required=True, metavar="K", help="number of a concept; may be repeated"
    )
    networks.add_to(parser)
    activations.add_to(parser, "natural images to compare with, preferably held-out ones: ", required=False)
    parser.option(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="pictures that the store in --acts was made of; those that fire a concept most are drawn beside its image",
    )
    parser.option("--joint", default=False, help="optimise one image for all networks instead of one for each")
    parser.option("--steps", type=int, default=256, metavar="N", help="optimisation steps")
    parser.option("--views", type=int, default=16, metavar="N", help="crops in a step")
    parser.option(
        "--canvas",
        type=int,
        metavar="PIXELS",
        help="side of the image; default: 2.3 times the largest side of the networks' images",
    )
    parser.option("--seeds", type=int, default=1, metavar="N", help="seeds to optimise from, to see how images vary")
    parser.option("--seed", type=int, default=0, help="seed of start, crops and noise")
    add_threads(parser)
    parser.option("--output", type=Path, default=Path("maximization"), metavar="FOLDER", help="folder for the results")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    sae = load_model(options)
    concepts = list(dict.fromkeys(options.concept))
    for concept in concepts:  # all are checked before the first is optimised, which takes long
        if not 0 <= concept < sae.n_concepts:
            raise usae.InvalidInputError(f"--concept must be from 0 to {sae.n_concepts - 1}, got {concept}")
    models = networks.load(options)
    acts = activations.load_activations(options.acts, "--acts") if options.acts else {}
    if options.mask and not acts:
        raise usae.InvalidInputError("--acts must be given where --mask is, got none")
    mask = activations.load_mask(options.mask, "--mask") if options.mask else None
    make_folder(options.output, "--output")  # before what takes long
    dataset = sae.evaluate(acts, mask=mask) if acts else None
    beside: tuple[Any, ...] = top_examples_in(sae, acts, mask, options.images, concepts) if options.images else ()
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
        write(results, options.output, beside)  # after each concept, so that Ctrl-C loses at most one
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
    (folder / "report.json").write_text(report + "\n", encoding="utf-8")
    drawn(folder / "maximization.png", lambda: usae.plot.maximization(results, *beside))
