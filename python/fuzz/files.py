"""Damages files of every format that usae reads, and looks at what reading them does.

    python python/fuzz/files.py --seed 0 --cases 14000 --seconds 600

Each case is a copy of a whole example, damaged in a way that follows from the seed, the format and the case's number. It is
read, and where the format is one that usae writes, written again, in a process whose memory and time are limited. A case is a
fault if the process crashes, hangs or takes more than 2 GB, if an exception comes that is not of usae, if something is read
that was never written, or if a file elsewhere is changed. The last line has counts of each format; the exit status is 1 if
there are faults. `--format F --case N` runs one case, and shows what comes.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator

from file_formats import formats
from processes import Case, Watch, run_cases

VICTIM = b"nobody may write here"


def cases_of(seed: int, name: str, first: int, last: int) -> Iterator[Case]:
    """Give cases of a format."""
    with tempfile.TemporaryDirectory(prefix="usae-fuzz-") as folder:
        examples = pathlib.Path(folder)
        all_formats = formats(examples)
        for other in {name, "save", "checkpoints"}:
            (examples / other).mkdir()
            all_formats[other].make(examples / other)
        for number in range(first, last):
            draw = random.Random(f"{seed} {name} {number}")
            yield number, name, functools.partial(run_case, all_formats[name], examples / name, examples / "case", draw)


def run_case(form, example: pathlib.Path, folder: pathlib.Path, draw: random.Random) -> tuple[str, str]:
    """Return "read", "refused" or "fault", and what came."""
    import usae

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "victim").write_bytes(VICTIM)
    shutil.copytree(example, folder / "files")
    before = set(os.listdir(folder))
    form.damage(folder / "files", draw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form.use(folder / "files")
        outcome, text = "read", ""
    except usae.UsaeError as error:
        hidden = _memory_error_behind(error) and not isinstance(error, MemoryError)
        outcome, text = ("fault" if hidden else "refused"), f"{type(error).__name__}: {error}"
    except Exception as error:
        outcome, text = "fault", "".join(traceback.format_exception(error))
    if (folder / "victim").read_bytes() != VICTIM or set(os.listdir(folder)) != before:
        outcome, text = "fault", "a file outside was changed or made"
    return outcome, text[-2000:]


def _memory_error_behind(error: BaseException | None) -> bool:
    """Whether a limit of memory was reached, although the error that came says something else."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="what decides every case")
    parser.add_argument("--cases", type=int, default=14_000, help="number of cases, of all formats together")
    parser.add_argument("--seconds", type=float, default=600, help="time after which no further case begins")
    parser.add_argument("--format", help="only this format")
    parser.add_argument("--case", type=int, help="run this case of the format here, and show what comes")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        options.first, options.last = options.case, options.case + 1
    if options.first is not None:
        run_cases(cases_of(options.seed, options.format, options.first, options.last))
        return 0
    names = [options.format] if options.format else list(formats(pathlib.Path()))
    start, lines, faults = time.monotonic(), [], 0
    for number, name in enumerate(names):
        command = [__file__, "--seed", str(options.seed), "--format", name]
        watch = Watch(command, start + options.seconds * (number + 1) / len(names))
        watch.run(0, max(1, options.cases // len(names)))
        faults += watch.n_faults
        lines.append(f"{name} {watch.counts.total()} ({watch.counts['refused']} refused, {watch.counts['read']} read)")
    print(f"files, seed {options.seed}: {'; '.join(lines)}; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
