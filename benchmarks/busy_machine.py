"""Passes of small networks beside busy processes: python benchmarks/busy_machine.py [--threads N] [--busy N].

Times the three networks of the demonstration, there and back for eight crops as in a step of maximization, alone and beside
processes that only compute, for each way in which PyTorch's threads can be set up. The ways take turns, and medians are of the
rounds. A process of two threads beside two busy ones on two cores has half of the machine, so 2 is a fair ratio there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

WAYS = {
    "PyTorch's own": ({}, 0, 1),
    "threads sleep": ({"OMP_WAIT_POLICY": "PASSIVE"}, 0, 1),
    "one thread": ({}, 1, 1),
    "one thread a pass, passes at once": ({"OMP_WAIT_POLICY": "PASSIVE"}, 1, 0),
}
"""For each way the environment, the threads of a pass, and the passes at once; 0 is --threads."""

VIEWS = 8
BUSY = "while True: pass"


def worker(threads: int, at_once: int) -> None:
    """For each line of stdin, which has a number of seconds, run passes for so long, and print milliseconds of three."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import torch

    from usae.demo.networks import load_models

    torch.set_num_threads(threads)
    models = list(load_models().values())
    views = np.random.default_rng(0).random((VIEWS, 3, 64, 64), dtype=np.float32)

    def passes(of: int) -> int:
        """Run passes until the time is over, each time of the next network, and return how many."""
        done = 0
        while time.perf_counter() < end:
            activations, pull = models[(of + done) % len(models)].vjp(views)
            pull(np.ones_like(activations))
            done += 1
        return done

    with ThreadPoolExecutor(at_once, initializer=lambda: torch.set_num_threads(threads)) as pool:
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            start, cpu = time.perf_counter(), time.process_time()
            end = start + float(line)
            done = passes(0) if at_once == 1 else sum(pool.map(passes, range(at_once)))  # OpenMP waits otherwise in new threads
            scale = 1e3 * len(models) / done
            print(json.dumps([scale * (time.perf_counter() - start), scale * (time.process_time() - cpu)]), flush=True)


class Worker:
    """A process that computes as one of the ways says."""

    def __init__(self, way: str, threads: int):
        variables, in_a_pass, at_once = WAYS[way]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
        numbers = [str(in_a_pass or threads), str(at_once or threads)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *numbers],
            env=environment | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def time(self, seconds: float) -> list[float]:
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=2, help="processes beside (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (%(default)s)")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
        return
    workers = {way: Worker(way, options.threads) for way in WAYS}
    times: dict[tuple[str, int], list[list[float]]] = {}
    try:
        for beside in (0, options.busy):
            with busy_processes(beside):
                for turn in range(options.rounds + 1):
                    for way, process in workers.items():
                        found = process.time(options.seconds)
                        if turn or beside:  # the first turn is a warm-up
                            times.setdefault((way, beside), []).append(found)
    finally:
        for process in workers.values():
            process.end()
    print(f"load average {os.getloadavg()[0]:.1f}; milliseconds of wall clock (of processor) for a pass of each network")
    print(f"{'':36}{'alone':>16}{f'beside {options.busy}':>16}{'ratio':>8}")
    for way in WAYS:
        alone, beside = ([statistics.median(x) for x in zip(*times[way, n], strict=True)] for n in (0, options.busy))
        cells = [f"{wall:8.0f} ({cpu:4.0f})" for wall, cpu in (alone, beside)]
        print(f"{way:36}{cells[0]:>16}{cells[1]:>16}{beside[0] / alone[0]:8.1f}")


if __name__ == "__main__":
    main()
