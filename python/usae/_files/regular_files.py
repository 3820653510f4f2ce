"""Opening of files in folders that somebody else may have filled: only ordinary files are read, only new files are written.

A FIFO would block for ever, a device may act when it is opened, and a planted link would lead a writer to another file.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import stat

from usae.errors import CheckpointError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def opened(file: str | os.PathLike[str], label: str = "") -> io.BufferedReader:
    """Open an ordinary file, or a link to one, for reading. `label` names it in errors. Default: "", its path."""
    _check_kind(os.stat(file).st_mode, label or os.fspath(file))  # before it is opened, because opening a device may act on it
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_kind(os.fstat(descriptor).st_mode, label or os.fspath(file))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(file: str | os.PathLike[str], most: int, label: str = "") -> bytes:
    """Return the content of an ordinary file. CheckpointError if it is longer than `most` bytes."""
    with opened(file, label) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise CheckpointError(
                f"{label or os.fspath(file)} must have at most {most:,} bytes, got {size:,}; it is damaged: copy it again"
            )
        return stream.read(size)  # not `most`, which would be allocated


def created(file: str | os.PathLike[str]) -> io.BufferedWriter:
    """Create a file for writing. What a stopped writer left under that name is removed; if it is a link, nothing follows it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "wb")


def is_one(file: pathlib.Path) -> bool:
    """Whether this is an ordinary file or a link to one."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False


def _check_kind(mode: int, label: str) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")
    raise CheckpointError(
        f"{label} must be an ordinary file, got {kind}; give the file that was written there, or copy it again"
    )
