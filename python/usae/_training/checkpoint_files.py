"""The files in a folder of checkpoints.

``usae-run.json`` describes the run. Each checkpoint is a folder such as ``step-000001000``, a save with training state. One
rename puts it there and one rename takes it away, so a folder with such a name is whole. Folders whose names begin with
``.usae-`` are being written or removed; the next writer deletes those that were left.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import TypeVar

from usae import _usae
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._files import checksummed_json, disk, locks, regular_files
from usae._saved import saved_folder
from usae._saved.header import HEADER, Header, fields_since
from usae._saved.saved_folder import RUN
from usae._training.run_identity import Run
from usae.errors import CheckpointError, CheckpointFileError

FORMAT = "usae-run"
FORMAT_VERSION = 2
NEW_RUN = "usae-run.json.new"

_CHECKSUM_SINCE = 2
_REMEDY = "copy it again"
_MOST_BYTES = 2**24
_MOST_VALUES = 2**20

_STEP = re.compile("step-[0-9]{9,}")
_OF_THE_PROCESS = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EBUSY)
"""What hinders a reader though the checkpoint may be whole. It is told, because passing over would lose steps for nothing."""

_MOST_ATTEMPTS = 1000
T = TypeVar("T")


def folder_of_step(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"step-{step:09}"


def steps(folder: pathlib.Path) -> list[int]:
    """Return the steps that have a checkpoint, the newest first. A name that a run would not give is none of them."""
    try:
        found = [(int(path.name[5:]), path.name) for path in folder.iterdir() if _STEP.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    return sorted((step for step, name in found if step > 0 and folder_of_step(folder, step).name == name), reverse=True)


# --- Writing -----------------------------------------------------------------------------------------------------------


def check_free(folder: pathlib.Path) -> None:
    """Refuse a folder that is neither empty nor a folder of checkpoints."""
    names = {path.name for path in folder.iterdir()}
    if RUN not in names and not names <= {locks.LOCK, NEW_RUN}:
        raise CheckpointFileError(
            errno.EEXIST, "cannot keep checkpoints there: the folder holds other things; choose another path", str(folder)
        )


def write_run(folder: pathlib.Path, run: Run) -> None:
    """Write the file that describes the run."""
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "package_version": _usae.version(), "run": run}
    text = json.dumps(header, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    disk.write_text(folder / NEW_RUN, checksummed_json.with_checksum(text))
    (folder / NEW_RUN).replace(folder / RUN)
    disk.sync(folder)


def write(folder: pathlib.Path, autoencoder: Autoencoder) -> None:
    """Write a checkpoint of the present step."""
    place = folder_of_step(folder, autoencoder.core.step_count)
    if os.path.lexists(place):  # a link would lead the save elsewhere
        _remove(place)
    saved_folder.save(autoencoder, place, training_state=True)


def prune(folder: pathlib.Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for step in steps(folder)[keep:]:
        _remove(folder_of_step(folder, step))


def clear(folder: pathlib.Path) -> None:
    """Remove the temporary folders of a writer that was stopped."""
    for path in folder.iterdir():
        if path.name.startswith(disk.TEMPORARY) and (path.is_dir() or path.is_symlink()):
            _delete(path)


def _remove(place: pathlib.Path) -> None:
    hidden = place.with_name(f"{disk.TEMPORARY}{place.name}")
    place.rename(hidden)
    _delete(hidden)


def _delete(place: pathlib.Path) -> None:
    """Delete a folder with all that is in it, or what stands in its place. Of a link, only the link."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


# --- Reading -----------------------------------------------------------------------------------------------------------


def read_run(folder: pathlib.Path) -> tuple[Run, str]:
    """Return the description of the run, and the version of usae that wrote it."""
    try:
        raw = regular_files.read(folder / RUN, _MOST_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: there is no {RUN} in it; give the folder of a run") from None
    header, has_checksum = checksummed_json.parsed(raw, f"{folder}: {RUN}", _REMEDY, _MOST_VALUES)
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("run"), dict):
        raise CheckpointError(
            f'{folder}: {RUN} was not written by usae: its "format" is not "{FORMAT}"; give the folder of a run'
        )
    version, package_version = header.get("format_version"), str(header.get("package_version"))
    if not disk.is_integer(version, 1, FORMAT_VERSION):
        raise CheckpointError(
            f"{folder}: {RUN}: format_version must be at most {FORMAT_VERSION}, which usae {_usae.version()} knows, got "
            f"{disk.shortened(version)} from usae {package_version}; update usae"
        )
    checksummed_json.check_has_checksum(has_checksum, version >= _CHECKSUM_SINCE, f"{folder}: {RUN}", _REMEDY)
    return {f"recipe.{field}": value for field, value in fields_since(0).items()} | header["run"], package_version


def newest(folder: pathlib.Path, taken: Callable[[Header, Tensors], T]) -> tuple[T, list[str]] | None:
    """Give the newest checkpoint that can be used to `taken`. Returns its result, and a message for each that was passed over.

    `taken` refuses a checkpoint by raising a `UsaeError`. Returns None if there are no checkpoints.

    Raises
    ------
    CheckpointError
        If none of them can be used.
    CheckpointFileError
        If one cannot be read for a reason that lies in this process, or because the run replaces them all the time.
    """
    for _ in range(_MOST_ATTEMPTS):
        problems: list[str] = []
        for step in steps(folder):
            place = folder_of_step(folder, step)
            try:
                return saved_folder.read(place, functools.partial(_whole, taken, step)), problems
            except CheckpointError as error:
                if not os.path.lexists(place):  # the run removed it meanwhile, so there are newer ones
                    break
                if isinstance(error, CheckpointFileError) and error.errno in _OF_THE_PROCESS:
                    raise
                problems.append(str(error))
        else:
            if problems:
                raise CheckpointError(problems[0])
            return None
    raise CheckpointFileError(errno.EBUSY, "cannot read: the run replaces its checkpoints all the time; wait", str(folder))


def _whole(taken: Callable[[Header, Tensors], T], step: int, header: Header, tensors: Tensors) -> T:
    if not header["training_state"]:
        raise CheckpointError(
            f"{HEADER}: training_state must be true in a checkpoint, got false; move it out of the run's folder"
        )
    if header["n_steps"] != step:
        raise CheckpointError(
            f"{HEADER}: n_steps must be {step}, as the name of the checkpoint says, got {header['n_steps']}; move it out of "
            f"the run's folder"
        )
    return taken(header, tensors)


def set_aside(folder: pathlib.Path, step: int) -> None:
    """Rename checkpoints that are newer than the one that was read, because they were passed over."""
    for newer in steps(folder):
        if newer > step:
            place = folder_of_step(folder, newer)
            aside = folder / f"damaged-{place.name}"
            if os.path.lexists(aside):
                _delete(aside)
            place.rename(aside)
