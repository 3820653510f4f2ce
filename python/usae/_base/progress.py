"""A progress bar for terminals and notebooks, and lines of progress for the logs of commands."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from typing import Any

from usae._base import checks

in_lines: contextvars.ContextVar[bool] = contextvars.ContextVar("in_lines", default=False)
"""Whether progress is told in lines where nobody sees a bar. The command line sets this."""


def progress_bar(total: int | None, progress: object, desc: str = "training", unit: str = "step", initial: int = 0) -> Any:
    """Return a tqdm bar. `total` None: unknown length. `progress` None: show it only in a terminal or a notebook."""
    progress = checked(progress)
    notebook = _in_notebook()
    if progress is None:
        progress = notebook or (sys.stderr is not None and sys.stderr.isatty())
        if not progress and in_lines.get():
            return Lines(total, desc, unit, initial)
    if not progress:
        return _NoBar()
    if notebook:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, initial=initial, unit=unit, desc=desc, dynamic_ncols=True)


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
        if now - self._told >= self.SECONDS or self._done == self._total:
            self._told = now
            with contextlib.suppress(OSError, ValueError):  # a stderr that was closed must not end hours of work
                print(self._line(now - self._start), file=sys.stderr, flush=True)

    def set_postfix_str(self, *words: object, **_: object) -> None:
        self._words = str(words[0])

    def _line(self, seconds: float) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self._desc}: {self._unit} {self._done:,}{of}", *([self._words] if self._words else []), _duration(seconds)]
        done = self._done - self._first
        if self._total is not None and done > 0 and self._done < self._total:
            parts.append(f"about {_duration(seconds / done * (self._total - self._done))} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
