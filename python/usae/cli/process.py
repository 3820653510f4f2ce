"""How a command ends: its exit code, its one line for what went wrong, and what a signal does to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import usae
from usae._base import progress
from usae._training.delayed_signals import DELAYED, patience

BAD_INPUT = 2
INTERRUPTED = 130


class Terminated(BaseException):
    """SIGTERM or SIGHUP came, as schedulers and closed terminals send it. Commands save what they can and end."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def tell(message: object) -> None:
    """Print one line on stderr. What cannot be printed is escaped, so that the line is one and does no harm to a terminal."""
    with contextlib.suppress(OSError, ValueError):  # a closed stderr
        print(f"usae: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(message: object) -> str:
    """Return text on one line, with escapes for characters that a terminal would not show."""
    text = " ".join(str(message).split("\n"))
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def show_traceback(error: BaseException) -> None:
    """Print where an exception was raised, if the environment variable USAE_TRACEBACK asks for it."""
    if os.environ.get("USAE_TRACEBACK", "0") not in ("", "0"):
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exception(error)


def unforeseen(error: BaseException) -> str:
    """Describe an exception that usae did not raise on purpose, and whose code raised it."""
    text = f": {error}" if str(error) else ""
    return f"{type(error).__name__} in {_raiser(error)}{text} (USAE_TRACEBACK=1 shows where)"


def _raiser(error: BaseException) -> str:
    """Return the module that was last entered, but for libraries if a module of the user's was entered before them."""
    libraries = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib", "platlib"))
    libraries += (os.path.join(os.path.dirname(usae.__file__), ""),)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith((*libraries, "<"))]
    return str((own or frames)[-1].f_globals.get("__name__", "unknown code")) if frames else "unknown code"


@contextlib.contextmanager
def prepared(whole: bool) -> Iterator[None]:
    """Let this process run a command: any name can be printed, signals end it in order, and its progress is seen.

    `whole` says whether the process ends after the command.
    """
    with _any_name_can_be_printed(), _signals_end_it_in_order(whole):
        token = progress.in_lines.set(True)
        try:
            yield
        finally:
            progress.in_lines.reset(token)


@contextlib.contextmanager
def _any_name_can_be_printed() -> Iterator[None]:
    """Names of files may hold bytes that are no text, and models' names letters that the terminal's encoding lacks."""
    stream = sys.stdout
    errors = getattr(stream, "errors", None)
    if errors is None or not hasattr(stream, "reconfigure"):
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):  # the stream was closed meanwhile, or its reader has gone
            stream.reconfigure(errors=errors)


@contextlib.contextmanager
def _signals_end_it_in_order(whole: bool) -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`, and SIGTERM and SIGHUP `Terminated`. Repeated ones do nothing for some seconds.

    Signals that are ignored (nohup) or that the caller handles stay as they are.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        _ending.reset()
        for number in DELAYED:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _ending.on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if whole and _ending.since is not None else handler)  # it is ending


class _Ending:
    """What signals have come to this process while it runs a command."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.since: float | None = None
        self.waits = False
        self.pending: int | None = None
        self.pid = os.getpid()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.pid:  # and not a child, such as a data loader's worker
            now = time.monotonic()
            if self.since is not None and now - self.since < patience(number):
                return
            first, self.since = self.since is None, now
            if first and self.waits:
                self.pending = number
                return
        raise_for(number)


_ending = _Ending()


def raise_for(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Let the first signal wait for the end of a block that must not be cut short, and raise its exception there."""
    _ending.waits = True
    try:
        yield
    finally:
        _ending.waits = False
    if (number := _ending.pending) is not None:
        _ending.pending = None
        raise_for(number)


def reader_has_gone() -> int:
    """Return the exit code after the reader of stdout has gone, as of ``usae evaluate ... | head``, and let nothing follow."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
    return 128 + signal.SIGPIPE
