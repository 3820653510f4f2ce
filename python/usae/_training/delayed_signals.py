"""Delaying Ctrl-C, SIGTERM and SIGHUP until training is between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

DELAYED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What Ctrl-C, schedulers and closed terminals send. Windows has no SIGHUP."""


def patience(number: int) -> float:
    """Return for how many seconds after the first signal another does nothing.

    Supervisors send SIGTERM repeatedly, or to a process and to its group. A person who presses Ctrl-C again means it.
    """
    return 2.0 if number == signal.SIGINT else 10.0


class DelayedSignals:
    """In a ``with`` block, the first of these signals waits for `deliver`. A second one takes effect at once, but does nothing
    as long as `patience` says.

    Signals are delayed only in the main thread, because only that thread may set handlers. Signals that are ignored stay
    ignored. Leaving ``with`` restores the handlers.

    Attributes
    ----------
    pending : int or None
        The signal that waits.
    repeated : bool
        Whether a second signal took effect.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.repeated = False
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> DelayedSignals:
        self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        leaving = kind is not None and not issubclass(kind, Exception)  # KeyboardInterrupt, SystemExit and the like
        if self.pending is not None and not leaving:
            signal.raise_signal(self.pending)

    def deliver(self) -> None:
        """Raise the waiting signal with the handlers that were set before. Returns if its handler returns."""
        if self.pending is None:
            return
        number, self.pending = self.pending, None
        self._restore()
        signal.raise_signal(number)
        self._install()

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in DELAYED:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: a handler that Python did not set and could not restore
                    self._before[number] = before
                    signal.signal(number, self._note)
        except BaseException:  # an old handler may raise before it is replaced
            self._restore()
            raise

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        in_child = os.getpid() != self._pid  # in a forked child, such as a data loader's worker, nothing calls `deliver`
        if self.pending is None and not in_child:
            self.pending, self._since = number, time.monotonic()
            return
        if not in_child and time.monotonic() - self._since < patience(number):
            return
        self.repeated, self.pending = True, None
        self._restore()
        signal.raise_signal(number)
