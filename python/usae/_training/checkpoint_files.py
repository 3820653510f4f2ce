"""The files in a folder of checkpoints.

``usae-run.json`` describes the run. Each checkpoint is a folder such as ``step-000001000``, a save with training state. One
rename puts it there and one rename takes it away, so a folder with such a name is whole. Folders whose names begin with
``.usae-`` are being written or removed; the next writer deletes those that were left.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import shutil
import warnings
from typing import Any

from usae import _usae
from usae._base import checks
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._files import disk
from usae._saved import saved_folder
from usae._saved.header import Header
from usae._saved.saved_folder import RUN
from usae.errors import CheckpointError, CheckpointFileError

FORMAT = "usae-run"
FORMAT_VERSION = 1
NEW_RUN = "usae-run.json.new"
LOCK = "writer.lock"

_STEP = re.compile(r"step-(\d{9,})")
_TEMPORARY = ".usae-"  # prefix of temporary names, as in saved_folder.py


def folder_of_step(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"step-{step:09}"


def steps(folder: pathlib.Path) -> list[int]:
    """Return the steps that have a checkpoint, the newest first."""
    try:
        found = [_STEP.fullmatch(path.name) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted((int(match[1]) for match in found if match), reverse=True)


# --- Writing -----------------------------------------------------------------------------------------------------------


def check_free(folder: pathlib.Path) -> None:
    """Refuse a folder that is neither empty nor a folder of checkpoints."""
    names = {path.name for path in folder.iterdir()}
    if RUN not in names and not names <= {LOCK, NEW_RUN}:
        raise CheckpointFileError(
            errno.EEXIST, "cannot keep checkpoints there: the folder holds other things; choose another path", str(folder)
        )


def write_run(folder: pathlib.Path, run: dict[str, Any]) -> None:
    """Write the file that describes the run."""
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "package_version": _usae.version(), "run": run}
    disk.write_text(folder / NEW_RUN, json.dumps(header, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    (folder / NEW_RUN).replace(folder / RUN)
    disk.sync(folder)


def write(folder: pathlib.Path, autoencoder: Autoencoder) -> None:
    """Write a checkpoint of the present step."""
    place = folder_of_step(folder, autoencoder.core.step_count)
    if place.exists():
        _remove(place)
    saved_folder.save(autoencoder, place, training_state=True)


def prune(folder: pathlib.Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for step in steps(folder)[keep:]:
        _remove(folder_of_step(folder, step))


def clear(folder: pathlib.Path) -> None:
    """Remove the temporary folders of a writer that was stopped."""
    for path in folder.iterdir():
        if path.name.startswith(_TEMPORARY) and path.is_dir():
            shutil.rmtree(path)


def _remove(place: pathlib.Path) -> None:
    hidden = place.with_name(f"{_TEMPORARY}{place.name}")
    place.rename(hidden)
    shutil.rmtree(hidden)


# --- Reading -----------------------------------------------------------------------------------------------------------


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Read the description of the run. Warns if another version of usae wrote it."""
    try:
        header = checks.parsed_json((folder / RUN).read_bytes().decode())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: there is no {RUN} in it; give the folder of a run") from None
    except ValueError as error:
        raise CheckpointError(f"{folder}: {RUN} is damaged or cut short: {error}; copy it again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("run"), dict):
        raise CheckpointError(
            f'{folder}: {RUN} was not written by usae: its "format" is not "{FORMAT}"; give the folder of a run'
        )
    if header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: {RUN}: format_version must be {FORMAT_VERSION}, which usae {_usae.version()} knows, got "
            f"{header.get('format_version')} from usae {header.get('package_version')}; update usae"
        )
    if header.get("package_version") != _usae.version():
        warnings.warn(
            f"this run was begun with usae {header.get('package_version')} and goes on with {_usae.version()}; the bits may "
            f"differ from those of a run with either",
            stacklevel=2,
        )
    return header["run"]


def newest(folder: pathlib.Path) -> tuple[Header, Tensors, list[str]] | None:
    """Read the newest checkpoint that is not damaged. Returns header, tensors and a message for each newer, damaged one.

    Returns None if there are no checkpoints.

    Raises
    ------
    CheckpointError
        If all checkpoints are damaged.
    """
    damaged: list[str] = []
    for step in steps(folder):
        place = folder_of_step(folder, step)
        try:
            return *saved_folder.read(place), damaged
        except (CheckpointFileError, CheckpointError) as error:
            if not os.path.lexists(place):  # the run removed it meanwhile, so there are newer ones
                return newest(folder)
            if isinstance(error, CheckpointFileError):
                raise
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(damaged[0])
    return None


def set_aside(folder: pathlib.Path, step: int) -> None:
    """Rename checkpoints that are newer than the one that was read, because they are damaged."""
    for newer in steps(folder):
        if newer > step:
            place = folder_of_step(folder, newer)
            aside = folder / f"damaged-{place.name}"
            if aside.exists():
                shutil.rmtree(aside)
            place.rename(aside)
