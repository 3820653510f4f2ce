"""The command line of the fuzzers of functions and of commands, and their line of counts."""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Iterator

from processes import Case, Watch, run_cases


def main(script: str, description: str | None, cases_of: Callable[[int, int, int], Iterator[Case]]) -> int:
    """Watch the cases, or run them in this process if that is what it was started for. Returns the exit code.

    `cases_of` gives the cases of a seed, from a number to before another.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first is not None:
        run_cases(cases_of(options.seed, options.first, options.last))
        return 0
    watch = Watch([script, "--seed", str(options.seed)], time.monotonic() + options.seconds)
    n_cases, counts = watch.run(0, options.cases), watch.counts
    print(
        f"{pathlib.Path(script).stem}: seed {options.seed}, {n_cases} cases: {counts['ok']} succeeded, {counts['refused']} "
        f"refused, {counts['fault']} faults, {counts['crash']} crashes, {counts['hang']} hangs"
    )
    return 1 if watch.n_faults else 0
