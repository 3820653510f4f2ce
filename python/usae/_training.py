"""The loop over steps that `UniversalSAE.fit` and `UniversalSAE.fit_stream` share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._blocks import Batch, shuffled_batches
from usae._errors import InvalidInputError
from usae._fitted import Fitted, StepReport
from usae._inputs import Activations, are_stored

Callbacks = list[Callable[[StepReport], object]]

VALIDATIONS = 5
VALIDATION_TOKENS = 2048
"""During training held-out rows are evaluated at each fifth of the steps, on at most this many of them; at the end on all."""


def batches_of(acts: Mapping[str, Activations], seed: int, batch_size: int) -> Generator[Batch, None, None]:
    """Endless batches of all rows in a random order."""
    if are_stored(acts):
        yield from shuffled_batches(acts, seed, batch_size)
    n_tokens, rows = next(iter(acts.values())).n_tokens, np.empty(batch_size, np.int64)
    for step in itertools.count():
        _usae.shuffled_rows(seed, n_tokens, step * batch_size, rows)
        yield dict(acts), rows


def train(
    fitted: Fitted,
    batches: Iterator[Batch],
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: Callbacks,
    bar: Any,
) -> None:
    """`total` steps, or fewer where a callback ends them, recorded into the history."""
    for step in range(total):
        acts, rows = next(batches)
        report = fitted.step(acts, rows, -1, False)
        fitted.record(report)
        bar.set_postfix_str(f"loss {report.loss:.4g}, L0 {report.l0:.1f}", refresh=False)
        bar.update()
        if held_out is not None and _is_a_fifth(step + 1, total):
            fitted.record_validation(report, {name: x.thinned(VALIDATION_TOKENS) for name, x in held_out.items()})
        if any([callback(report) for callback in callbacks]):
            break
    if held_out is not None:
        fitted.record_validation(report, held_out)


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


def _is_a_fifth(step: int, total: int) -> bool:
    """Whether training is at one of the inner fifths of the run; the end is evaluated apart."""
    return step in {total * part // VALIDATIONS for part in range(1, VALIDATIONS)}
