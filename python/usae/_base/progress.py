"""A progress bar for terminals and notebooks, and lines of progress for logs."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from usae._base import checks

in_lines: contextvars.ContextVar[bool] = contextvars.ContextVar("in_lines", default=False)
"""Whether progress is told in lines where nobody sees a bar. The command line sets this."""

logger = logging.getLogger("usae")


def progress_bar(total: int | None, progress: object, desc: str = "training", unit: str = "step", initial: int = 0) -> Any:
    """Return what shows progress: a bar of tqdm in a terminal or a notebook, and elsewhere lines.

    `total` None: unknown length. `progress` True: lines go to stderr where a bar would not be seen. None: that is so in a
    command; otherwise they go to the logger "usae", now and then. False: nothing is shown.
    """
    progress = checked(progress)
    notebook = _in_notebook()
    if progress is False:
        return _NoBar()
    if not notebook and not (sys.stderr is not None and sys.stderr.isatty()):
        if progress or in_lines.get():
            return Lines(total, desc, unit, initial)
        return LoggedLines(total, desc, unit, initial) if logger.isEnabledFor(logging.INFO) else _NoBar()
    if notebook:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, initial=initial, unit=unit, desc=desc, dynamic_ncols=True)


def row_bar(total: int, progress: object, desc: str, shortest: int) -> Any:
    """Return what shows progress over rows, or nothing where there are at most `shortest` of them, which takes no time."""
    return progress_bar(total, checked(progress) if total > shortest else False, desc, "row")


def follower(bar: Any) -> Callable[[int], None] | None:
    """Return what a call of the core tells how many rows are done, and brings the bar there. None: nothing is shown."""
    if type(bar) is _NoBar:
        return None
    done = 0

    def follow(rows: int) -> None:
        nonlocal done
        bar.update(rows - done)
        done = rows

    return follow


def checked(progress: object) -> bool | None:
    """Return the argument `progress` of a function that trains or reads for long. InvalidInputError if it is none."""
    return None if progress is None else checks.boolean(progress, "progress", " or None")


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code. That its packages are imported does not mean so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class _NoBar:
    """Replaces a bar that is not shown, so that tqdm is not imported: its import takes longer than a small training step."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int = 1) -> None:
        pass

    def set_postfix_str(self, *_: object, **__: object) -> None:
        pass


class Lines(_NoBar):
    """Tells progress in lines on stderr: after the first piece of work, every `SECONDS`, and after the last."""

    SECONDS = 30.0

    def __init__(self, total: int | None, desc: str, unit: str, initial: int):
        self._total, self._desc, self._unit = total, desc, unit
        self._first = self._done = initial
        self._words = ""
        self._start = time.monotonic()
        self._told = -float("inf")

    def update(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if self._is_due(now):
            self._told = now
            self._tell(self._line(now - self._start))

    def _is_due(self, now: float) -> bool:
        return now - self._told >= self.SECONDS or self._done == self._total

    def _tell(self, line: str) -> None:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # a stderr that was closed must not end hours of work
                print(line, file=sys.stderr, flush=True)

    def set_postfix_str(self, *words: object, **_: object) -> None:
        self._words = str(words[0])

    def _line(self, seconds: float) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self._desc}: {self._unit} {self._done:,}{of}", *([self._words] if self._words else []), _duration(seconds)]
        done = self._done - self._first
        if self._total is not None and done > 0 and self._done < self._total:
            parts.append(f"about {_duration(seconds / done * (self._total - self._done))} left")
        return ", ".join(parts)


class LoggedLines(Lines):
    """Tells progress to the logger "usae" every `SECONDS`, of what takes so long at all."""

    def __init__(self, total: int | None, desc: str, unit: str, initial: int):
        super().__init__(total, desc, unit, initial)
        self._told = self._start

    def _is_due(self, now: float) -> bool:
        return now - self._told >= self.SECONDS

    def _tell(self, line: str) -> None:
        logger.info("%s", line)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
