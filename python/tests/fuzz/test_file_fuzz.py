"""A short run of the fuzzer of files; `python python/fuzz/files.py` is the long one."""

import pathlib
import re
import subprocess
import sys

import pytest

FUZZER = pathlib.Path(__file__).parents[2] / "fuzz" / "files.py"


def fuzz(*words):
    return subprocess.run([sys.executable, FUZZER, *words], capture_output=True, text=True)


@pytest.mark.slow
def test_damaged_files_of_every_format_are_refused_or_read_as_they_were():
    done = fuzz("--seed", "5", "--cases", "420", "--seconds", "120")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = re.findall(r"([a-z ]+) (\d+) \((\d+) refused, (\d+) read\)", done.stdout.splitlines()[-1])
    assert len(counts) >= 14 and all(int(cases) == int(refused) + int(read) > 0 for _, cases, refused, read in counts)
    assert sum(int(refused) for *_, refused, _ in counts) > sum(int(cases) for _, cases, *_ in counts) / 3


def test_a_fault_is_seen_and_can_be_repeated(monkeypatch):
    """A whole example is no fault, and one that raises something else is."""
    program = """
import pathlib, random, sys, tempfile
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
import files
from file_formats import Format
with tempfile.TemporaryDirectory() as folder:
    example, case = pathlib.Path(folder, "example"), pathlib.Path(folder, "case")
    example.mkdir()
    (example / "x").touch()
    def hides(folder):
        import usae
        try:
            bytearray(2**62)
        except MemoryError as error:
            raise usae.CheckpointError("x") from error
    for use in (lambda f: None, lambda f: {}[0], lambda f: (f.parent / "victim").write_text(""), hides):
        print(files.run_case(Format(None, lambda f, draw: None, use), example, case, random.Random(0))[0])
"""
    done = subprocess.run([sys.executable, "-c", program, FUZZER], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["read", "fault", "fault", "fault"]
