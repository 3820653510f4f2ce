"""Saving the state of a run between its steps, and resuming from there."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import time
import warnings
from collections.abc import Iterator
from types import TracebackType

from usae._core.autoencoder import Autoencoder
from usae._files import disk
from usae._saved import state
from usae._training import checkpoint_files
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae._training.delayed_signals import DelayedSignals
from usae._training.run_identity import Run, check_same
from usae.errors import CheckpointFileError, InvalidInputError

logger = logging.getLogger("usae")


class Keeper:
    """Writes the checkpoints of one run while it trains. Use it in a ``with`` block.

    Attributes
    ----------
    autoencoder : Autoencoder
        The autoencoder that is trained.
    """

    def __init__(self, autoencoder: Autoencoder, schedule: CheckpointSchedule, folder: pathlib.Path):
        self.autoencoder = autoencoder
        self._schedule = schedule
        self._folder = folder
        self._whole_at = autoencoder.core.step_count
        self._tried_at = self._saved_at = self._whole_at or None
        self._saved_when = time.monotonic()
        self._signals = DelayedSignals()

    def __enter__(self) -> Keeper:
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None and self._is_new() and not self._signals.impatient:
                self._save_or_warn()
        finally:
            self._signals.__exit__(kind, error, trace)

    def recorded(self) -> None:
        """Note that the last step and its validation are in the history, so that the state can be saved."""
        self._whole_at = self.autoencoder.core.step_count

    def between_steps(self) -> None:
        """Save if a checkpoint is due or a signal is pending, and let a pending signal end the training."""
        if self._signals.pending is not None:
            self._save_or_warn()
            self._signals.deliver()
        elif self._is_due():
            self._save_or_warn()

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        self._tried_at = self.autoencoder.core.step_count
        if self._saved_at != self._tried_at:
            with disk.io_errors(self._folder, "write", "the checkpoint"):
                checkpoint_files.write(self._folder, self.autoencoder)
                checkpoint_files.prune(self._folder, self._schedule.keep)
            self._saved_at = self._tried_at
        self._saved_when = time.monotonic()

    def _save_or_warn(self) -> None:
        """Save, but only warn if the disk is full or fails, so that the run is not lost."""
        try:
            self.save()
        except CheckpointFileError as error:
            self._saved_when = time.monotonic()
            warnings.warn(f"step {self.autoencoder.core.step_count} has no checkpoint: {error}", stacklevel=2)

    def _is_due(self) -> bool:
        every, minutes = self._schedule.every_steps, self._schedule.every_minutes
        if every is not None and self.autoencoder.core.step_count % every == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_when >= 60 * minutes

    def _is_new(self) -> bool:
        """Whether the last step is completely recorded and saving it has not been tried yet."""
        return 0 < self._whole_at == self.autoencoder.core.step_count != self._tried_at


@contextlib.contextmanager
def kept(autoencoder: Autoencoder, schedule: CheckpointSchedule, resume: bool, run: Run) -> Iterator[Keeper]:
    """Lock the folder, set `autoencoder` to the newest checkpoint of the same run if there is one, and yield a writer."""
    given = disk.folder_of(schedule.path)
    with disk.io_errors(given, "write", "the checkpoints"):
        given.mkdir(exist_ok=True)
        folder = pathlib.Path(os.path.realpath(given))
        checkpoint_files.check_free(folder)
        lock = disk.locked(folder / checkpoint_files.LOCK, "the checkpoints")
    with lock:
        with disk.io_errors(folder, "write", "the checkpoints"):
            if not checkpoint_files.steps(folder):
                checkpoint_files.write_run(folder, run)
            else:
                _go_on(folder, resume, autoencoder, run)
            checkpoint_files.clear(folder)
            checkpoint_files.prune(folder, schedule.keep)
        with Keeper(autoencoder, schedule, folder) as keeper:
            yield keeper


def _go_on(folder: pathlib.Path, resume: bool, autoencoder: Autoencoder, run: Run) -> None:
    if not resume:
        raise InvalidInputError(
            f"checkpoint: {str(folder)!r} holds a run already, {checkpoint_files.steps(folder)[0]} steps of it; pass "
            f"resume=True to go on with it, or choose another folder"
        )
    check_same(checkpoint_files.read_run(folder), run, str(folder))
    found = checkpoint_files.newest(folder)
    if found is None:  # the checkpoints were removed meanwhile
        return
    header, tensors, damaged = found
    state.restore(autoencoder, header, tensors)
    for problem in damaged:
        warnings.warn(f"a checkpoint is damaged, so training goes on from an earlier one: {problem}", stacklevel=2)
    checkpoint_files.set_aside(folder, autoencoder.core.step_count)
    logger.info("going on from step %d of the run in %s", autoencoder.core.step_count, folder)
