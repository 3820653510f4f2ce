"""Ctrl-C and SIGTERM that wait until training is between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class DelayedSignals:
    """Within ``with``, the first SIGINT or SIGTERM is noted, for `deliver`. A second one is obeyed at once.

    Only in the main thread, which alone may set handlers; in others nothing changes. What is ignored stays ignored, and
    leaving ``with`` puts back the handlers that were there.

    Attributes
    ----------
    pending : int or None
        The signal that was noted.
    impatient : bool
        Whether there was a second one.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.impatient = False
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> DelayedSignals:
        self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        leaving = kind is not None and not issubclass(kind, Exception)  # for this signal, or as strong a reason
        if self.pending is not None and not leaving:
            signal.raise_signal(self.pending)

    def deliver(self) -> None:
        """Hand the noted signal to whom it was meant for. Returns where that handler does."""
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
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: not set by Python, which could not put it back
                    self._before[number] = before
                    signal.signal(number, self._note)
        except BaseException:  # of a handler that was still in place
            self._restore()
            raise

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        in_child = os.getpid() != self._pid  # of a fork, a data loader's worker for one, which nobody would deliver it to
        if self.pending is None and not in_child:
            self.pending = number
            return
        self.impatient, self.pending = True, None
        self._restore()
        signal.raise_signal(number)
