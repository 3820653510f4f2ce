"""``usae consistency``: how well concepts match those of other autoencoders of the same models."""

from __future__ import annotations

import argparse
from typing import Any

import usae
from usae.cli import activations
from usae.cli.networks import pairs
from usae.cli.options import Parser, add_model, add_threads, load_model, load_saved, print_json, use_threads
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "consistency",
        help="match the concepts of a saved autoencoder with those of others",
        description="Matches dictionary rows one to one by their cosine, beside what matching gives for random rows. The "
        "others are saved autoencoders (--other), or are trained here on each model alone (--train).",
    )
    add_model(parser)
    parser.option(
        "--other",
        default=[],
        nargs="+",
        action="extend",
        metavar="FOLDER",
        help="folder of another saved autoencoder, whose models are compared; or NAME=FOLDER for each model",
    )
    activations.add_train(parser, f"what the autoencoder was trained on, to train the others on: {activations.HELP}")
    parser.option(
        "--steps", type=int, metavar="N", help="steps to train the others for; default: as many as the autoencoder has done"
    )
    parser.option(
        "--train-seed", type=int, metavar="SEED", help="seed of their training; default: that of the autoencoder plus 1"
    )
    parser.option("--threshold", type=float, default=0.5, metavar="COSINE", help="cosine above which concepts count as matched")
    parser.option("--seed", type=int, default=0, metavar="SEED", help="seed of the random rows")
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    if bool(options.other) == bool(options.train):
        got = "both" if options.other else "neither"
        raise InvalidInputError(f"--other must be given, or --train in its place, got {got}")
    train = activations.load_train(options)
    sae = load_model(options)
    if train is None:
        others = _others(options.other)
    else:
        others = usae.fit_independent(train, like=sae, seed=options.train_seed, steps=options.steps)
    found = usae.consistency(sae, others, threshold=options.threshold, seed=options.seed)
    if options.json:
        print_json(found.to_dict())
    else:
        print(found.summary())


def _others(entries: list[str]) -> Any:
    if len(entries) == 1 and "=" not in entries[0]:
        return load_saved(entries[0], "--other")
    return {name: load_saved(folder, f"--other {name}") for name, folder in pairs(entries, "--other").items()}
