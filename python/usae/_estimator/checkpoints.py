"""Checkpoints as users name them: `usae.Checkpoints`."""

from __future__ import annotations

import dataclasses

from usae._base.config import thread_count
from usae._estimator.universal_sae import UniversalSAE
from usae._files import disk
from usae._saved.state import restored
from usae._training import checkpoint_files
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Checkpoints(CheckpointSchedule):
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
        folder = disk.folder_of(self.path)
        thread_count(n_threads, "n_threads")
        with disk.io_errors(folder, "read", "the checkpoints"):
            found = checkpoint_files.newest(folder)
        if found is None:
            raise CheckpointError(f"{folder}: there is no checkpoint yet")
        header, tensors, _ = found
        return UniversalSAE._of(restored(header, tensors, n_threads), n_threads)
