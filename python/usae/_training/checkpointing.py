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

from usae import _usae
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._files import disk, locks
from usae._saved import state
from usae._saved.header import Header
from usae._training import checkpoint_files
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae._training.delayed_signals import DelayedSignals
from usae._training.run_identity import Run, check_checkpoint, check_same
from usae.errors import CheckpointFileError, InvalidInputError

logger = logging.getLogger("usae")


class CheckpointWriter:
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
        self._recorded_step = autoencoder.core.step_count
        self._attempted_step = self._saved_step = self._recorded_step or None
        self._saved_time = time.monotonic()
        self._signals = DelayedSignals()

    def __enter__(self) -> CheckpointWriter:
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None and self._is_new() and not self._signals.repeated:
                self._save_or_warn()
        finally:
            self._signals.__exit__(kind, error, trace)

    def recorded(self) -> None:
        """Note that the last step and its validation are in the history, so that the state can be saved."""
        self._recorded_step = self.autoencoder.core.step_count

    def between_steps(self) -> None:
        """Save if a checkpoint is due or a signal is pending, and let a pending signal end the training."""
        if self._signals.pending is not None:
            self._save_or_warn()
            self._signals.deliver()
        elif self._is_due():
            self._save_or_warn()

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        self._attempted_step = self.autoencoder.core.step_count
        if self._saved_step != self._attempted_step:
            with disk.io_errors(self._folder, "write", "the checkpoint"):
                checkpoint_files.write(self._folder, self.autoencoder)
                checkpoint_files.prune(self._folder, self._schedule.keep)
            self._saved_step = self._attempted_step
        self._saved_time = time.monotonic()

    def _save_or_warn(self) -> None:
        """Save, but only warn if the disk is full or fails, so that the run is not lost."""
        try:
            self.save()
        except CheckpointFileError as error:
            self._saved_time = time.monotonic()
            warnings.warn(f"step {self.autoencoder.core.step_count} has no checkpoint: {error}", stacklevel=2)

    def _is_due(self) -> bool:
        every, minutes = self._schedule.every_steps, self._schedule.every_minutes
        if every is not None and self.autoencoder.core.step_count % every == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_time >= 60 * minutes

    def _is_new(self) -> bool:
        """Whether the last step is completely recorded and saving it has not been tried yet."""
        return 0 < self._recorded_step == self.autoencoder.core.step_count != self._attempted_step


@contextlib.contextmanager
def checkpoint_writer(
    autoencoder: Autoencoder, schedule: CheckpointSchedule, resume: bool, run: Run
) -> Iterator[CheckpointWriter]:
    """Lock the folder, set `autoencoder` to the newest checkpoint of the same run if there is one, and yield a writer."""
    given = disk.folder_of(schedule.path)
    with disk.io_errors(given, "write", "the checkpoints"):
        disk.make_parents(given)
        given.mkdir(exist_ok=True)
        folder = pathlib.Path(os.path.realpath(given))
        checkpoint_files.check_free(folder)
        lock = locks.locked(folder / locks.LOCK, "the checkpoints")
    with lock:
        with disk.io_errors(folder, "write", "the checkpoints"):
            if not checkpoint_files.steps(folder):
                checkpoint_files.write_run(folder, run)
            else:
                _resume(folder, resume, autoencoder, run)
            checkpoint_files.clear(folder)
            checkpoint_files.prune(folder, schedule.keep)
        with CheckpointWriter(autoencoder, schedule, folder) as checkpoints:
            yield checkpoints


def _resume(folder: pathlib.Path, resume: bool, autoencoder: Autoencoder, run: Run) -> None:
    if not resume:
        raise InvalidInputError(
            f"checkpoint must be a folder without a run, got {str(folder)!r} with {checkpoint_files.steps(folder)[0]} steps of "
            f"one; pass resume=True to continue it, or choose another folder"
        )
    begun, version = checkpoint_files.read_run(folder)
    check_same(begun, run, str(folder))
    if version != _usae.version():
        warnings.warn(
            f"this run was started with usae {version} and continues with {_usae.version()}; bits may differ from those of a "
            f"run with either",
            stacklevel=2,
        )

    def restored(header: Header, tensors: Tensors) -> None:
        check_checkpoint(header, run, autoencoder.widths)
        state.restore(autoencoder, header, tensors)

    found = checkpoint_files.newest(folder, restored)
    if found is None:  # the checkpoints were removed meanwhile
        return
    for problem in found[1]:
        warnings.warn(f"a checkpoint cannot be used, so training continues from an earlier one: {problem}", stacklevel=2)
    checkpoint_files.set_aside(folder, autoencoder.core.step_count)
    logger.info("resuming from step %d of the run in %s", autoencoder.core.step_count, folder)
