"""The training loop of `UniversalSAE.fit` and `UniversalSAE.fit_stream`."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae import _usae
from usae._base import checks
from usae._core import resolved_recipe, rounding
from usae._core.autoencoder import Autoencoder
from usae._core.evaluation import evaluate
from usae._core.reports import StepReport
from usae._data.activations import Activations, are_stored
from usae._data.part_order import PartOrder, cards_of
from usae._data.shuffled_blocks import Batch, shuffled_batches
from usae._training import watch
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae._data.weakly_paired import Parts
    from usae._training.checkpoint_schedule import CheckpointSchedule
    from usae._training.checkpointing import CheckpointWriter
    from usae._training.run_identity import Run
    from usae.recipes import Recipe

logger = logging.getLogger("usae")

Callbacks = list[Callable[[StepReport], object]]

VALIDATIONS = 5
VALIDATION_TOKENS = 2048
"""During training, at most this many held-out rows are evaluated at each fifth of the steps. At the end all are."""


def batches_of(acts: Mapping[str, Activations], seed: int, batch_size: int, first: int) -> Generator[Batch, None, None]:
    """Yield endless batches of all rows in random order, from that of step number `first` on, counted from 0."""
    if are_stored(acts):
        yield from shuffled_batches(acts, seed, batch_size, first * batch_size)
    n_tokens, rows = next(iter(acts.values())).n_tokens, np.empty(batch_size, np.int64)
    for step in itertools.count(first):
        _usae.shuffled_rows(seed, n_tokens, step * batch_size, rows)
        yield dict(acts), rows


def batches_of_parts(given: Parts, recipe: Recipe, seed: int, first: int) -> Generator[Batch, None, None]:
    """Yield endless batches, each from one part, from that of step number `first` on, counted from 0."""
    sizes, tokens = given.sizes, resolved_recipe.part_tokens(recipe, given.sizes)
    if len(sizes) == 1:
        yield from batches_of(given.parts[0], seed, tokens[0], first)
    order = PartOrder(seed, cards_of(resolved_recipe.part_batches(recipe, sizes), given.shares))
    done = order.done(first)
    with contextlib.ExitStack() as stack:
        parts: dict[int, Generator[Batch, None, None]] = {}  # begun when they are needed: those of stores read ahead
        for step in itertools.count(first):
            part = order.part(step)
            if part not in parts:
                batches = batches_of(given.parts[part], seed, tokens[part], done[part])
                parts[part] = stack.enter_context(contextlib.closing(batches))
            yield next(parts[part])


class NoCheckpoints:
    """Replaces a `CheckpointWriter` in a run without checkpoints."""

    def recorded(self) -> None:
        pass

    def between_steps(self) -> None:
        pass

    def save(self) -> None:
        pass


@contextlib.contextmanager
def checkpoint_writer(
    autoencoder: Autoencoder, schedule: CheckpointSchedule | None, resume: bool, run: Callable[[], Run]
) -> Iterator[CheckpointWriter | NoCheckpoints]:
    """Yield the writer of the run's checkpoints. If a run is resumed, `autoencoder` is set to its newest checkpoint."""
    if schedule is None:
        yield NoCheckpoints()
        return
    from usae._training import checkpointing  # it imports safetensors, which takes time

    with checkpointing.checkpoint_writer(autoencoder, schedule, resume, run()) as checkpoints:
        yield checkpoints


def skip(batches: Iterator[Batch], steps: int, checkpoints: CheckpointWriter | NoCheckpoints) -> None:
    """Skip the batches of steps that are done. Ctrl-C can end this too."""
    for _ in range(steps):
        next(batches)
        checkpoints.between_steps()


def train(
    autoencoder: Autoencoder,
    batches: Iterator[Batch],
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: Callbacks,
    bar: Any,
    checkpoints: CheckpointWriter | NoCheckpoints,
) -> None:
    """Train until `total` steps are done, counting those done before, or until a callback ends the training."""
    for step in range(autoencoder.core.step_count + 1, total + 1):
        acts, rows = next(batches)
        report = autoencoder.step(acts, rows, -1)
        if after_step(autoencoder, report, (acts, rows), total, held_out, callbacks, bar, checkpoints):
            autoencoder.check_parameters()
            checkpoints.save()  # before the evaluation below, which a run that is resumed from here must not contain
            if held_out is not None and step < total:
                validate_end(autoencoder, report, held_out)
            return
        if step < total:
            checkpoints.between_steps()
    autoencoder.check_parameters()  # the loss of a next step would tell it, but there is none
    checkpoints.save()


def after_step(
    autoencoder: Autoencoder,
    report: StepReport,
    batch: Batch,
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: Callbacks,
    bar: Any,
    checkpoints: CheckpointWriter | NoCheckpoints,
) -> bool:
    """Validate, watch, update the progress bar and call the callbacks. Returns whether a callback ends the training."""
    r2 = None if held_out is None else validate(autoencoder, report, held_out, total)
    checkpoints.recorded()
    watch.after_step(autoencoder, report, batch, r2, last=report.step == total)
    bar.set_postfix_str(f"loss {report.loss:.4g}, L0 {report.l0:.1f}", refresh=False)
    bar.update()
    ends = [asks_to_end(callback(report)) for callback in callbacks]  # all of them see the step
    for callback in itertools.compress(callbacks, ends):
        name = getattr(callback, "__qualname__", type(callback).__name__)
        logger.info("the callback %s ended the training after %d of %d steps", name, report.step, total)
    return any(ends)


def asks_to_end(result: object) -> bool:
    """Whether a callback's result ends the training. Only True does: functions that write or log return all kinds of values.

    A scalar of NumPy or PyTorch whose type is a truth value counts, because comparisons of their numbers give such.
    """
    if isinstance(result, bool):
        return result
    return getattr(result, "ndim", None) == 0 and str(getattr(result, "dtype", "")).endswith("bool") and bool(result)


def warn_of_lost_optimizer(autoencoder: Autoencoder, stacklevel: int) -> None:
    """Warn before a `partial_fit` on an autoencoder that was loaded without training state."""
    if autoencoder.optimizer_is_lost:
        warnings.warn(
            "training continues from a save without training state: the optimiser starts again, so the result differs "
            "from that of training without a stop; save(path, training_state=True) keeps it",
            stacklevel=stacklevel,
        )


def warn_of_end(autoencoder: Autoencoder, report: StepReport, stacklevel: int) -> None:
    """Warn once, after a step of `partial_fit`, if the planned steps are over and the learning rate is 0."""
    if report.learning_rate == 0 and report.step == (autoencoder.recipe.total_steps or math.inf) + 1:  # once
        warnings.warn(
            f"the planned {autoencoder.recipe.total_steps} steps are over and the learning rate is 0, so this step "
            "changed nothing; call set_total_steps(None) for a constant rate, or set_total_steps(n) for a run of n steps",
            stacklevel=stacklevel,
        )


def validate(
    autoencoder: Autoencoder, report: StepReport, held_out: Mapping[str, Activations], total: int
) -> list[list[float]] | None:
    """Evaluate held-out activations if it is time: some rows at each fifth, all rows at the end. Returns their R2."""
    if report.step == total:
        return record_validation(autoencoder, report, held_out)
    if report.step in {total * part // VALIDATIONS for part in range(1, VALIDATIONS)}:
        return record_validation(autoencoder, report, {name: x.thinned(VALIDATION_TOKENS) for name, x in held_out.items()})
    return None


def validate_end(autoencoder: Autoencoder, report: StepReport, held_out: Mapping[str, Activations]) -> None:
    """Evaluate all held-out activations at the end of a run that a callback ended."""
    watch.after_last_validation(autoencoder, report, record_validation(autoencoder, report, held_out))


def record_validation(autoencoder: Autoencoder, report: StepReport, acts: Mapping[str, Activations]) -> list[list[float]]:
    """Evaluate held-out activations and add the result to the history's entry of the step that was just done. Returns R2."""
    numbers = evaluate(autoencoder, acts, 0.0, progress=False)
    n_tokens, r2 = next(iter(acts.values())).n_tokens, numbers["r2"].tolist()
    autoencoder.add_validation(report, {"n_tokens": n_tokens, "r2": r2, "l0": numbers["l0"].tolist()})
    return r2


def check_parts(autoencoder: Autoencoder, given: Parts) -> None:
    """Refuse activations of which an element is not finite."""
    for number, part in enumerate(given.parts):
        try:
            autoencoder.check_finite(part)
        except InvalidInputError as error:
            if len(given.parts) > 1:
                error.add_note(f"These activations are those of the argument 'acts', part {number}.")
            raise


def check_validation(autoencoder: Autoencoder, held_out: Mapping[str, Activations] | None) -> None:
    """Refuse held-out activations that are not finite, or of a type that rounds their spread away."""
    if held_out is None:
        return
    rounding.check(autoencoder, held_out)
    try:
        autoencoder.check_finite(held_out)
    except InvalidInputError as error:
        error.add_note("These activations are those of the argument 'validation'.")
        raise


def checked_callbacks(callbacks: object) -> Callbacks:
    """Return the callbacks as a list. InvalidInputError if one cannot be called."""
    callbacks = checks.listed(callbacks, "callbacks", "a list of callables")
    for callback in callbacks:
        if not callable(callback):
            raise InvalidInputError(f"callbacks must be callables that take a StepReport, got {checks.shown(callback)}")
    return callbacks
