"""One step of data-parallel training: the protocol between the processes, and what happens if one of them fails.

`usae.h` describes the core's part. This module does not depend on torch: processes communicate through `Peers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from usae import _usae
from usae._core.autoencoder import Autoencoder
from usae._core.reports import StepReport
from usae._core.tensors import PARAMETERS, RESTS
from usae._data.activations import Activations, batch_for_core
from usae.errors import InvalidInputError, OtherProcessError


class Peers(Protocol):
    """Communication between the processes that train together. All of them call the same methods in the same order."""

    rank: int
    size: int

    def all_reduce(self, array: np.ndarray) -> Callable[[], object]:
        """Begin to sum an array over all processes, in place. The result waits for the end, and can be called repeatedly."""

    def all_gather(self, text: str) -> list[str]:
        """Return the texts of all processes, by rank."""

    def broadcast(self, array: np.ndarray) -> None:
        """Copy the array of rank 0 to all processes, in place."""


class _Exchange(NamedTuple):
    kind: int
    model: int
    tensor: int
    awaited: bool
    n_numbers: int


@dataclasses.dataclass(frozen=True)
class Exchanged:
    """The arrays that the processes summed in a step, and the time that this process needed.

    Attributes
    ----------
    names : tuple of str
        The arrays in order, for example "gradient of dictionary of dinov2".
    bytes : tuple of int
        Size of each array in one process.
    computing, waiting : tuple of float
        Seconds in which this process computed its part of each array, and seconds in which it waited for the sum.
    updating : float
        Seconds of the update of the parameters.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    computing: tuple[float, ...]
    waiting: tuple[float, ...]
    updating: float


class ExchangeBuffers:
    """The arrays that are exchanged, which are allocated once and used in every step."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def arrays(self, counts: Sequence[int]) -> list[np.ndarray]:
        for number, count in enumerate(counts):
            if number == len(self._arrays):
                self._arrays.append(np.empty(0, np.float32))
            if len(self._arrays[number]) < count:
                self._arrays[number] = np.empty(count, np.float32)
        return [array[:count] for array, count in zip(self._arrays, counts, strict=False)]

    def clear(self) -> None:
        """Forget the arrays after a failure, because the network may still write to them."""
        self._arrays = []


READY, FAILED, LEAVING = 0, 1, 2
REFUSED = 3  # in place of FAILED: it could not use a sum, most likely because another process failed and sent zeros
AGREE, STEP = 0, 1


class DifferentCallsError(InvalidInputError):
    """The processes did not make the same call."""


def agree(peers: Peers, failure: BaseException | None) -> None:
    """Raise in all processes if one has failed: its own error there, and OtherProcessError with its message elsewhere."""
    _handshake(peers, AGREE, READY if failure is None else FAILED, failure)


def leave(peers: Peers, failure: BaseException | None) -> None:
    """Tell the other processes, at the beginning of their next step or when they leave too, that this one trains no more.

    Raises `failure` if there is one, and OtherProcessError if another process failed.
    """
    _handshake(peers, STEP, LEAVING if failure is None else FAILED, failure)


_OPENING = ("tokens", "step", "present", "encoder", "fingerprint")
"""What each process tells the others of the step that it begins."""

Part = tuple[Mapping[str, Activations], "np.ndarray | None", int]
"""Activations, the numbers of their rows (None: all rows), and the model to encode (-1: it is drawn)."""


def step(
    autoencoder: Autoencoder, take: Callable[[], Part], peers: Peers, buffers: ExchangeBuffers
) -> tuple[StepReport, Exchanged] | None:
    """Do one step on the rows of all processes. `take` returns this process's part. Returns None if a process has left.

    Raises
    ------
    OtherProcessError
        If another process could not do its part. Nothing was changed in any process.
    """
    autoencoder.record_last()
    failure: BaseException | None = None
    opening = dict.fromkeys(_OPENING, 0)
    try:
        acts, rows, encoder = take()
        opening = autoencoder.core.shared_begin(*batch_for_core(acts, rows, autoencoder.names), encoder)
    except BaseException as error:  # the other processes have to know of any error
        failure = error
    try:
        mine = [opening[name] for name in _OPENING]
        table = _handshake(peers, STEP, READY if failure is None else FAILED, failure, [*mine, _settings(autoencoder)])
        if (table[:, 1] == LEAVING).any():
            return None
        _check_same_settings(table)
        exchanges = autoencoder.core.shared_agree(np.ascontiguousarray(table[:, 2]), peers.rank)
        return _exchange(autoencoder, [_Exchange(*exchange) for exchange in exchanges], peers, buffers)
    except BaseException:
        buffers.clear()
        raise
    finally:
        autoencoder.core.shared_abandon()  # this does nothing after a complete step


def _exchange(
    autoencoder: Autoencoder, exchanges: list[_Exchange], peers: Peers, buffers: ExchangeBuffers
) -> tuple[StepReport, Exchanged]:
    counts = [exchange.n_numbers for exchange in exchanges]
    counts[-1] += peers.size  # behind the summary, one flag for each process: 0, FAILED or REFUSED
    failure: BaseException | None = None
    try:
        arrays = buffers.arrays(counts)
    except MemoryError as error:
        failure, arrays = error, [np.zeros(count, np.float32) for count in counts]
    computing, waiting, failure = _sum_arrays(autoencoder.core, exchanges, arrays, peers, failure)
    flags = arrays[-1][exchanges[-1].n_numbers :]
    if flags[peers.rank] == REFUSED and (flags == FAILED).any():  # the cause is there
        failure = None
    _raise_failure(peers, (flags == FAILED) if (flags == FAILED).any() else (flags != 0), failure)
    start = time.perf_counter()
    sums = [None if exchange.awaited else array for exchange, array in zip(exchanges, arrays, strict=True)]
    report = autoencoder.recorded(autoencoder.core.shared_finish([*sums[:-1], arrays[-1][: exchanges[-1].n_numbers]]))
    updating = time.perf_counter() - start
    names = tuple(_name(exchange, autoencoder.names) for exchange in exchanges)
    sizes = tuple(4 * count for count in counts)
    return report, Exchanged(names, sizes, tuple(computing), tuple(waiting), updating)


def _sum_arrays(
    core: _usae.Core, exchanges: list[_Exchange], arrays: list[np.ndarray], peers: Peers, failure: BaseException | None
) -> tuple[list[float], list[float], BaseException | None]:
    """Sum the arrays over all processes, and return the seconds of computing and waiting, and a failure.

    A process that fails continues with zeros, because the others wait for it.
    """
    waits: list[Callable[[], object]] = []
    try:
        return _sum_in_order(core, exchanges, arrays, peers, failure, waits)
    except BaseException:
        # A process is gone. Sums that have begun still use the arrays, and must not do so after the return.
        for wait in waits:
            with contextlib.suppress(Exception):
                wait()
        raise


def _sum_in_order(
    core: _usae.Core,
    exchanges: list[_Exchange],
    arrays: list[np.ndarray],
    peers: Peers,
    failure: BaseException | None,
    waits: list[Callable[[], object]],
) -> tuple[list[float], list[float], BaseException | None]:
    computing, waiting = [0.0] * len(arrays), [0.0] * len(arrays)
    flag = READY if failure is None else FAILED
    for number, (exchange, array) in enumerate(zip(exchanges, arrays, strict=True)):
        start = time.perf_counter()
        if failure is None:
            failure = _failure_of(core.shared_fill, number, array[: exchange.n_numbers])
            flag = READY if failure is None else FAILED
        if failure is not None:
            array[:] = 0
        if number == len(arrays) - 1:
            array[exchange.n_numbers :] = 0
            array[exchange.n_numbers + peers.rank] = flag
        computing[number] = time.perf_counter() - start
        waits.append(peers.all_reduce(array))
        if exchange.awaited:
            waiting[number] = _timed(waits[number])
            if failure is None:
                failure = _failure_of(core.shared_take, number, array)
                flag = READY if failure is None else REFUSED if isinstance(failure, InvalidInputError) else FAILED
    for number, exchange in enumerate(exchanges):
        if not exchange.awaited:
            waiting[number] = _timed(waits[number])
    return computing, waiting, failure


def _failure_of(call: Callable[[int, np.ndarray], object], number: int, array: np.ndarray) -> BaseException | None:
    try:
        call(number, array)
    except BaseException as error:  # the other processes have to know of any error before it is raised
        return error
    return None


def _timed(wait: Callable[[], object]) -> float:
    start = time.perf_counter()
    wait()
    return time.perf_counter() - start


def _handshake(
    peers: Peers, operation: int, state: int, failure: BaseException | None, values: Sequence[int] = (0,) * 6
) -> np.ndarray:
    """Exchange one row of numbers for each process: operation, state and `values`. Raises if one failed or operations differ.

    The table has the same shape for every operation, because gloo ends the program if the sizes of arrays differ.
    """
    table = np.zeros((peers.size, 8), np.int64)
    table[peers.rank] = [operation, state, *(value & (2**63 - 1) for value in values)]
    peers.all_reduce(table)()
    _raise_failure(peers, table[:, 1] == FAILED, failure)
    if (table[:, 0] != table[0, 0]).any():
        calls = "; ".join(f"rank {rank} {_call(*row[:2])}" for rank, row in enumerate(table.tolist()))
        raise DifferentCallsError(
            f"every process must make the same calls in the same order, got different calls: {calls}; nothing was done. If one "
            f"process made a new DistributedTrainer, make a new one in all"
        )
    return table


def _call(operation: int, state: int) -> str:
    if operation == AGREE:
        return "begins (a first partial_fit, synchronize or fit_distributed)"
    return "ends its training" if state == LEAVING else "continues with a step"


def _raise_failure(peers: Peers, failed: np.ndarray, mine: BaseException | None) -> None:
    """If a process failed, raise its own error there, and OtherProcessError with its message in the others."""
    if not failed.any():
        return
    words = peers.all_gather("" if mine is None else _message(mine))
    if mine is not None:
        raise mine
    which = "; ".join(f"rank {rank}: {words[rank]}" for rank in np.flatnonzero(failed).tolist())
    raise OtherProcessError(f"the step was not done, because another process failed; {which}")


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _settings(autoencoder: Autoencoder) -> int:
    """Return a hash of everything besides parameters and data that a step depends on."""
    known = [autoencoder.n_concepts, autoencoder.k, autoencoder.seed, autoencoder.widths, autoencoder.recipe.to_dict()]
    return int.from_bytes(hashlib.sha256(json.dumps(known).encode()).digest()[:8], "little")


# Ordered so that a difference comes before those that it causes: with another seed, another encoder is drawn.
_COMPARED = {3: "steps done", 7: "sizes, seed, models or recipe", 4: "models of the batch", 5: "encoder", 6: "parameters"}


def _check_same_settings(table: np.ndarray) -> None:
    """Raise the same error in every process if they do not train the same autoencoder."""
    for column, what in _COMPARED.items():
        others = np.flatnonzero(table[:, column] != table[0, column]).tolist()
        if others:
            remedy = "make the autoencoders alike, or call synchronize() of every process's DistributedTrainer"
            if what == "models of the batch":
                remedy = "give all of them batches with the same models"
            if what == "encoder":
                remedy = "give all of them the same encoder=, or none"
            ranks = ", ".join(map(str, others))
            raise InvalidInputError(
                f"{what} must be the same in every process, got a difference between rank 0 and rank {ranks}; {remedy}"
            )


def _name(exchange: _Exchange, models: Sequence[str]) -> str:
    words = {
        _usae.EXCHANGE_MEANS: "means",
        _usae.EXCHANGE_COVARIANCE: "covariance",
        _usae.EXCHANGE_RESIDUAL_MEANS: "residual means",
        _usae.EXCHANGE_SPREADS: "spreads",
        _usae.EXCHANGE_RESTARTS: "tokens of merged duplicates",
        _usae.EXCHANGE_SUMMARY: "summary",
        _usae.EXCHANGE_UPPER_HALVES: "upper halves",
        _usae.EXCHANGE_LOWER_HALVES: "lower halves",
        _usae.EXCHANGE_TIES: "ties",
    }
    if exchange.kind != _usae.EXCHANGE_GRADIENT:
        return words[exchange.kind]
    tensor = next(name for name, number in PARAMETERS.items() if number == exchange.tensor)
    return f"gradient of {tensor} of {models[exchange.model]}"


def broadcast_state(autoencoder: Autoencoder, peers: Peers) -> None:
    """Copy the parameters, the training state, the history and what is known of the arrays from rank 0 to all processes."""
    step = np.array([autoencoder.core.step_count], np.int64)
    peers.broadcast(step)
    for model in range(len(autoencoder.names)):
        for name in (*autoencoder.parameter_names(RESTS), *autoencoder.training_state_names()):
            values = autoencoder.read(model, name)
            peers.broadcast(values)
            if peers.rank > 0:
                autoencoder.write(model, name, values)
    if peers.rank > 0:
        autoencoder.core.step_count = int(step[0])
    mine = [autoencoder.history, autoencoder.column_labels, autoencoder.standardized_types] if peers.rank == 0 else None
    autoencoder.history, labels, autoencoder.standardized_types = json.loads(peers.all_gather(json.dumps(mine))[0])
    autoencoder.column_labels = {name: tuple(each) for name, each in labels.items()}
