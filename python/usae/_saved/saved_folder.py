"""Saved autoencoders: a folder with ``model.safetensors`` (tensors) and ``usae.json`` (everything else).

``usae.json`` holds the size and SHA-256 of the tensor file that belongs to it, and ends with its own SHA-256. A new folder is
written under another name and renamed. In a folder that exists, empty or with an older save,

1. the tensors are written to ``model.safetensors.new``,
2. ``usae.json`` is replaced by one rename, from which on the new save is the valid one,
3. ``model.safetensors.new`` is renamed to ``model.safetensors``.

`load` takes whichever of the two tensor files ``usae.json`` describes. So a computer that stops at any point leaves the old
save or the new one, whole. Other files in the folder are left alone. Threads and processes that save to one folder wait for
each other, the latter only where the file system has locks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import TypeVar

from usae._base import checks
from usae._base.config import thread_count
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._files import disk, locks, regular_files
from usae._saved.header import FORMAT, HEADER, MOST_BYTES, Header, checked_header, expected_tensors, to_json
from usae._saved.state import restored, snapshot
from usae._saved.tensor_file import NEW_TENSORS, TENSORS, is_described, read_tensors, write_tensors
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError, UsaeError, UsaeMemoryError

NEW_HEADER = f"{HEADER}.new"

RUN = "usae-run.json"
"""The file that describes the run in a folder of checkpoints. `load` looks for it to say how such a folder is read."""


T = TypeVar("T")

# --- Writing -----------------------------------------------------------------------------------------------------------


def save(autoencoder: Autoencoder, path: str | os.PathLike[str], training_state: bool) -> None:
    """Save to a folder; see `UniversalSAE.save`."""
    given = disk.folder_of(path)
    if not isinstance(training_state, bool):
        raise InvalidInputError(f"training_state must be True or False, got {checks.shown(training_state)}")
    with disk.io_errors(given, "write", "the autoencoder"):
        folder = pathlib.Path(os.path.realpath(given))  # "." and links cannot be renamed, so the folder itself is used
    with disk.io_errors(folder, "write", "the autoencoder"):
        exists = _can_replace(folder)
        if not exists:
            disk.make_parents(folder)
        header, tensors = snapshot(autoencoder, training_state)
        if not exists and _create(folder, header, tensors):
            return
        with locks.waiting(folder, "the autoencoder"):
            _can_replace(folder)
            _finish_replacement(folder)
            _replace(folder, header, tensors)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise the error that `save` would raise if the folder cannot be made, cannot be written or holds something else."""
    given = disk.folder_of(path)
    with disk.io_errors(given, "write", "the autoencoder"):
        folder = pathlib.Path(os.path.realpath(given))
        exists = _can_replace(folder)
        disk.make_parents(folder)
        attempt = folder / f".usae-{secrets.token_hex(6)}" if exists else folder
        attempt.mkdir()
        attempt.rmdir()


def _can_replace(folder: pathlib.Path) -> bool:
    """Whether the folder exists and is empty or holds a save that can be replaced. CheckpointFileError for anything else."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise CheckpointFileError(errno.ENOTDIR, "cannot save there: it is not a folder; choose another path", str(folder))
    if {path.name for path in folder.iterdir()} <= {NEW_TENSORS, NEW_HEADER}:  # a first save that was cut short leaves these
        return True
    try:
        header = json.loads(_header_bytes(folder))
    except (FileNotFoundError, ValueError, RecursionError):  # a CheckpointError is a ValueError
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT or (folder / TENSORS).is_dir():
        raise CheckpointFileError(
            errno.EEXIST, "cannot save there: the folder holds something that usae did not save; choose another path",
            str(folder),
        )  # fmt: skip
    return True


def _create(folder: pathlib.Path, header: Header, tensors: Tensors) -> bool:
    """Make the folder. Returns False if somebody else made it meanwhile."""
    beside = disk.beside_name(folder)
    beside.mkdir()
    try:
        file = write_tensors(beside / TENSORS, tensors)
        disk.write_text(beside / HEADER, to_json(header | {"tensors": file}))
        disk.sync(beside)
        beside.rename(folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    disk.sync(folder.parent)
    return True


def _replace(folder: pathlib.Path, header: Header, tensors: Tensors) -> None:
    new_header = folder / NEW_HEADER
    try:
        file = write_tensors(folder / NEW_TENSORS, tensors)
        disk.write_text(new_header, to_json(header | {"tensors": file}))
        disk.sync(folder)
    except BaseException:
        for unused in (folder / NEW_TENSORS, new_header):
            with contextlib.suppress(OSError):
                unused.unlink()
        raise
    new_header.replace(folder / HEADER)
    disk.sync(folder)
    (folder / NEW_TENSORS).replace(folder / TENSORS)
    disk.sync(folder)


def _finish_replacement(folder: pathlib.Path) -> None:
    """Do step 3 of an earlier save that was cut short, before the new save overwrites its tensors."""
    if (folder / HEADER).exists() and is_described(folder / NEW_TENSORS, json.loads(_header_bytes(folder)).get("tensors")):
        (folder / NEW_TENSORS).replace(folder / TENSORS)


# --- Reading -----------------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], n_threads: int | None) -> Autoencoder:
    """Load a folder; see `usae.load`."""
    folder = disk.folder_of(path)
    thread_count(n_threads, "n_threads")
    return read(folder, lambda header, tensors: restored(header, tensors, n_threads))


def read(folder: pathlib.Path, taken: Callable[[Header, Tensors], T]) -> T:
    """Give header and tensors to `taken`, and return its result. Its errors, as those of the files, are those of `load`."""
    with _reading(folder):
        return taken(*_read(folder))


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    with disk.io_errors(folder, "read", "the autoencoder"):
        if folder.is_file():
            raise CheckpointError(
                f"{folder}: must be a folder that save wrote, got a file; usae.load_published reads files of the published code"
            )
        try:
            yield
        except (CheckpointFileError, UsaeMemoryError):
            raise
        except UsaeError as error:
            raise CheckpointError(f"{folder}: {error}") from None


def _read(folder: pathlib.Path) -> tuple[Header, Tensors]:
    """Read header and tensors of the same save, even if another process replaces the save meanwhile."""
    for _ in range(100):
        before = _identity(folder)
        try:
            header = checked_header(_read_header(folder))
            tensors = read_tensors(folder, header["tensors"], expected_tensors(header))
        except (UsaeError, OSError):
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return header, tensors
    raise CheckpointFileError(errno.EBUSY, "cannot read: other processes replace it all the time; wait for them", str(folder))


def _identity(folder: pathlib.Path) -> list[tuple[int, int, int] | None]:
    """Return a value that changes whenever one of the files is replaced."""
    identity: list[tuple[int, int, int] | None] = []
    for name in (HEADER, TENSORS, NEW_TENSORS):
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            identity.append(None)
        else:
            identity.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return identity


def _read_header(folder: pathlib.Path) -> bytes:
    try:
        return _header_bytes(folder)
    except FileNotFoundError:
        if (folder / RUN).exists():
            raise CheckpointError(
                f"{RUN} says that this holds checkpoints of a run; use usae.Checkpoints(path).load()"
            ) from None
        if folder.is_dir():
            raise CheckpointError(f"{HEADER} is missing; give a folder that save wrote") from None
        raise


def _header_bytes(folder: pathlib.Path) -> bytes:
    return regular_files.read(folder / HEADER, MOST_BYTES, HEADER)
