"""Locks of folders for one writer at a time: other processes, other threads and processes that it forks are kept out.

A lock is an `flock` of a file, which ends with the process. A fork would share it, so a child closes its copy. Some file
systems of clusters have no `flock`; then only writers of this process are kept out, and a warning says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
import threading
import time
import warnings
import weakref
from collections.abc import Iterator

from usae.errors import CheckpointError, CheckpointFileError

LOCK = "writer.lock"
"""Name of the file that the one writer of a folder locks."""

_UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF)
"""What `flock` says where there are no locks. EBADF: NFS does not lock what is open for reading alone, as a folder is."""

_WAIT = 60.0
"""Seconds that one save waits for another one to the same folder."""


class Lock:
    """A lock that is held from its making until `close`, the end of a ``with`` block or of the process, or until it is lost."""

    _descriptor: int | None = None

    def __init__(self, descriptor: int, what: str, folder: pathlib.Path, warn: bool = True):
        """Lock an open file; `descriptor` is closed with the lock, or if it cannot be had."""
        status = os.fstat(descriptor)
        self._descriptor = descriptor
        try:
            if _held.setdefault((status.st_dev, status.st_ino), self) is not self:
                raise _busy(what, folder)
            self._lock(descriptor, what, folder, warn)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _lock(descriptor: int, what: str, folder: pathlib.Path, warn: bool) -> None:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(what, folder) from None
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            if warn:
                warnings.warn(
                    f"{folder}: the file system has no locks ({error.strerror}), so nothing keeps another process from writing "
                    f"{what} too; see to it that only one does",
                    stacklevel=2,
                )

    @property
    def held(self) -> bool:
        """Whether this process still holds it. A process forked from it does not."""
        return self._descriptor is not None

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        for key, lock in list(_held.items()):
            if lock is self:
                del _held[key]
        os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def locked(file: pathlib.Path, what: str) -> Lock:
    """Take the lock of a folder by a file in it, which is made if it is not there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{file} must be an ordinary file; remove it, and it is made again")
    return Lock(descriptor, what, file.parent)


@contextlib.contextmanager
def waiting(folder: pathlib.Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder itself, for which this waits up to a minute."""
    until = time.monotonic() + _WAIT
    while True:
        try:
            lock = Lock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), what, folder, warn=False)
            break
        except CheckpointFileError:
            if time.monotonic() > until:
                raise
        time.sleep(0.01)
    with lock:
        yield


class Guard:
    """Lets one thread at a time into a ``with`` block. A child process finds it open, whatever threads its parent had."""

    def __init__(self, what: str):
        self._what, self._inner, self._is_inside = what, threading.RLock(), False
        _guards.add(self)

    def __enter__(self) -> None:
        self._inner.acquire()
        if self._is_inside:  # in this very thread, such as in a signal handler, which cannot wait for what it interrupts
            self._inner.release()
            raise CheckpointFileError(errno.EBUSY, f"cannot write {self._what}: this thread is writing it; wait for that")
        self._is_inside = True

    def __exit__(self, *_: object) -> None:
        self._is_inside = False
        self._inner.release()

    def open(self) -> None:
        self._inner, self._is_inside = threading.RLock(), False


def _busy(what: str, folder: pathlib.Path) -> CheckpointFileError:
    words = f"cannot write {what}: another writer has it open; let that one end, or close() it"
    return CheckpointFileError(errno.EBUSY, words, str(folder))


def _after_fork() -> None:
    for lock in list(_held.values()):
        lock.close()
    for guard in list(_guards):
        guard.open()


_held: weakref.WeakValueDictionary[tuple[int, int], Lock] = weakref.WeakValueDictionary()
_guards: weakref.WeakSet[Guard] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
