"""How a command ends: its exit code, its one line for what went wrong, and what a signal does to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from usae._base import progress

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


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Let this process run a command: any name can be printed, signals end it in order, and its progress is seen."""
    with _any_name_can_be_printed(), _signals_end_it_in_order():
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
def _signals_end_it_in_order() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP, unless they are ignored (nohup) or the caller handles them."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def reader_has_gone() -> int:
    """Return the exit code after the reader of stdout has gone, as of ``usae evaluate ... | head``, and let nothing follow."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
    return 128 + signal.SIGPIPE
