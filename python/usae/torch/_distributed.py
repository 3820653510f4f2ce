"""Training in several processes at once, over torch.distributed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed

from usae._core import resolved_recipe
from usae._core.fitted import Fitted
from usae._core.reports import StepReport
from usae._data.activations import as_aligned
from usae._estimator.universal_sae import UniversalSAE
from usae._training import loop, shared_steps
from usae._training.delayed_signals import DelayedSignals
from usae._training.shared_steps import Exchanged
from usae.errors import InvalidInputError, OtherProcessError
from usae.recipes import Recipe


class TorchPeers:
    """Processes of a group of torch.distributed. Arrays are added up where they lie."""

    def __init__(self, group: Any = None):
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            raise InvalidInputError(
                "group: training together needs torch.distributed to be initialised, and it is not; call "
                "torch.distributed.init_process_group('gloo') in a program that torchrun starts"
            )
        try:
            rank = distributed.get_rank(group)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"group must be a torch.distributed.ProcessGroup or None, got {group!r}") from error
        if rank < 0:
            raise InvalidInputError("group must be one that this process belongs to, got one of other processes")
        backends = str(distributed.get_backend_config(group))
        if "gloo" not in backends and "mpi" not in backends:
            raise InvalidInputError(
                f"group must be able to add up arrays of the CPU, got one of {backends}; pass "
                f"group=torch.distributed.new_group(backend='gloo')"
            )
        self._group = group
        self._first = 0 if group is None else distributed.get_global_rank(group, 0)
        self.rank: int = rank
        self.size: int = distributed.get_world_size(group)

    def add(self, array: np.ndarray) -> Callable[[], object]:
        work = torch.distributed.all_reduce(torch.from_numpy(array), group=self._group, async_op=True)
        return work.wait

    def texts(self, text: str) -> list[str]:
        texts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(texts, text, group=self._group)
        return texts

    def spread(self, array: np.ndarray) -> None:
        torch.distributed.broadcast(torch.from_numpy(array), src=self._first, group=self._group)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What raises in one process raises in all: its own error there, and one with its words in the others."""
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        shared_steps.agree(self, failure)


class DistributedTrainer:
    """Steps of one autoencoder on batches that several processes have parts of.

    A step of all is `UniversalSAE.partial_fit` on the rows of all, up to the rounding of sums in another order: gradients, sums
    for BatchNorm and for the auxiliary loss, losses and counts are added up over the processes, and then each makes the same
    update. So all of them have the same parameters, to the bit.

    Parameters
    ----------
    sae : UniversalSAE
        Alike in all processes: sizes, seed and recipe, and the parameters, where it has some (`synchronize` gives all those of
        rank 0). On machines of one kind its bits stay alike; between kinds that compute differently, a step that notices is an
        error.
    group : torch.distributed.ProcessGroup, optional
        Of gloo. Left out: all processes.

    Attributes
    ----------
    sae : UniversalSAE
    rank, size : int
        Which process this is, and how many there are.
    exchanged_ : Exchanged or None
        What crossed between processes in the last step, in bytes and seconds.

    Raises
    ------
    InvalidInputError
        Where torch.distributed is not initialised, or the group cannot add up arrays of the CPU.

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
        self._room = shared_steps.Room()
        self._begun = False

    @property
    def rank(self) -> int:
        return self._peers.rank

    @property
    def size(self) -> int:
        return self._peers.size

    def partial_fit(self, batch: Mapping[str, Any], *, encoder: str | None = None) -> StepReport:
        """One step on the rows of all processes. All of them call it, each with its own rows, and as often as the others.

        A process that calls it once more than another waits for it, until the group's timeout; `steps` ends with the first that
        has no more.

        Parameters
        ----------
        batch : mapping of str to array
            As for `UniversalSAE.partial_fit`: at least one row. Processes may have different numbers of rows, and each row
            counts alike. The first one, on objects without parameters, decides models, standardisation and initial dictionaries
            by the rows of rank 0.
        encoder : str, optional
            The model to encode, the same in all processes. Left out: drawn, the same in all.

        Returns
        -------
        StepReport
            Of the whole batch: the same in all processes, but for `screening`.

        Raises
        ------
        InvalidInputError
            Where this process's batch cannot be used, or the processes' autoencoders are not alike.
        OtherProcessError
            Where another process could not do its part; the text says which, and why. Nothing was changed, here or there, and
            all may go on.
        RuntimeError
            Of torch, where a process has gone or was silent for as long as the group's timeout. Nothing was changed here.

        Notes
        -----
        Ctrl-C and SIGTERM wait for the end of the step; a second one does not.
        """
        report = self._step(batch, encoder)
        if report is None:
            raise OtherProcessError("the step was not done, because a process has ended its training")
        return report

    def steps(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[StepReport]:
        """A step for each batch, until one of the processes has no more. All of them call it, each with its own batches.

        Parameters
        ----------
        batches : iterable of mappings of str to array
            As for `partial_fit`, at least one in each process; they may be more in one than in another.

        Yields
        ------
        StepReport
            After each step. What follows in the loop's body runs before the next; leaving the loop ends it in all processes.

        Raises
        ------
        InvalidInputError, OtherProcessError, RuntimeError
            As `partial_fit`; what taking a batch raises, in the others as OtherProcessError.
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
            report = self._step(batch, None)
            if report is None:
                return
            try:
                yield report
            except GeneratorExit:
                shared_steps.leave(self._peers, None)
                raise
        shared_steps.leave(self._peers, None)

    def _step(self, batch: Mapping[str, Any], encoder: str | None) -> StepReport | None:
        """None where a process has left."""
        with DelayedSignals(), self._beginning_anew():
            if not self._begun:
                self._begin(batch)
                self._begun = True
            fitted = self._fitted()

            def take() -> shared_steps.Part:
                loop.warn_of_lost_optimizer(fitted, stacklevel=6)
                given = as_aligned(batch, "batch", fitted.widths)
                return given, None, -1 if encoder is None else fitted.index(encoder, "encoder")

            done = shared_steps.step(fitted, take, self._peers, self._room)
            if done is None:
                return None
            report, self.exchanged_ = done
            loop.record_single(fitted, report, stacklevel=4)
            return report

    def synchronize(self) -> None:
        """Give all processes the parameters, the state of training and the history that rank 0 has. All of them call it.

        Raises
        ------
        InvalidInputError
            Where the processes' autoencoders have other sizes, seeds or recipes, or that of rank 0 has no parameters.
        """
        with self._beginning_anew():
            self._check_alike()
            with self._peers.together():
                if self.rank == 0:
                    self._fitted()
            self._spread()
        self._begun = True

    @contextlib.contextmanager
    def _beginning_anew(self) -> Iterator[None]:
        """After different calls, which are an error in all processes, the next step of all begins alike."""
        try:
            yield
        except shared_steps.DifferentCallsError:
            self._begun = False
            raise

    def _fitted(self) -> Fitted:
        return self.sae._initialized()

    def _begin(self, batch: Mapping[str, Any]) -> None:
        """See to it that all processes have the same models, where some have none."""
        have = self._check_alike()
        if all(have):
            return
        with self._peers.together():
            if self.rank == 0 and self.sae._fitted is None:
                if any(have):
                    raise InvalidInputError(
                        "sae: rank 0 must have parameters where another process has some, got none; load or initialise it in "
                        "all processes, or in rank 0 alone"
                    )
                given = as_aligned(batch, "batch")
                fitted = Fitted(self.sae.get_params(), resolved_recipe.resolved(self.sae._checked_recipe(), len(given)))
                fitted.initialize_from(given)
                self.sae._fitted = fitted
        self._spread()

    def _check_alike(self) -> list[bool]:
        """Which processes have parameters; an error in all where the arguments of their autoencoders differ."""
        with self._peers.together():
            params = self.sae.get_params()
            numbers = [int(params[name]) for name in ("n_concepts", "k", "seed")]  # NumPy's are none to JSON
            mine = [*numbers, self.sae._checked_recipe().to_dict()]
            words = json.dumps([self.sae._fitted is not None, mine])
        given = [json.loads(text) for text in self._peers.texts(words)]
        others = [str(rank) for rank, (_, theirs) in enumerate(given) if theirs != given[0][1]]
        if others:
            raise InvalidInputError(
                f"sae must have the same n_concepts, k, seed and recipe in all processes, got others than rank 0 in rank "
                f"{', '.join(others)}"
            )
        return [has for has, _ in given]

    def _spread(self) -> None:
        fitted = self.sae._fitted if self.rank == 0 else None
        words = "" if fitted is None else json.dumps([fitted.widths, fitted.recipe.to_dict()])
        widths, recipe = json.loads(self._peers.texts(words)[0])
        with self._peers.together():
            if fitted is None:
                fitted = Fitted(self.sae.get_params(), Recipe.from_dict(recipe))
                fitted.initialize(widths)
        shared_steps.spread(fitted, self._peers)
        self.sae._fitted = fitted
