"""``usae train``: training of a universal sparse autoencoder on activations in files."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae._data.activations import as_aligned
from usae.cli import activations, process
from usae.cli.options import Parser, add_threads, as_mean, print_json, use_threads
from usae.cli.recipe_flags import add_recipe, recipe_of
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "train",
        help="train a universal sparse autoencoder on a store or on .npy files",
        description="Trains on activations whose row t is the same place in the same image in every model, and saves the "
        "autoencoder.",
    )
    parser.configurable()
    activations.add_to(parser)
    parser.option(
        "--validation", default=[], nargs="+", action="extend", metavar="ACTS", help="held-out activations, given like --acts"
    )
    parser.option(
        "--validation-mask", default=[], nargs="+", action="extend", metavar="FILE", help="rows of --validation that count"
    )
    parser.option(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder to save the autoencoder to, also after Ctrl-C; a save in it is replaced",
    )
    parser.option(
        "--checkpoint",
        metavar="FOLDER",
        help="folder in which the state of training is saved while it runs; default: none, so that a crash loses the run",
    )
    parser.option("--checkpoint-minutes", type=float, default=10.0, metavar="N", help="minutes between two checkpoints")
    parser.option(
        "--resume",
        default=False,
        help="continue the run in --checkpoint, to the same bits as without the interruption; without a run there, start one",
    )
    parser.option("--n-concepts", type=int, default=6144, metavar="N", help="number of concepts")
    parser.option(
        "--k",
        type=as_mean,
        default=32,
        metavar="K",
        help="largest number of active concepts of a token; with --selection batchtopk the mean, which may be fractional",
    )
    parser.option(
        "--steps",
        type=int,
        metavar="N",
        help="batches to train on; default: as --epochs or --total-steps say (the published recipe has a number of its own); "
        "without them one epoch or 1000 batches, whichever is longer",
    )
    parser.option("--epochs", type=float, metavar="N", help="passes over all rows, instead of --steps")
    parser.option("--seed", type=int, default=0, metavar="N", help="seed of everything random")
    add_threads(parser)
    add_recipe(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    acts = activations.load_masked(options.acts, "--acts", options.mask, "--mask")
    validation = None
    if options.validation:
        validation = activations.load_masked(options.validation, "--validation", options.validation_mask, "--validation-mask")
    elif options.validation_mask:
        raise InvalidInputError("--validation must be given where --validation-mask is, got none")
    aligned = as_aligned(acts, "--acts")
    given = next(iter(aligned.values()))
    n_tokens = given.n_tokens
    recipe = recipe_of(options, n_tokens, len(aligned))
    sae = usae.UniversalSAE(options.n_concepts, options.k, recipe=recipe, seed=options.seed)
    _checkpoints(options)
    _check_places(options)
    start = time.perf_counter()
    _fit(sae, acts, validation, options)
    seconds = time.perf_counter() - start
    with process.signals_wait():
        _save(sae, options)
    if options.json:
        print_json(_report(sae, options.output, seconds) | {"n_tokens": n_tokens, "n_left_out": given.n_left_out})
    else:
        masked = f"{given.n_left_out:,} of {given.n_rows:,} rows left out\n" if given.n_left_out else ""
        print(masked + _summary(sae, options.output, seconds))


def _fit(sae: usae.UniversalSAE, acts: Mapping[str, Any], validation: Any, options: argparse.Namespace) -> None:
    """Train. Whatever ends the training early, what was learned is saved before the command ends."""
    try:
        sae.fit(
            acts,
            epochs=options.epochs,
            steps=options.steps,
            validation=validation,
            checkpoint=_checkpoints(options),
            resume=options.resume,
        )
    except BaseException:  # Ctrl-C, SIGTERM, a file of the data that vanished, a loss that overflows
        if sae.__sklearn_is_fitted__() and sae.n_steps_:
            with process.signals_wait(), contextlib.suppress(usae.UsaeError):
                _save(sae, options)
                process.tell(f"what was learned in {sae.n_steps_} steps is in {options.output}")
        raise


def _save(sae: usae.UniversalSAE, options: argparse.Namespace) -> None:
    """Save to --output. If that fails, or a signal that came again cuts it short, tell what is lost."""
    try:
        sae.save(options.output)
    except BaseException as error:
        reason = error if isinstance(error, usae.UsaeError) else "a second signal ended the command before it was saved"
        kept = "" if options.checkpoint is None else f"; checkpoints are in {options.checkpoint}"
        process.tell(f"what was learned in {sae.n_steps_} steps is lost: {reason}{kept}")
        raise


def _checkpoints(options: argparse.Namespace) -> usae.Checkpoints | None:
    if options.checkpoint is not None:
        return usae.Checkpoints(options.checkpoint, every_minutes=options.checkpoint_minutes)
    if options.resume:
        raise InvalidInputError("--checkpoint must be the folder of the run that --resume is to go on with, got none")
    return None


def _check_places(options: argparse.Namespace) -> None:
    """Check before training, which may take hours, that both folders can be written, and that neither is in the other's way."""
    from usae._saved.saved_folder import check_place

    if options.checkpoint is not None:
        output, checkpoint = (Path(os.path.realpath(folder)) for folder in (options.output, options.checkpoint))
        if checkpoint.is_relative_to(output):
            raise InvalidInputError(
                f"--checkpoint must be outside --output, where the autoencoder is saved alone, got {options.checkpoint!r} and "
                f"{options.output!r}"
            )
    check_place(options.output)


def _report(sae: usae.UniversalSAE, folder: str, seconds: float) -> dict[str, Any]:
    last = sae.history_[-1]
    return {
        "output": folder,
        "models": sae.n_features_in_,
        "n_concepts": sae.n_concepts,
        "k": sae.k,
        "seed": sae.seed,
        "n_steps": sae.n_steps_,
        "seconds": seconds,
        "loss": _loss(sae),
        "validation": last.get("validation"),
        "recipe": sae.recipe_.to_dict(),
    }


def _loss(sae: usae.UniversalSAE) -> float:
    """Return the loss of the last step in which all concepts took part. The losses of shorter prefixes are not comparable."""
    whole = (entry["loss"] for entry in reversed(sae.history_) if entry["prefix"] == sae.n_concepts)
    return float(next(whole, sae.history_[-1]["loss"]))


def _summary(sae: usae.UniversalSAE, folder: str, seconds: float) -> str:
    last = sae.history_[-1]
    lines = [f"{sae.n_steps_:,} steps in {seconds:.0f} s, loss {_loss(sae):.4g}"]
    if "validation" in last:
        r2 = np.array(last["validation"]["r2"])
        other = r2[~np.eye(len(r2), dtype=bool)]
        words = [
            f"{np.diag(r2).mean():.3f} in the same model",
            *([f"{other.mean():.3f} between models"] if len(r2) > 1 else []),
        ]
        lines.append(f"R2 of {last['validation']['n_tokens']:,} held-out tokens: {', '.join(words)}")
    return "\n".join([*lines, f"Written to {folder}; numbers and figures: usae evaluate --model {folder} --acts ..."])
