"""Training in several processes over torch.distributed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from usae._core import resolved_recipe, rounding, standardization
from usae._core.autoencoder import Autoencoder
from usae._core.reports import StepReport
from usae._data.activations import Activations, as_aligned
from usae._data.weakly_paired import as_batch
from usae._estimator.universal_sae import UniversalSAE
from usae._training import exclusive, loop, shared_steps, watch
from usae._training.delayed_signals import DelayedSignals
from usae._training.shared_steps import Exchanged
from usae.errors import InvalidInputError, OtherProcessError
from usae.recipes import Recipe
from usae.torch._peers import TorchPeers


class DistributedTrainer:
    """Training steps of one autoencoder in several processes, each of which has a part of every batch.

    A step equals `UniversalSAE.partial_fit` on the rows of all processes, up to the rounding of sums in another order.
    Gradients, sums for BatchNorm and for the auxiliary loss, losses and counts are summed over the processes, and then each
    process does the same update. So all processes have the same parameters, to the bit.

    Parameters
    ----------
    sae : UniversalSAE
        An autoencoder with the same sizes, seed and recipe in all processes. If it has parameters, they must be the same too;
        `synchronize` copies those of rank 0. On machines of the same kind the bits stay equal. Machines that compute
        differently are an error as soon as a step finds different parameters.
    group : torch.distributed.ProcessGroup, optional
        A group with the backend gloo. Default: None, which takes all processes.

    Attributes
    ----------
    sae : UniversalSAE
        The autoencoder.
    rank, size : int
        Number of this process, and number of processes.
    exchanged_ : Exchanged or None
        Size and time of the arrays that were summed in the last step.

    Raises
    ------
    InvalidInputError
        If torch.distributed is not initialised, or if the group cannot sum arrays on the CPU.

    Examples
    --------
    In a program started by ``torchrun --nproc-per-node 2``::

        torch.distributed.init_process_group("gloo")
        trainer = usae.torch.DistributedTrainer(usae.UniversalSAE(n_concepts=6144, k=32, n_threads=8))
        for report in trainer.steps(my_part_of_the_data):
            ...
    """

    def __init__(self, sae: UniversalSAE, group: Any = None):
        if not isinstance(sae, UniversalSAE):
            raise InvalidInputError(f"sae must be a UniversalSAE, got {type(sae).__name__}")
        self.sae = sae
        self.exchanged_: Exchanged | None = None
        self._peers = TorchPeers(group)
        self._buffers = shared_steps.ExchangeBuffers()
        self._begun = False

    @property
    def rank(self) -> int:
        return self._peers.rank

    @property
    def size(self) -> int:
        return self._peers.size

    def partial_fit(self, batch: Mapping[str, Any], *, encoder: str | None = None, mask: Any = None) -> StepReport:
        """Do one step on the rows of all processes. All of them must call it equally often, each with its own rows.

        A process that calls it once more than another waits for the other, until the group's timeout. `steps` avoids that: it
        ends when the first process has no more batches.

        Parameters
        ----------
        batch : mapping of str to array
            Activations, as for `UniversalSAE.partial_fit`, with at least one row. Processes may have different numbers of rows;
            each row has the same weight. If the objects have no parameters yet, the rows of rank 0 decide the models, the
            standardisation and the initial dictionaries.
        encoder : str, optional
            Name of the model to encode, the same in all processes. Default: None, which draws it, the same in all processes.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows that count, as for `UniversalSAE.fit`; at least one of this process has to. Default: None.

        Returns
        -------
        StepReport
            Report of the whole batch. It is the same in all processes, except `screening`.

        Raises
        ------
        InvalidInputError
            If the batch of this process cannot be used, or if the autoencoders of the processes differ.
        OtherProcessError
            If another process could not do its part; the message says which, and why. Nothing was changed in any process, and
            all can continue.
        RuntimeError
            Raised by torch if a process has ended or has not answered within the group's timeout. Nothing was changed in this
            process.

        Notes
        -----
        Ctrl-C and SIGTERM wait for the end of the step, but a second one does not if it comes some seconds later.
        """
        report = self._step(batch, encoder, mask)
        if report is None:
            raise OtherProcessError("the step was not done, because a process has ended its training")
        return report

    def steps(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[StepReport]:
        """Do a step for each batch, until one process has no more. All processes call it, each with its own batches.

        Parameters
        ----------
        batches : iterable of mappings of str to array
            Batches, each as for `partial_fit`. Every process needs at least one. Their numbers may differ between processes.

        Yields
        ------
        StepReport
            Report of each step. The next step is done after the body of the loop. Leaving the loop ends it in all processes.

        Raises
        ------
        InvalidInputError, OtherProcessError, RuntimeError
            As for `partial_fit`. An error that `batches` raises is raised in this process, and OtherProcessError in the others.
        """
        taken = iter(batches)
        while True:
            try:
                batch = next(taken, None)
            except BaseException as error:
                shared_steps.leave(self._peers, error)
                raise
            if batch is None:
                break
            report = self._step(batch, None, None)
            if report is None:
                return
            try:
                yield report
            except GeneratorExit:
                shared_steps.leave(self._peers, None)
                raise
        shared_steps.leave(self._peers, None)

    def _step(self, batch: Mapping[str, Any], encoder: str | None, mask: Any) -> StepReport | None:
        """Do a step. Returns None if a process has left."""
        with DelayedSignals(), self._restarting_after_different_calls():
            if not self._begun:
                self._begin(batch, mask)
                self._begun = True
            autoencoder = self._autoencoder()
            autoencoder.is_watched = self.rank == 0  # the losses are the same in all
            given: dict[str, Activations] = {}

            def take() -> shared_steps.Part:
                nonlocal given
                exclusive.check(self.sae, "partial_fit")
                loop.warn_of_lost_optimizer(autoencoder, stacklevel=6)
                given = as_batch(batch, "batch", autoencoder.columns, mask)
                rounding.check(autoencoder, given)
                return given, None, -1 if encoder is None else autoencoder.index(encoder, "encoder")

            done = shared_steps.step(autoencoder, take, self._peers, self._buffers)
            if done is None:
                return None
            autoencoder.remember_columns(given)
            report, self.exchanged_ = done
            loop.warn_of_end(autoencoder, report, stacklevel=4)
            watch.after_step(autoencoder, report, (given, None))
            return report

    def synchronize(self) -> None:
        """Copy the parameters, the state of training and the history of rank 0 to all processes. All of them must call it.

        Raises
        ------
        InvalidInputError
            If the autoencoders of the processes have different sizes, seeds or recipes, or if that of rank 0 has no parameters.
        """
        with self._restarting_after_different_calls():
            self._check_same_settings()
            with self._peers.sharing_errors():
                if self.rank == 0:
                    self._autoencoder()
            self._broadcast()
        self._begun = True

    @contextlib.contextmanager
    def _restarting_after_different_calls(self) -> Iterator[None]:
        """If processes made different calls, which is an error in all of them, let their next step begin in the same way."""
        try:
            yield
        except shared_steps.DifferentCallsError:
            self._begun = False
            raise

    def _autoencoder(self) -> Autoencoder:
        return self.sae._initialized()

    def _begin(self, batch: Mapping[str, Any], mask: Any) -> None:
        """If some processes have no parameters, make them in rank 0 and copy them to all."""
        have = self._check_same_settings()
        if all(have):
            return
        with self._peers.sharing_errors():
            if self.rank == 0 and self.sae._autoencoder is None:
                if any(have):
                    raise InvalidInputError(
                        "sae: rank 0 must have parameters where another process has some, got none; load or initialise it in "
                        "all processes, or in rank 0 alone"
                    )
                given = as_aligned(batch, "batch", mask=mask)
                autoencoder = Autoencoder(
                    self.sae._arguments(), resolved_recipe.resolved(self.sae._checked_recipe(), len(given))
                )
                autoencoder.initialize_from(given)
                standardization.warn_of(autoencoder.standardization or {}, autoencoder.recipe)
                self.sae._autoencoder = autoencoder
        self._broadcast()

    def _check_same_settings(self) -> list[bool]:
        """Return which processes have parameters. An error in all if the arguments of their autoencoders differ."""
        with self._peers.sharing_errors():
            exclusive.check(self.sae, "DistributedTrainer")
            params = self.sae._arguments()
            numbers = [float(params["k"]), *(int(params[name]) for name in ("n_concepts", "seed"))]  # and none of NumPy's
            mine = [*numbers, self.sae._checked_recipe().to_dict()]
            words = json.dumps([self.sae._autoencoder is not None, mine])
        given = [json.loads(text) for text in self._peers.all_gather(words)]
        others = [str(rank) for rank, (_, theirs) in enumerate(given) if theirs != given[0][1]]
        if others:
            raise InvalidInputError(
                f"sae must have the same n_concepts, k, seed and recipe in every process, got a difference between rank 0 and "
                f"rank {', '.join(others)}"
            )
        return [has for has, _ in given]

    def _broadcast(self) -> None:
        autoencoder = self.sae._autoencoder if self.rank == 0 else None
        words = "" if autoencoder is None else json.dumps([autoencoder.widths, autoencoder.recipe.to_dict()])
        widths, recipe = json.loads(self._peers.all_gather(words)[0])
        with self._peers.sharing_errors():
            if autoencoder is None:
                autoencoder = Autoencoder(self.sae._arguments(), Recipe.from_dict(recipe))
                autoencoder.initialize(widths)
        shared_steps.broadcast_state(autoencoder, self._peers)
        self.sae._autoencoder = autoencoder
