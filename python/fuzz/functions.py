"""Calls every public function of usae with hostile arguments: ``python python/fuzz/functions.py --seed 0 --cases 5000``.

An error must be one of usae's, or a ValueError or TypeError, that names an argument; a call that fails may change nothing, and
no call an argument. Cases run in a child process with 2 GB of memory, so that a crash, a hang or a leak is one fault and not
the end. The last line has the counts; the exit code is 1 if there was a fault.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import numbers
import os
import pathlib
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import arguments as command_line
from processes import Case


def cases_of(seed: int, first: int, last: int) -> Iterator[Case]:
    """Give cases: the targets in turn, with arguments that follow from the seed and the number."""
    import hostile
    import matplotlib
    import targets

    warnings.simplefilter("ignore")
    logging.disable()
    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        everything = targets.all_of(targets.Context(pathlib.Path(folder)))
        names = sorted(everything)
        os.chdir(folder)
        for number in range(first, last):
            name = names[number % len(names)]
            draw = random.Random(seed * 1_000_003 + number)
            yield number, name, functools.partial(quiet_case, everything[name], draw, hostile, targets)


def quiet_case(make: Any, draw: random.Random, hostile: Any, targets: Any) -> tuple[str, str]:
    """Run a case without what it prints and without the figures that it leaves."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        told = case(make, draw, hostile, targets)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    return told


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


if __name__ == "__main__":
    sys.exit(command_line.main(__file__, __doc__, cases_of))
