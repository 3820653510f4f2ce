"""`usae.Checkpoints`: where and how often a run is saved, and reading the newest checkpoint."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

from usae._base.config import thread_count
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._estimator.universal_sae import UniversalSAE
from usae._files import disk
from usae._saved.header import Header
from usae._saved.state import restored
from usae._training import checkpoint_files
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae._training.run_identity import Run, check_checkpoint
from usae.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Checkpoints(CheckpointSchedule):
    """Where and how often `UniversalSAE.fit` saves the whole state of training.

    Parameters
    ----------
    path : path-like
        Folder for the checkpoints of one run and nothing else. It is made, with its parents. Each checkpoint in it, such as
        ``step-000001000``, is a save that `usae.load` can read too.
    every_steps : int, optional
        A checkpoint is written after each step whose number is a multiple of this. Default: None, which writes none for that
        reason.
    every_minutes : float or None
        A checkpoint is written after this many minutes without one. None: none for that reason. Default: 10.0.
    keep : int
        Number of the newest checkpoints that are kept. Default: 2.

    Raises
    ------
    InvalidInputError
        For an argument that cannot be used.

    Notes
    -----
    A checkpoint is also written at the end, and before an exception or a signal such as SIGTERM ends the training. How often
    checkpoints are written does not change what is learned. A checkpoint is three times as large as a save without training
    state.

    Examples
    --------
    >>> sae.fit(acts, checkpoint=usae.Checkpoints("run1", every_steps=1000), resume=True)
    """

    def load(self, *, n_threads: int | None = None) -> UniversalSAE:
        """Load the newest checkpoint of the run that can be used. The run may continue in another process meanwhile.

        A warning names newer ones that are damaged, incomplete or of another run.

        Parameters
        ----------
        n_threads : int, optional
            Number of threads, as for `UniversalSAE`. Default: None.

        Raises
        ------
        CheckpointError
            If there is no checkpoint, or if none can be used.
        CheckpointFileError
            Also an OSError: the folder cannot be read.
        """
        folder = disk.folder_of(self.path)
        thread_count(n_threads, "n_threads")
        with disk.io_errors(folder, "read", "the checkpoints"):
            run = _run(folder)

            def of_the_run(header: Header, tensors: Tensors) -> Autoencoder:
                check_checkpoint(header, run)
                return restored(header, tensors, n_threads)

            found = checkpoint_files.newest(folder, of_the_run)
        if found is None:
            raise CheckpointError(
                f"{folder}: there is no checkpoint yet; the first comes while fit(..., checkpoint=...) trains"
            )
        autoencoder, problems = found
        for problem in problems:
            warnings.warn(f"a checkpoint cannot be used, so an earlier one is loaded: {problem}", stacklevel=2)
        return UniversalSAE._of(autoencoder, n_threads)


def _run(folder: pathlib.Path) -> Run:
    """Return the description of the run; empty, with a warning, if it cannot be used."""
    try:
        return checkpoint_files.read_run(folder)[0]
    except CheckpointError as error:
        if checkpoint_files.steps(folder):
            warnings.warn(f"checkpoints are not compared with their run, which is not known: {error}", stacklevel=3)
        return {}
