"""Calls every public function of usae with hostile arguments: ``python python/fuzz/functions.py --seed 0 --cases 5000``.

An error must be one of usae's, or a ValueError or TypeError, that names an argument; a call that fails may change nothing, and
no call an argument. Cases run in a child process with 2 GB of memory, so that a crash, a hang or a leak is one fault and not
the end. The last line has the counts; the exit code is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import logging
import numbers
import os
import pathlib
import random
import re
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

MEMORY = 2 * 2**30
HANG = 60.0
"""Seconds of one case after which it counts as hanging."""

CHILD = ("--child",)


def child(seed: int, first: int, cases: int) -> None:
    """Run cases. Prints the number of each before it starts, and what came of it, as JSON lines."""
    import hostile
    import targets

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    logging.disable()
    import matplotlib

    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        context = targets.Context(pathlib.Path(folder))
        everything = targets.all_of(context)
        names = sorted(everything)
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limit))
        os.chdir(folder)
        for number in range(first, first + cases):
            draw = random.Random(seed * 1_000_003 + number)
            name = names[number % len(names)]
            print(json.dumps({"case": number, "target": name}), file=out)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                told = case(everything[name], draw, hostile, targets)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if peak > MEMORY:
                told = ("fault", f"memory: {peak / 2**30:.1f} GB")
            print(json.dumps({"case": number, "outcome": told[0], "what": told[1]}), file=out)
            matplotlib.pyplot.close("all") if hasattr(matplotlib, "pyplot") else None


def case(make: Any, draw: random.Random, hostile: Any, targets: Any) -> tuple[str, str]:
    """Call a target with some arguments replaced. Returns "ok", "refused" or "fault", and words."""
    function, arguments = make()
    changed = draw.sample(sorted(arguments), min(len(arguments), draw.choice([1, 1, 1, 2, 3])))
    for name in changed:
        arguments[name] = hostile.like(arguments[name], draw) if draw.random() < 0.5 else hostile.value(draw)
    for name in set(changed) & LONG:
        if takes_long(arguments[name]):
            arguments[name] = -1
    if draw.random() < 0.03:
        arguments[draw.choice(["unknown", "self_", "Acts"])] = 1
    owner = targets.owner_of(function)
    before = None if owner is None else targets.state_of(owner)
    inputs = {name: targets.fingerprint(value) for name, value in arguments.items()}
    words = f"{', '.join(f'{name}={shown(arguments.get(name))}' for name in changed)}"
    try:
        function(**arguments)
    except Exception as error:
        fault = fault_of(error, arguments)
        if not fault and owner is not None and targets.state_of(owner) != before and not began(error, function):
            fault = "it failed and changed its object"
        outcome = ("fault", f"{words}: {fault}: {type(error).__name__}: {shown(error)}") if fault else ("refused", "")
    else:
        outcome = ("ok", "")
    for name, fingerprint in inputs.items():
        if targets.fingerprint(arguments[name]) != fingerprint and not (name == "sae" or outcome[0] == "fault"):
            outcome = ("fault", f"{words}: it modified its argument {name}")
    return outcome


LONG = {
    "steps",
    "epochs",
    "n_draws",
    "n_permutations",
    "n_seeds",
    "warmup",
    "views",
    "n_tokens",
    "buffer_tokens",
    "top",
    "bins",
}
"""Arguments with which a caller may ask for hours of work or for any memory."""


def takes_long(value: Any) -> bool:
    return isinstance(value, numbers.Real) and 1000 < value <= 2**53


def began(error: Exception, function: Any) -> bool:
    """Whether training may have begun before this error, so that what was learned is kept, as documented."""
    name = getattr(function, "__name__", "")
    return (name in ("fit", "fit_stream") and "loss" in str(error)) or (name == "fit_stream" and "batches" in str(error))


def fault_of(error: Exception, arguments: dict[str, Any]) -> str:
    """Return what is wrong with an error, or "" if nothing is."""
    import usae

    if isinstance(error, MemoryError):
        return "" if isinstance(error, usae.UsaeError) else "another library's MemoryError"
    if isinstance(error, IndexError) and "row" in str(error):
        return ""  # as of a sequence
    if type(error).__name__ == "Surprise" and "batches" in arguments:
        return ""  # what a stream raises while it makes a batch is the caller's own
    if isinstance(error, ImportError) and "pip install" in str(error):
        return ""
    if not isinstance(error, (usae.UsaeError, ValueError, TypeError)):
        return "an error of another kind"
    try:
        text = str(error)
    except Exception:
        return "its text cannot be shown"
    if isinstance(error, (usae.CheckpointError, usae.OtherProcessError)):
        return ""  # they name files
    if isinstance(error, usae.UsaeError):
        return "" if len(text) < 3000 else "its text is endless"
    known = [*arguments, "self", *WORDS]
    return "" if any(re.search(rf"(?<!\w){re.escape(name)}", text) for name in known) else "it names no argument"


WORDS = ("recipe", "activations of", "argument")


def shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 160 else f"{text[:120]}... ({type(value).__name__})"


def run(script: str, seed: int, cases: int, seconds: float, options: tuple[str, ...] = ()) -> int:
    """Run cases in child processes, and print the faults and a line of counts. Returns the exit code."""
    counts: collections.Counter[str] = collections.Counter()
    end, number = time.monotonic() + seconds, 0
    while number < cases and time.monotonic() < end:
        number = some(script, seed, number, cases, end, counts, options)
    print(
        f"{pathlib.Path(script).stem}: seed {seed}, {number} cases: {counts['ok']} succeeded, {counts['refused']} refused, "
        f"{counts['fault']} faults, {counts['crash']} crashes, {counts['hang']} hangs"
    )
    return 1 if counts["fault"] or counts["crash"] or counts["hang"] else 0


def some(script: str, seed: int, first: int, cases: int, end: float, counts: collections.Counter[str], options: Any) -> int:
    """Run a child until it ends. Returns the number of the next case."""
    command = [
        sys.executable,
        script,
        *options,
        *CHILD,
        "--seed",
        str(seed),
        "--first",
        str(first),
        "--cases",
        str(cases - first),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    number, target, done = first, "start", True
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    try:
        while time.monotonic() < end:
            if not selector.select(timeout=HANG + (120 if number == first and done else 0)):
                counts["hang"] += 1
                print(f"case {number}, {target}: no end after {HANG:.0f} s")
                return number + 1
            line = process.stdout.readline()
            if not line:
                break
            told = json.loads(line)
            if "outcome" not in told:
                number, target, done = told["case"], told["target"], False
                continue
            counts[told["outcome"]] += 1
            done = True
            if told["outcome"] == "fault":
                print(f"case {number}, {target}: {told['what']}", flush=True)
            number += 1
    finally:
        process.kill()
        errors = process.communicate()[1]
    if time.monotonic() < end and (number < cases or not done):
        counts["crash"] += 1
        print(f"case {number}, {target}: the process ended with {process.returncode}: {errors[-2000:]}", flush=True)
        return number + 1
    return number


def parsed(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parsed(__doc__)
    if options.child:
        child(options.seed, options.first, options.cases)
        return 0
    return run(__file__, options.seed, options.cases, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
