"""The loop over steps that `UniversalSAE.fit` and `UniversalSAE.fit_stream` share."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae import _usae
from usae._core.evaluation import evaluate
from usae._core.fitted import Fitted
from usae._core.reports import StepReport
from usae._data.activations import Activations, are_stored
from usae._data.shuffled_blocks import Batch, shuffled_batches
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae._training.checkpoint_schedule import CheckpointSchedule
    from usae._training.checkpointing import Keeper
    from usae._training.run_identity import Run

Callbacks = list[Callable[[StepReport], object]]

VALIDATIONS = 5
VALIDATION_TOKENS = 2048
"""During training held-out rows are evaluated at each fifth of the steps, on at most this many of them; at the end on all."""


def batches_of(acts: Mapping[str, Activations], seed: int, batch_size: int, first: int) -> Generator[Batch, None, None]:
    """Endless batches of all rows in a random order, from that of step number `first` on, counted from 0."""
    if are_stored(acts):
        yield from shuffled_batches(acts, seed, batch_size, first * batch_size)
    n_tokens, rows = next(iter(acts.values())).n_tokens, np.empty(batch_size, np.int64)
    for step in itertools.count(first):
        _usae.shuffled_rows(seed, n_tokens, step * batch_size, rows)
        yield dict(acts), rows


class NoKeeper:
    """What `Keeper` is for a run without checkpoints."""

    def recorded(self) -> None:
        pass

    def between_steps(self) -> None:
        pass

    def save(self) -> None:
        pass


@contextlib.contextmanager
def kept(
    fitted: Fitted, schedule: CheckpointSchedule | None, resume: bool, run: Callable[[], Run]
) -> Iterator[Keeper | NoKeeper]:
    """Who keeps the run while it trains. `fitted` is then where the run stopped, if it is one that goes on."""
    if schedule is None:
        yield NoKeeper()
        return
    from usae._training import checkpointing  # with safetensors, which takes time to import

    with checkpointing.kept(fitted, schedule, resume, run()) as keeper:
        yield keeper


def skip(batches: Iterator[Batch], steps: int, keeper: Keeper | NoKeeper) -> None:
    """Pass over the batches of steps that are done, which Ctrl-C can end."""
    for _ in range(steps):
        next(batches)
        keeper.between_steps()


def train(
    fitted: Fitted,
    batches: Iterator[Batch],
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: Callbacks,
    bar: Any,
    keeper: Keeper | NoKeeper,
) -> None:
    """Up to `total` steps, those done included, or fewer where a callback ends them, recorded into the history."""
    for step in range(fitted.core.step_count + 1, total + 1):
        acts, rows = next(batches)
        report = fitted.step(acts, rows, -1, False)
        if recorded(fitted, report, total, held_out, callbacks, bar, keeper):
            keeper.save()  # before the evaluation below, which a run that goes on does not have
            if held_out is not None and step < total:
                record_validation(fitted, report, held_out)
            return
        if step < total:
            keeper.between_steps()
    keeper.save()


def recorded(
    fitted: Fitted,
    report: StepReport,
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: Callbacks,
    bar: Any,
    keeper: Keeper | NoKeeper,
) -> bool:
    """Record a step and tell all who want to know; whether a callback has enough."""
    fitted.record(report)
    if held_out is not None:
        validate(fitted, report, held_out, total)
    keeper.recorded()
    bar.set_postfix_str(f"loss {report.loss:.4g}, L0 {report.l0:.1f}", refresh=False)
    bar.update()
    return any([callback(report) for callback in callbacks])


def warn_of_lost_optimizer(fitted: Fitted, stacklevel: int) -> None:
    """Before a step that no `fit` planned."""
    if fitted.optimizer_is_lost:
        warnings.warn(
            "training goes on from a save without training state: the optimiser starts afresh, so the result differs "
            "from that of training without a stop; save(path, training_state=True) keeps it",
            stacklevel=stacklevel,
        )


def record_single(fitted: Fitted, report: StepReport, stacklevel: int) -> None:
    """Record a step that no `fit` planned, with a warning where its plan is over."""
    if report.learning_rate == 0 and report.step == (fitted.recipe.total_steps or math.inf) + 1:  # once
        warnings.warn(
            f"the planned {fitted.recipe.total_steps} steps are over and the learning rate is 0, so this step "
            "taught nothing; set_total_steps(None) goes on at a constant rate, set_total_steps(n) makes the plan n steps "
            "long",
            stacklevel=stacklevel,
        )
    fitted.record(report)


def validate(fitted: Fitted, report: StepReport, held_out: Mapping[str, Activations], total: int) -> None:
    """At each inner fifth of the run on some rows, at its end on all."""
    if report.step == total:
        record_validation(fitted, report, held_out)
    elif report.step in {total * part // VALIDATIONS for part in range(1, VALIDATIONS)}:
        record_validation(fitted, report, {name: x.thinned(VALIDATION_TOKENS) for name, x in held_out.items()})


def record_validation(fitted: Fitted, report: StepReport, acts: Mapping[str, Activations]) -> None:
    """Evaluate held-out activations into the history, beside the step that was just done."""
    numbers = evaluate(fitted, acts, 0.0)
    n_tokens = next(iter(acts.values())).n_tokens
    fitted.add_validation(report, {"n_tokens": n_tokens, "r2": numbers["r2"].tolist(), "l0": numbers["l0"].tolist()})


def check_validation(fitted: Fitted, held_out: Mapping[str, Activations] | None) -> None:
    if held_out is None:
        return
    try:
        fitted.check_finite(held_out)
    except InvalidInputError as error:
        error.add_note("These activations are those of the argument 'validation'.")
        raise


def checked_callbacks(callbacks: object) -> Callbacks:
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise InvalidInputError(f"callbacks must be a list of callables, got {callbacks!r}")
    callbacks = list(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise InvalidInputError(f"callbacks must be callables that take a StepReport, got {callback!r}")
    return callbacks
