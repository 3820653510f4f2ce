"""``usae controls``: nulls, baselines and ceilings beside the numbers of a saved autoencoder."""

from __future__ import annotations

import argparse
from typing import Any

import usae
from usae.analysis.controls import CONTROLS, NEED_TRAINING_ROWS
from usae.cli import activations
from usae.cli.options import Parser, add_model, add_threads, load_model, print_json, use_threads


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "controls",
        help="compare the numbers of a saved autoencoder with what chance or a simpler method gives",
        description="Runs nulls, baselines and ceilings for a saved autoencoder of at least two models. docs/controls.md says "
        "what each shows.",
    )
    add_model(parser)
    activations.add_to(parser, "held-out: ")
    activations.add_train(parser, f"what was trained on, in the same form; {', '.join(NEED_TRAINING_ROWS)} need it")
    parser.option(
        "--untrained",
        default=[],
        nargs="+",
        action="extend",
        metavar="ACTS",
        help="what the same networks compute with random weights, in the form of --acts and with the rows of --acts",
    )
    parser.option(
        "--untrained-train", default=[], nargs="+", action="extend", metavar="ACTS", help="the same, with the rows of --train"
    )
    parser.option(
        "--include",
        default=[],
        nargs="+",
        action="extend",
        metavar="CONTROL",
        help=f"controls to run, of {', '.join(CONTROLS)}; default: all that the other options allow",
    )
    parser.option(
        "--threshold", type=float, default=0.0, metavar="CODE", help="a concept fires if its code is larger than this"
    )
    parser.option(
        "--steps", type=int, metavar="N", help="steps of controls that train; default: as many as the autoencoder has done"
    )
    parser.option("--seed", type=int, default=0, metavar="SEED", help="seed of everything random here")
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    train = activations.load_train(options)
    untrained, untrained_train = (
        activations.load_masked(given, f"--{name}", mask, f"--{mask_name}") if given else None
        for name, given, mask_name, mask in (
            ("untrained", options.untrained, "mask", options.mask),
            ("untrained-train", options.untrained_train, "train-mask", options.train_mask),
        )
    )
    sae = load_model(options)
    found = usae.controls(
        sae,
        activations.load_masked(options.acts, "--acts", options.mask, "--mask"),
        train=train,
        untrained=untrained,
        untrained_train=untrained_train,
        include=options.include or None,
        threshold=options.threshold,
        steps=options.steps,
        seed=options.seed,
    )
    if options.json:
        print_json(found.to_dict())
    else:
        print(found.summary())
