"""The fuzzers see a crash, a hang and a leak as one fault each, and go on behind it."""

import pathlib
import sys
import time

import pytest

FUZZERS = pathlib.Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZERS))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")]

PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import processes
def leaks():
    try:
        bytearray(3 * 2**30)
    except MemoryError:
        return "refused", ""
    return "ok", ""
acts = [lambda: ("ok", ""), os.abort, lambda: print("x") or ("ok", ""), lambda: time.sleep(60), leaks, lambda: ("fault", "x")]
first, last = int(sys.argv[3]), int(sys.argv[5])
processes.run_cases((number, f"case {number}", acts[number]) for number in range(first, last))
"""


def test_what_ends_a_process_is_one_case(tmp_path, monkeypatch, capsys):
    import processes

    monkeypatch.setattr(processes, "HANG", 2.0)
    script = tmp_path / "fuzzer.py"
    script.write_text(PROGRAM)
    watch = processes.Watch([str(script), str(FUZZERS)], time.monotonic() + 100)
    assert watch.run(0, 6) == 6
    assert watch.counts == {"ok": 2, "crash": 1, "hang": 1, "refused": 1, "fault": 1} and watch.n_faults == 3
    told = capsys.readouterr().out
    assert all(f"--first {number} --last {number + 1}" in told for number in (1, 3, 5))
