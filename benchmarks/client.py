"""The benchmark's side of workers, which are processes that stay alive, each with its own interpreter and environment."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# These variables decide which kernels OpenBLAS uses, and so how fast everything is that calls it.
OPENBLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


# Seconds between calls. Threads of OpenMP and OpenBLAS in the worker that was called before spin after their work, those of
# OpenBLAS for 2**26 cycles.
PAUSE = 0.05


class WorkerError(Exception):
    """An error in a worker, in one line. `details` has its traceback or the last lines it printed."""

    def __init__(self, summary: str, details: str = ""):
        super().__init__(summary)
        self.details = details


class Worker:
    """A process that runs `workers/<script>` and answers calls, one at a time.

    Parameters
    ----------
    script : str
        Name of a file in `workers`.
    python : path-like
        The interpreter.
    threads : int
        Number of threads of every library that takes it from the environment.
    kernels : str, optional
        Value of USAE_KERNELS. Default: None, which leaves it unset, so that the best kernels of the processor are used.
    """

    def __init__(self, script: str, python: str | os.PathLike[str], threads: int, kernels: str | None = None):
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in OPENBLAS_VARIABLES and not name.startswith(("USAE_", "PYTHON"))
        }
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
        if kernels is not None:
            environment["USAE_KERNELS"] = kernels
        environment |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.name = script
        self._process = subprocess.Popen(
            [os.fspath(python), os.fspath(HERE / "workers" / script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._printed: collections.deque[str] = collections.deque(maxlen=40)
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._printed.append(line)

    def call(self, command: str, **arguments: Any) -> Any:
        """Return the result of a command. Raises WorkerError if the command failed or the worker has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        time.sleep(PAUSE)
        try:
            self._process.stdin.write(json.dumps({"command": command, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._reader.join(1)
            last = "".join(self._printed)
            reason = last.strip().splitlines()[-1] if last.strip() else "it printed nothing"
            raise WorkerError(f"{self.name} ended with code {code}: {reason}", last)
        answer = json.loads(line)
        if "error" in answer:
            summary = answer["error"].splitlines()[0]
            raise WorkerError(summary if len(summary) <= 160 else summary[:157] + "...", answer["traceback"])
        return answer["result"]

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
