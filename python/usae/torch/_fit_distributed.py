"""`UniversalSAE.fit` in several processes at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from usae._base.progress import progress_bar
from usae._core import resolved_recipe
from usae._core.fitted import Fitted
from usae._core.reports import StepReport
from usae._data.activations import Activations, are_stored, as_aligned
from usae._data.shuffled_blocks import Batch
from usae._estimator.universal_sae import UniversalSAE
from usae._training import loop, run_identity, shared_steps
from usae._training.checkpoint_schedule import CheckpointSchedule, as_schedule
from usae._training.delayed_signals import DelayedSignals
from usae.errors import InvalidInputError
from usae.torch._distributed import TorchPeers


def fit_distributed(
    sae: UniversalSAE,
    acts: Mapping[str, Any],
    *,
    epochs: float | None = None,
    steps: int | None = None,
    validation: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callable[[StepReport], object]] = (),
    checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
    resume: bool = False,
    progress: bool | None = None,
    group: Any = None,
) -> UniversalSAE:
    """`UniversalSAE.fit` in several processes, each of which trains on its part of every batch. All of them call it alike.

    Its steps are those of `fit` up to the rounding of sums: the same rows in each batch, the same draws. Afterwards all
    processes have the same autoencoder, to the bit. Call it in programs that torchrun starts, after
    ``torch.distributed.init_process_group("gloo")``.

    Parameters
    ----------
    sae : UniversalSAE
        Learns anew; it is also what is returned. `n_threads` is of each process: where several are on one computer, give each
        its share of the cores.
    acts : mapping of str to array
        As for `UniversalSAE.fit`, all rows in every process: memory maps or an `ActivationStore` on a file system that all of
        them see, or on copies of it.
    epochs, steps, validation, callbacks, progress
        As for `UniversalSAE.fit`. Callbacks are called in every process, and a true result in one of them ends the training of
        all. The bar is shown by rank 0.
    checkpoint, resume
        As for `UniversalSAE.fit`, written and read by rank 0 alone. The number of processes may change between runs; only
        with the same number are the bits those of a run that was never stopped.
    group : torch.distributed.ProcessGroup, optional
        Of gloo. Left out: all processes.

    Returns
    -------
    UniversalSAE
        `sae`.

    Raises
    ------
    InvalidInputError, CheckpointError, CheckpointFileError
        As `UniversalSAE.fit`, in the process that met the problem.
    OtherProcessError
        In the others: its text has the rank and the words of that one.
    RuntimeError
        Of torch, where a process has gone or was silent for as long as the group's timeout.

    Notes
    -----
    docs/scaling.md says how fast it is, and where it stops getting faster.
    """
    peers = TorchPeers(group)
    with peers.together():
        if not isinstance(sae, UniversalSAE):
            raise InvalidInputError(f"sae must be a UniversalSAE, got {type(sae).__name__}")
        schedule = as_schedule(checkpoint, resume)
        given = as_aligned(acts, "acts")
        widths = {name: x.width for name, x in given.items()}
        held_out = None if validation is None else as_aligned(validation, "validation", widths)
        checked = loop.checked_callbacks(callbacks)
        n_tokens = next(iter(given.values())).n_tokens
        recipe = resolved_recipe.resolved_for_fit(sae._checked_recipe(), len(given), n_tokens, epochs, steps)
        if recipe.batch_size < peers.size:
            raise InvalidInputError(
                f"recipe: batch_size must be at least the number of processes, {peers.size}, got {recipe.batch_size}"
            )
        fitted = Fitted(sae.get_params(), recipe)
        _initialize(fitted, given, peers)
        loop.check_validation(fitted, held_out)
    total = int(recipe.total_steps or 0)
    with peers.together():
        run = run_identity.described("fit_distributed", fitted, {"acts": given, "validation": held_out})
    _check_same(run | {"checkpoint": checkpoint is not None, "resume": resume}, peers)
    with contextlib.ExitStack() as stack:
        with peers.together():
            if peers.rank == 0 and schedule is not None:
                keeper = stack.enter_context(loop.kept(fitted, schedule, resume, lambda: run))
            else:
                keeper = _SignalsOnly(stack.enter_context(DelayedSignals()))
        shared_steps.spread(fitted, peers)
        done = fitted.core.step_count
        bar = progress_bar(total, progress if peers.rank == 0 else False, initial=done)
        sae._fitted = fitted
        batches = stack.enter_context(
            contextlib.closing(loop.batches_of(given, fitted.seed, recipe.batch_size, done))
        )  # fmt: skip
        stack.enter_context(bar)
        _train(fitted, batches, total, held_out, checked, bar, keeper, peers)
    return sae


class _SignalsOnly(loop.NoKeeper):
    """Without checkpoints a signal still has to wait for the end of a step, which others share."""

    def __init__(self, signals: DelayedSignals):
        self._signals = signals

    def between_steps(self) -> None:
        self._signals.deliver()


def _initialize(fitted: Fitted, acts: Mapping[str, Activations], peers: TorchPeers) -> None:
    """Look at this process's part of the data; rank 0 makes the parameters, which the others will be given."""
    if peers.rank == 0:
        fitted.initialize_from(acts)
    else:
        fitted.initialize({name: x.width for name, x in acts.items()})
    if are_stored(acts):
        if peers.rank == 0:
            fitted.check_finite(acts)
        return
    part = {name: dataclasses.replace(x, array=x.array[_part(len(x.array), peers)]) for name, x in acts.items()}
    if all(x.n_tokens > 0 for x in part.values()):
        fitted.check_finite(part)


def _check_same(run: run_identity.Run, peers: TorchPeers) -> None:
    """The same error in all processes where one of them was given something else than rank 0."""
    first, *others = (json.loads(text) for text in peers.texts(json.dumps(run)))
    for rank, other in enumerate(others, 1):
        for name, here, there in run_identity.differences(first, other):
            raise InvalidInputError(
                f"every process must train on the same data with the same arguments, got {name} {there} in rank {rank} and "
                f"{here} in rank 0"
            )


def _part(n: int, peers: TorchPeers) -> slice:
    """This process's of `n` things, which are dealt out in runs that differ by one at most."""
    return slice(n * peers.rank // peers.size, n * (peers.rank + 1) // peers.size)


def _part_of(batch: Batch, size: int, peers: TorchPeers) -> shared_steps.Part:
    acts, rows = batch
    rows = np.arange(size, dtype=np.int64) if rows is None else rows
    return acts, np.ascontiguousarray(rows[_part(len(rows), peers)]), -1


def _train(
    fitted: Fitted,
    batches: Iterator[Batch],
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: loop.Callbacks,
    bar: Any,
    keeper: Any,
    peers: TorchPeers,
) -> None:
    """Steps of all processes, until all are done or one of them has enough. Every process leaves with the others' knowledge."""
    room, report, is_cut_short = shared_steps.Room(), None, False
    while fitted.core.step_count < total:
        done = shared_steps.step(fitted, lambda: _part_of(next(batches), fitted.recipe.batch_size, peers), peers, room)
        if done is None:
            is_cut_short = True
            break
        with _others_hear(peers):
            report, _ = done
            ends = loop.recorded(fitted, report, total, held_out, callbacks, bar, keeper)
            if ends or report.step == total:
                keeper.save()
            else:
                keeper.between_steps()
        if ends or report.step == total:
            shared_steps.leave(peers, None)
            break
    with peers.together():
        if is_cut_short:
            keeper.save()  # before the evaluation below, which a run that goes on does not have
        if report is not None and held_out is not None and report.step < total:
            loop.record_validation(fitted, report, held_out)


@contextlib.contextmanager
def _others_hear(peers: TorchPeers) -> Iterator[None]:
    """What raises here while the others begin the next step raises there too."""
    try:
        yield
    except BaseException as error:
        shared_steps.leave(peers, error)
        raise
