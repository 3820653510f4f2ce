"""What users say about checkpoints: `usae.Checkpoints`."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from usae._base import checks
from usae._base.config import thread_count
from usae._files import disk
from usae.errors import CheckpointError, InvalidInputError

if TYPE_CHECKING:
    from usae._estimator.universal_sae import UniversalSAE

RUN = "usae-run.json"
"""In a folder of checkpoints, what the run is."""


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where and how often `UniversalSAE.fit` saves the whole state of training.

    Parameters
    ----------
    path : path-like
        A folder of their own, one for each run, made where its parent exists. Each checkpoint in it, ``step-000001000``, is a
        save that `usae.load` reads too.
    every_steps : int, optional
        A checkpoint after each step whose number this divides.
    every_minutes : float or None
        And after so many minutes without one. None: none for that reason.
    keep : int
        So many of the newest stay.

    Notes
    -----
    Besides, there is a checkpoint at the end, and one before an exception, Ctrl-C or SIGTERM ends the training. How often they
    are made does not change what is learned. A checkpoint takes three times the bytes of a save without training state.

    Examples
    --------
    >>> sae.fit(acts, checkpoint=usae.Checkpoints("run1", every_steps=1000), resume=True)
    """

    path: str | os.PathLike[str]
    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        disk.folder_of(self.path)
        if self.every_steps is not None:
            checks.integer(self.every_steps, "every_steps", 1, 2**53, " or None")
        if self.every_minutes is not None and checks.real(self.every_minutes, "every_minutes", _MINUTES) == 0:
            raise InvalidInputError(f"every_minutes must be {_MINUTES}, got {self.every_minutes!r}")
        checks.integer(self.keep, "keep", 1, 2**31)

    def load(self, *, n_threads: int | None = None) -> UniversalSAE:
        """The newest whole checkpoint, also while the run goes on in another process.

        Parameters
        ----------
        n_threads : int, optional
            As for `UniversalSAE`.

        Raises
        ------
        CheckpointError
            Where there is none, or all are damaged.
        CheckpointFileError
            Also an OSError: the folder cannot be read.
        """
        from usae._estimator.universal_sae import UniversalSAE
        from usae._saved import saved_folder
        from usae._training import checkpoint_files

        folder = disk.folder_of(self.path)
        thread_count(n_threads, "n_threads")
        with disk.io_errors(folder, "read", "the checkpoints"):
            found = checkpoint_files.newest(folder)
        if found is None:
            raise CheckpointError(f"{folder}: there is no checkpoint yet")
        header, tensors, _ = found
        return UniversalSAE._of(saved_folder.restored(header, tensors, n_threads), n_threads)


_MINUTES = "a number above 0, or None"


def as_checkpoints(checkpoint: object, resume: object) -> Checkpoints | None:
    """What `UniversalSAE.fit` was told, checked."""
    if not isinstance(resume, bool):
        raise InvalidInputError(f"resume must be True or False, got {disk.shortened(resume)}; the folder is `checkpoint`")
    if checkpoint is None:
        if resume:
            raise InvalidInputError("resume=True needs checkpoint=, the folder of the run that is to go on, got None")
        return None
    if isinstance(checkpoint, Checkpoints):
        return checkpoint
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise InvalidInputError(f"checkpoint must be a path, usae.Checkpoints or None, got {disk.shortened(checkpoint)}")
    return Checkpoints(checkpoint)
