"""Runs the cases of a fuzzer in processes whose memory and time are limited, so that a crash, a hang or a leak is one fault.

A process tells on its stdout, in lines of JSON, which case begins and what came of it. Whoever watches it starts another one
after a case that ended it.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MEMORY = 2 * 2**30
"""Bytes that a process may take beyond what it has before its first case."""

HANG = 60.0
"""Seconds without news after which a case hangs. A case takes some hundredths of a second, but the machine may be busy."""

START = 120.0
"""Seconds more for the first case, before which examples are made."""

Case = tuple[int, str, Callable[[], tuple[str, str]]]
"""Its number, what messages call it, and a function that returns "fault" or another outcome, and words."""


# --- In the process that runs cases -----------------------------------------------------------------------------------


def run_cases(cases: Iterable[Case]) -> None:
    """Run cases one by one. What is made before `cases` gives its first one does not count for the limit of memory."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is called may print
    limit = 0
    for number, name, run in cases:
        limit = limit or _limit_memory()
        print(json.dumps({"begins": number, "name": name}), file=out)
        outcome, words = run()
        peak = _peak()
        if peak > limit:
            outcome, words = "fault", f"memory: {peak / 2**30:.1f} GB"
        print(json.dumps({"ends": number, "outcome": outcome, "words": words}), file=out)


def _peak() -> int:
    """Return the most resident memory that this process had, in bytes. (ru_maxrss would start at what its parent had.)"""
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def _limit_memory() -> int:
    """Limit the memory of this process, and return the limit in bytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return limit


# --- In the process that watches --------------------------------------------------------------------------------------


class Watch:
    """Runs the cases of `command` until a time, and counts outcomes: those of cases, "crash" and "hang"."""

    def __init__(self, command: list[str], until: float):
        self._command, self._until = command, until
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def n_faults(self) -> int:
        return self.counts["fault"] + self.counts["crash"] + self.counts["hang"]

    def run(self, first: int, last: int) -> int:
        """Run the cases from `first` to before `last`. Returns the number of the case that did not begin."""
        while first < last and time.monotonic() < self._until:
            first = self._run_in_one_process(first, last)
        return first

    def _run_in_one_process(self, first: int, last: int) -> int:
        running, following = None, first
        command = [sys.executable, *self._command, "--first", str(first), "--last", str(last)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        with tempfile.TemporaryFile() as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process:  # fmt: skip
            for told in _told(process):
                if "begins" in told:
                    running, following = told, told["begins"] + 1
                    continue
                running = None
                self._note(told["outcome"], following - 1, told["words"])
                if time.monotonic() > self._until:
                    break
            hangs = process.poll() is None
            process.kill()
            status = process.wait()
            if running is None and (following >= last or time.monotonic() >= self._until):
                return following
            errors.seek(0)
            end = errors.read()[-3000:].decode(errors="replace")
        number, name = (following, "start") if running is None else (running["begins"], running["name"])
        what = f"no news for {HANG:.0f} s" if hangs else f"the process ended with {status}"
        self._note("hang" if hangs else "crash", number, f"{name}: {what}; {end}")
        return number + 1

    def _note(self, outcome: str, number: int, words: str) -> None:
        self.counts[outcome] += 1
        if outcome in ("fault", "crash", "hang"):
            print(f"{outcome.upper()}: {' '.join(self._command)} --first {number} --last {number + 1}\n{words}", flush=True)


def _told(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield what a process tells, until it ends or there is no news from it."""
    assert process.stdout is not None
    pipe, rest, patience = process.stdout.fileno(), b"", START + HANG  # unbuffered: what is in a buffer cannot be waited for
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(patience):
            data = os.read(pipe, 2**16)
            if not data:
                process.wait()
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)
            patience = HANG
