"""Options that name activations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from usae._data.activations import MaskedActivations, as_aligned
from usae._data.masks import as_mask
from usae._files import npy_file
from usae.cli.networks import pairs
from usae.cli.options import Parser
from usae.errors import CheckpointError, InvalidInputError

HELP = "folder of a store (usae extract), or NAME=FILE.npy for each model: [n_tokens, width] or [images, tokens, width]"

MASK_HELP = (
    "rows that count, as a .npy file of truth values [n_tokens] or [images, tokens], or NAME=FILE.npy for each model; default: "
    "all rows, or those that count by the store's own mask"
)


def add_to(parser: Parser, before: str = "", required: bool = True) -> None:
    """Add --acts and --mask. `before` is put before the help of --acts."""
    parser.option("--acts", required=required, default=[], nargs="+", action="extend", metavar="ACTS", help=before + HELP)
    parser.option("--mask", default=[], nargs="+", action="extend", metavar="FILE", help=MASK_HELP)


def add_train(parser: Parser, help: str) -> None:
    """Add --train and --train-mask, activations that were trained on. `help` says what they are for."""
    parser.option("--train", default=[], nargs="+", action="extend", metavar="ACTS", help=help)
    parser.option("--train-mask", default=[], nargs="+", action="extend", metavar="FILE", help="rows of --train that count")


def load_train(options: argparse.Namespace) -> Mapping[str, Any] | None:
    """Open what --train and --train-mask name; None if it is not given."""
    if options.train:
        return load_masked(options.train, "--train", options.train_mask, "--train-mask")
    if options.train_mask:
        raise InvalidInputError("--train must be given where --train-mask is, got none")
    return None


def load_masked(entries: Sequence[str], option: str, mask: Sequence[str], mask_option: str) -> Mapping[str, Any]:
    """Open activations like `load_activations`, and their mask if one is given."""
    acts = load_activations(entries, option)
    if not mask:
        return acts
    counts = load_mask(mask, mask_option)
    as_aligned(acts, option, mask=counts, mask_argument=mask_option)  # for errors that name the options
    return MaskedActivations(acts, counts)


def load_mask(entries: Sequence[str], option: str) -> Any:
    """Map a mask into memory, or that of each model."""
    if len(entries) == 1 and ("=" not in entries[0] or Path(entries[0]).is_file()):
        return as_mask(_mapped(entries[0], option), option)
    files = {f"{option} {name}": (name, file) for name, file in pairs(entries, option).items()}
    return {name: as_mask(_mapped(file, label), label) for label, (name, file) in files.items()}


def load_activations(entries: Sequence[str], option: str) -> Mapping[str, Any]:
    """Open a store, or map the file of each model into memory."""
    files = [entry for entry in entries if "=" in entry and not Path(entry).is_dir()]
    if files and len(files) == len(entries):
        return {name: _mapped(file, f"{option} {name}") for name, file in pairs(entries, option).items()}
    if files or len(entries) > 1:
        raise InvalidInputError(f"{option} must be one store or NAME=FILE.npy for each model, got {' '.join(entries)}")
    from usae import ActivationStore

    if not Path(entries[0]).is_dir():
        raise InvalidInputError(
            f"{option} must be the folder of a store or NAME=FILE.npy for each model, got {entries[0]!r}, which is no folder"
        )
    return ActivationStore(entries[0])


def _mapped(file: str, label: str) -> np.ndarray:
    try:
        return npy_file.mapped(file)
    except CheckpointError as error:
        raise InvalidInputError(
            f"{label} must be a .npy file of numbers, as numpy.save writes them, got one that cannot be used: {error}"
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"{label} must be a .npy file, got {file!r}, which cannot be read: {error.strerror or error}"
        ) from error
