"""Writes that survive a computer that stops, and the wording of errors about files."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from usae._base import checks
from usae._files import regular_files
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError

TEMPORARY = ".usae-"
"""Prefix of the names of files and folders that are being written or removed."""


def folder_of(path: object) -> pathlib.Path:
    """Return the path of a folder that a user gave. InvalidInputError if it cannot be one."""
    return path_of(path, "a folder")


def path_of(path: object, what: str) -> pathlib.Path:
    """Return a path that a user gave. InvalidInputError, which says that it must name `what`, if it cannot be one."""
    try:
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    except Exception:  # of the object's own method
        name = None
    problem = ""
    if not isinstance(name, str):
        problem = "; pass text or a pathlib.Path"
    elif not name:
        problem = "; the current folder is '.'"
    elif what == "a file" and not pathlib.PurePath(name).name:
        problem = ", which is a folder; add the name of a file"
    elif "\0" in name:
        problem = ", which has a NUL character in it; leave that out"
    else:
        try:
            os.fsencode(name)
            return pathlib.Path(name)
        except UnicodeEncodeError:
            problem = f", which cannot be written in {sys.getfilesystemencoding()}, as names of files are; use another name"
    raise InvalidInputError(f"path must name {what}, got {checks.shown(path)}{problem}")


def make_parents(path: pathlib.Path) -> None:
    """Make the folders that lead to `path` where they are missing, so that they are there after a power cut too."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)  # another process may make it too
        with contextlib.suppress(PermissionError):  # a folder may be writable and not readable
            sync(parent.parent)


@contextlib.contextmanager
def io_errors(folder: pathlib.Path, verb: str, what: str) -> Iterator[None]:
    """Turn each OSError into a CheckpointFileError with a remedy, such as "cannot write the autoencoder: ...".

    A file in the folder that the system names is named too.
    """
    try:
        yield
    except CheckpointFileError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        words = f"cannot {verb} {what}: {error.strerror or error}"
        if isinstance(error.filename, (str, os.PathLike)) and pathlib.Path(error.filename).parent == folder:
            words += f" ({pathlib.Path(error.filename).name})"
        if verb == "write" and number in (errno.ENOENT, errno.ENOTDIR):
            words += f"; {str(folder.parent)!r} has to be a folder"
        elif verb == "write" and number in (errno.EACCES, errno.EPERM, errno.EROFS):
            words += "; choose a place that this user may write to"
        raise CheckpointFileError(number, words, str(folder)) from error


def write_text(file: pathlib.Path, text: str) -> None:
    """Write a new text file, in UTF-8, and sync it to disk."""
    with regular_files.created(file) as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give the name of a file to write beside `file`. It takes that place when the block ends, and goes if the block fails."""
    beside = beside_name(file)
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def beside_name(path: pathlib.Path) -> pathlib.Path:
    """Return a new name beside a path, for what is written before it takes that place."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")


def sync(path: pathlib.Path) -> None:
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_keys(found: object, expected: Mapping[str, Any], where: str) -> None:
    """Raise a CheckpointError unless `found` is a dictionary with exactly the expected keys."""
    if not isinstance(found, dict):
        raise CheckpointError(f"{where} must hold named values, got {shortened(found)}; copy it again")
    for key in found:
        if key not in expected:
            raise CheckpointError(f"{where}: unknown key {key!r}; copy it again, or update usae if a newer one wrote it")
    for key in expected:
        if key not in found:
            raise CheckpointError(f"{where}: {key!r} is missing; copy it again")


def is_integer(value: object, smallest: int, largest: int = 2**53) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= largest


def is_mean_count(value: object, smallest: int, largest: int = 2**53) -> TypeGuard[float]:
    """Whether this is a mean number of things as usae writes it: an integer, or a float that is none."""
    if isinstance(value, float):
        return smallest <= value <= largest and not value.is_integer()
    return is_integer(value, smallest, largest)


def unexpected(file: str, key: str, value: object) -> CheckpointError:
    return CheckpointError(f"{file}: {key} is not what usae writes there, got {shortened(value)}; copy it again")


def shortened(value: object) -> str:
    text = checks.shown(value)
    return text if len(text) <= 80 else text[:77] + "..."
