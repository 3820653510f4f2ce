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
import collections
import os
import pathlib
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings

MEMORY = 2**31
"""Bytes that a process may take beyond what it has when usae is imported."""

CASE_SECONDS = 60.0
"""Seconds without news after which a process hangs. A case takes some hundredths of a second, but the machine may be busy."""

VICTIM = b"nobody may write here"


# --- In the process that reads ----------------------------------------------------------------------------------------


def run_cases(seed: int, name: str, first: int, last: int) -> None:
    """Run the cases of a format, with a line before each one and one after it."""
    from file_formats import formats

    with tempfile.TemporaryDirectory(prefix="usae-fuzz-") as folder:
        examples = pathlib.Path(folder)
        all_formats = formats(examples)
        for other in {name, "save", "checkpoints"}:
            (examples / other).mkdir()
            all_formats[other].make(examples / other)
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
        if pages:
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for case in range(first, last):
            print(f"begin {case}", flush=True)
            outcome, text = run_case(
                all_formats[name], examples / name, examples / "case", random.Random(f"{seed} {name} {case}")
            )
            print(f"end {case} {outcome} {text}", flush=True)


def run_case(form, example: pathlib.Path, folder: pathlib.Path, draw: random.Random) -> tuple[str, str]:
    """Return "read", "refused" or "fault", and what came, on one line."""
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
    if 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 2 * MEMORY:
        outcome, text = "fault", "it took more than 4 GB"
    return outcome, repr(text[-2000:])


def _memory_error_behind(error: BaseException | None) -> bool:
    """Whether a limit of memory was reached, although the error that came says something else."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- In the process that watches --------------------------------------------------------------------------------------


class Watch:
    """Runs cases in processes, and counts what becomes of them."""

    def __init__(self, seed: int, until: float):
        self._seed, self._until = seed, until
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[tuple[str, int, str]] = []

    def run(self, name: str, first: int, last: int) -> None:
        """Run cases of a format, in a new process after each one that ends its process."""
        while first < last and time.monotonic() < self._until:
            first = self._run_in_one_process(name, first, last)

    def _run_in_one_process(self, name: str, first: int, last: int) -> int:
        """Return the number of the next case."""
        words = ["--seed", self._seed, "--format", name, "--first", first, "--last", last]
        with tempfile.TemporaryFile() as errors, subprocess.Popen(
            [sys.executable, __file__, *map(str, words)],
            stdout=subprocess.PIPE, stderr=errors,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        ) as process:  # fmt: skip
            running = None
            for line in self._lines(process):
                kind, number, *rest = line.split(" ", 3)
                if kind == "begin":
                    running = int(number)
                    continue
                self._note(name, int(number), *rest)
                first, running = int(number) + 1, None
                if time.monotonic() > self._until:
                    break
            hangs = process.poll() is None
            process.kill()
            status = process.wait()
            if running is not None or (first < last and time.monotonic() < self._until):
                errors.seek(0)
                end = errors.read()[-3000:].decode(errors="replace")
                what = f"no news for {CASE_SECONDS} s" if hangs and running is not None else f"ended with status {status}"
                self._note(name, first if running is None else running, "fault", f"{what}; {end}")
                return (first if running is None else running) + 1
        return first

    def _lines(self, process: subprocess.Popen[bytes]):
        """Yield the lines that a process writes, until it ends or there is no news from it."""
        pipe, rest = process.stdout.fileno(), b""  # unbuffered, because what is in a buffer cannot be waited for
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while selector.select(CASE_SECONDS):
                data = os.read(pipe, 2**16)
                if not data:
                    process.wait()
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from (line.decode() for line in lines)

    def _note(self, name: str, case: int, outcome: str, text: str = "") -> None:
        self.counts[outcome] += 1
        if outcome == "fault":
            self.faults.append((name, case, text))
            print(f"FAULT in {name}: --seed {self._seed} --format {name!r} --case {case}\n{text}", flush=True)


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
    if options.first is not None:
        run_cases(options.seed, options.format, options.first, options.last)
        return 0
    if options.case is not None:
        run_cases(options.seed, options.format, options.case, options.case + 1)
        return 0
    from file_formats import formats

    names = [options.format] if options.format else list(formats(pathlib.Path()))
    start, lines, faults = time.monotonic(), [], 0
    for number, name in enumerate(names):
        share = (number + 1) / len(names)
        watch = Watch(options.seed, start + options.seconds * share)
        watch.run(name, 0, max(1, options.cases // len(names)))
        faults += watch.counts["fault"]
        lines.append(f"{name} {watch.counts.total()} ({watch.counts['refused']} refused, {watch.counts['read']} read)")
    print(f"files, seed {options.seed}: {'; '.join(lines)}; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
