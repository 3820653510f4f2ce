"""Workers of the rivals that are installed, and the check that their codes agree with ours."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import agreement
import environments
import problems
import settings
from client import Worker, WorkerError
from report import Report
from settings import Run

MODEL = "model"


class Sides:
    """Our one or two workers, and the rivals that could be installed and whose codes agree with ours for the same weights.

    Attributes
    ----------
    absent : dict of str to str
        For each other rival, why it is not here.
    """

    def __init__(self, run: Run, report: Report, stack: contextlib.ExitStack, batch: dict[str, str], plain_torch: bool):
        self.run = run
        self.width = 96 if run.quick else 768
        self.weights = problems.single_parameters(run.folder, self.width, run.n_concepts)
        self.batch = batch
        self.ours = {name: stack.enter_context(w) for name, w in settings.ours_with_and_without_screening(run).items()}
        self.rivals: dict[str, Worker] = {}
        self.variants: dict[str, dict[str, str]] = {}
        self.absent: dict[str, str] = {}
        versions: dict[str, Any] = {name: worker.call("info") for name, worker in self.ours.items()}
        for name in ["torch"] * plain_torch + run.rivals:
            try:
                python = sys.executable if name == "torch" else environments.python_of(name, install=run.install)
                worker = stack.enter_context(Worker(f"rival_{name}.py", python, run.threads))
                versions[name] = worker.call("info")
                worker.call("set_threads", threads=run.threads)
            except (environments.NotInstalled, WorkerError) as error:
                self.absent[name] = str(error)
                continue
            self.rivals[name] = worker
            self.variants[name] = versions[name].pop("variants")
        report.data["versions"] = versions
        self._check(report)
        report.data["absent"] = self.absent
        for name, reason in self.absent.items():
            report.words(f"Not measured: {name}. {reason}")

    def make_ours(self, worker: Worker, name: str, **recipe: Any) -> None:
        """Make an autoencoder of one model in our worker, with the weights of all sides."""
        worker.call(
            "make", name=name, base="default", n_concepts=self.run.n_concepts, k=self.run.k, threads=self.run.threads,
            changes=recipe, widths={MODEL: self.width},
        )  # fmt: skip
        worker.call("set_parameters", name=name, files={MODEL: self.weights})

    def make_rival(self, name: str, variant: str) -> None:
        self.rivals[name].call("make", file=self.weights, k=self.run.k, variant=variant)

    def _check(self, report: Report) -> None:
        """Drop rivals whose codes do not agree with ours."""
        files, rows, data = {}, [], {}
        for name, worker in self.ours.items():
            files[name] = os.fspath(self.run.folder / f"codes-{len(files)}.npz")
            self.make_ours(worker, "check")
            worker.call("load_batch", name="check", files=self.batch)
            worker.call("encode_and_save", name="check", batch="check", model=MODEL, file=files[name])
            worker.call("drop", name="check")
        for name, worker in list(self.rivals.items()):
            file = os.fspath(self.run.folder / f"codes-{name}.npz")
            try:
                self.make_rival(name, next(iter(self.variants[name])))
                worker.call("load_batch", name="check", file=self.batch[MODEL])
                worker.call("encode_and_save", batch="check", rows=2048, file=file)
                for side, mine in files.items():
                    found = agreement.codes_agree(mine, file)
                    data[f"{name}, {side}"] = found
                    words = [f"{found['largest_difference']:.1e}", f"{found['swapped']:.1e}"]
                    rows.append([f"{name} and {side}", found["codes"], *words])
            except (WorkerError, agreement.Disagreement) as error:
                self.absent[name] = str(error)
                del self.rivals[name]
        report.data["agreement"] = data
        report.words(
            "Agreement of codes for the same weights and tokens, before anything is timed (a code that one side alone has is a "
            "near-tie for the last place):"
        )
        report.rows(["", "codes", "largest difference, of the largest code", "share that one side alone has"], rows)
