"""Options that name activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from usae._files import npy_file
from usae.cli.networks import pairs
from usae.errors import CheckpointError, InvalidInputError

HELP = "folder of a store (usae extract), or NAME=FILE.npy for each model: [n_tokens, width] or [images, tokens, width]"


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
