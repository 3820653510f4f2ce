"""`UniversalSAE.fit` in several processes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from usae._base.progress import checked as checked_progress
from usae._base.progress import progress_bar
from usae._core import resolved_recipe, standardization
from usae._core.autoencoder import Autoencoder
from usae._core.reports import StepReport
from usae._data.activations import Activations, are_stored, as_aligned
from usae._data.shuffled_blocks import Batch
from usae._data.weakly_paired import Parts, as_parts
from usae._estimator.universal_sae import UniversalSAE
from usae._training import derived_noise, exclusive, loop, run_identity, shared_steps
from usae._training.checkpoint_schedule import CheckpointSchedule, as_schedule
from usae._training.delayed_signals import DelayedSignals
from usae.errors import InvalidInputError
from usae.torch._peers import TorchPeers


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
    mask: Any = None,
) -> UniversalSAE:
    """Train like `UniversalSAE.fit`, in several processes that each have a part of every batch. All must make the same call.

    Its steps are those of `fit` up to the rounding of sums, with the same rows in each batch and the same draws. Afterwards all
    processes have the same autoencoder, to the bit. Call it in a program that torchrun starts, after
    ``torch.distributed.init_process_group("gloo")``.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder. It is trained from the beginning. `n_threads` is the number of threads of each process; divide the
        cores of a computer between its processes.
    acts : mapping of str to array
        Activations, as for `UniversalSAE.fit`, with all rows in every process. Use memory maps or an `ActivationStore` on a
        file system that all processes share, or on copies of it.
    epochs, steps, validation, callbacks, progress
        As for `UniversalSAE.fit`. Callbacks are called in every process, and the result True in one process ends the
        training in all. Rank 0 shows the progress bar.
    checkpoint, resume
        As for `UniversalSAE.fit`. Only rank 0 writes and reads checkpoints. The number of processes may change between runs,
        but only with the same number does the result have the bits of a run without interruption.
    group : torch.distributed.ProcessGroup, optional
        A group with the backend gloo. Default: None, which takes all processes.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows of `acts` that count, as for `UniversalSAE.fit`. Default: None.

    Returns
    -------
    UniversalSAE
        The same object, `sae`.

    Raises
    ------
    InvalidInputError, CheckpointError, CheckpointFileError
        As for `UniversalSAE.fit`, in the process where the problem occurred.
    OtherProcessError
        In the other processes. The message has the rank and the message of that process.
    RuntimeError
        Raised by torch if a process has ended or has not answered within the group's timeout.

    Notes
    -----
    docs/scaling.md describes when more processes make training faster.
    """
    peers = TorchPeers(group)
    with peers.sharing_errors():
        if not isinstance(sae, UniversalSAE):
            raise InvalidInputError(f"sae must be a UniversalSAE, got {type(sae).__name__}")
        schedule = as_schedule(checkpoint, resume)
        given = as_parts(acts, "acts", mask)
        held_out = None if validation is None else as_aligned(validation, "validation", given.columns)
        checked, progress = loop.checked_callbacks(callbacks), checked_progress(progress)
        plan = sae._checked_recipe()
        recipe = resolved_recipe.resolved_for_fit(plan, len(given.columns), given.sizes, epochs, steps, given.shares)
        recipe = derived_noise.filled_in(recipe, plan, given.parts)
        batch_tokens = min(resolved_recipe.part_tokens(recipe, given.sizes))
        if batch_tokens < peers.size:
            of_part = " of the smallest part" if len(given.parts) > 1 else ""
            raise InvalidInputError(
                f"recipe: batch_size must come to at least one token for each of {peers.size} processes, got "
                f"{recipe.batch_size}, which is {batch_tokens}{of_part}"
            )
        autoencoder = Autoencoder(sae._arguments(), recipe)
        _initialize(autoencoder, given, peers)
        loop.check_validation(autoencoder, held_out)
    total = int(recipe.total_steps or 0)
    with peers.sharing_errors():
        more = {"acts.shares": given.shares} if given.shares else {}
        data = {"acts": given.arrays, "validation": held_out}
        run = run_identity.describe_run("fit_distributed", autoencoder, data, more=more)
    _check_same(run | {"checkpoint": checkpoint is not None, "resume": resume}, peers)
    with contextlib.ExitStack() as stack:
        with peers.sharing_errors():
            stack.enter_context(exclusive.run(sae, "fit_distributed"))
            if peers.rank == 0 and schedule is not None:
                checkpoints = stack.enter_context(loop.checkpoint_writer(autoencoder, schedule, resume, lambda: run))
            else:
                checkpoints = _SignalsOnly(stack.enter_context(DelayedSignals()))
        shared_steps.broadcast_state(autoencoder, peers)
        done = autoencoder.core.step_count
        bar = progress_bar(total, progress if peers.rank == 0 else False, initial=done)
        autoencoder.is_watched = peers.rank == 0  # the losses are the same in all
        sae._autoencoder = autoencoder
        batches = stack.enter_context(
            contextlib.closing(loop.batches_of_parts(given, recipe, autoencoder.seed, done))
        )  # fmt: skip
        stack.enter_context(bar)
        _train(autoencoder, batches, total, held_out, checked, bar, checkpoints, peers)
    return sae


class _SignalsOnly(loop.NoCheckpoints):
    """Delays signals in a process that writes no checkpoints: all processes share a step, so a signal waits for its end."""

    def __init__(self, signals: DelayedSignals):
        self._signals = signals

    def between_steps(self) -> None:
        self._signals.deliver()


def _initialize(autoencoder: Autoencoder, given: Parts, peers: TorchPeers) -> None:
    """Check this process's part of the data. Rank 0 initialises the parameters, which are copied to the others later."""
    if peers.rank == 0:
        autoencoder.initialize_from(*given.parts)
        standardization.warn_of(autoencoder.standardization or {}, autoencoder.recipe)
    else:
        autoencoder.initialize({name: columns.width for name, columns in given.columns.items()})
    for acts in given.parts:
        _check_finite(autoencoder, acts, peers)


def _check_finite(autoencoder: Autoencoder, acts: Mapping[str, Activations], peers: TorchPeers) -> None:
    if are_stored(acts):
        if peers.rank == 0:
            autoencoder.check_finite(acts)
        return
    part = {name: _share(x, peers) for name, x in acts.items()}
    if all(x.n_tokens > 0 for x in part.values()):
        autoencoder.check_finite(part)


def _share(x: Activations, peers: TorchPeers) -> Activations:
    """Return this process's share of the rows, or of the images, without a copy."""
    if x.rows is not None:
        return dataclasses.replace(x, rows=x.rows[_part(len(x.rows), peers)])
    return dataclasses.replace(x, array=x.array[_part(len(x.array), peers)])


def _check_same(run: run_identity.Run, peers: TorchPeers) -> None:
    """Raise the same error in all processes if one of them has other data or arguments than rank 0."""
    first, *others = (json.loads(text) for text in peers.all_gather(json.dumps(run)))
    for rank, other in enumerate(others, 1):
        for name, here, there in run_identity.differences(first, other):
            raise InvalidInputError(
                f"{name} must be the same in every process, got {there} in rank {rank} and {here} in rank 0"
            )


def _part(n: int, peers: TorchPeers) -> slice:
    """Return this process's slice of `n` rows. The slices of two processes differ in length by one at most."""
    return slice(n * peers.rank // peers.size, n * (peers.rank + 1) // peers.size)


def _part_of(batch: Batch, peers: TorchPeers) -> shared_steps.Part:
    acts, rows = batch
    rows = np.arange(next(iter(acts.values())).n_tokens, dtype=np.int64) if rows is None else rows
    return acts, np.ascontiguousarray(rows[_part(len(rows), peers)]), -1


def _train(
    autoencoder: Autoencoder,
    batches: Iterator[Batch],
    total: int,
    held_out: Mapping[str, Activations] | None,
    callbacks: loop.Callbacks,
    bar: Any,
    checkpoints: Any,
    peers: TorchPeers,
) -> None:
    """Train until all steps are done or a callback of one process ends the training, which that process tells the others."""
    buffers, report, is_cut_short = shared_steps.ExchangeBuffers(), None, False
    part: shared_steps.Part

    def take() -> shared_steps.Part:
        nonlocal part
        part = _part_of(next(batches), peers)
        return part

    while autoencoder.core.step_count < total:
        done = shared_steps.step(autoencoder, take, peers, buffers)
        if done is None:
            is_cut_short = True
            break
        with _telling_errors(peers):
            report, _ = done
            ends = loop.after_step(autoencoder, report, part[:2], total, held_out, callbacks, bar, checkpoints)
            if ends or report.step == total:
                autoencoder.check_parameters()
                checkpoints.save()
            else:
                checkpoints.between_steps()
        if ends or report.step == total:
            shared_steps.leave(peers, None)
            break
    with peers.sharing_errors():
        if is_cut_short:
            checkpoints.save()  # before the evaluation below, which a run that is resumed from here must not contain
        if report is not None and held_out is not None and report.step < total:
            loop.validate_end(autoencoder, report, held_out)


@contextlib.contextmanager
def _telling_errors(peers: TorchPeers) -> Iterator[None]:
    """Tell the other processes, when they begin the next step, about an error that is raised here."""
    try:
        yield
    except BaseException as error:
        shared_steps.leave(peers, error)
        raise
