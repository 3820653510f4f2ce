"""One training step that several processes share: who says what to whom, and what happens where one of them cannot.

The core's part is in `usae.h`. Nothing here knows torch: `Peers` is how processes add numbers up.
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
from usae._core.fitted import Fitted
from usae._core.reports import StepReport
from usae._core.tensors import PARAMETERS
from usae._data.activations import Activations
from usae.errors import InvalidInputError, OtherProcessError


class Peers(Protocol):
    """The processes that train together. All of them call the same methods in the same order."""

    rank: int
    size: int

    def add(self, array: np.ndarray) -> Callable[[], object]:
        """Begin to add an array up over all processes, in place. What is returned waits for the end; it may be called again."""

    def texts(self, text: str) -> list[str]:
        """The texts of all processes, by rank."""

    def spread(self, array: np.ndarray) -> None:
        """Give all processes the array of rank 0, in place."""


class _Exchange(NamedTuple):
    kind: int
    model: int
    tensor: int
    awaited: bool
    n_numbers: int


@dataclasses.dataclass(frozen=True)
class Exchanged:
    """What crossed between processes in a step, and what it cost this one.

    Attributes
    ----------
    names : tuple of str
        What was exchanged, in order: "gradient of dictionary of dinov2" for one.
    bytes : tuple of int
        Of each, as one process has it.
    computing, waiting : tuple of float
        Seconds that this process spent on its part of each, and seconds that it then waited for the sum.
    updating : float
        Seconds of the update.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    computing: tuple[float, ...]
    waiting: tuple[float, ...]
    updating: float


class Room:
    """Arrays that are exchanged, kept from step to step."""

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
        """After a failure something may still be under way into the arrays."""
        self._arrays = []


READY, FAILED, LEAVING = 0, 1, 2
AGREE, STEP = 0, 1


class DifferentCallsError(InvalidInputError):
    """Processes are not at the same place of the same program."""


def agree(peers: Peers, failure: BaseException | None) -> None:
    """All processes call it: what failed in one is raised in all, as its own error there and with its words elsewhere."""
    _open(peers, AGREE, READY if failure is None else FAILED, failure)


def leave(peers: Peers, failure: BaseException | None) -> None:
    """Take part in the beginning of the others' next step, or in their leaving, to say that this process does no more.

    Raises the failure; OtherProcessError where another process failed.
    """
    _open(peers, STEP, LEAVING if failure is None else FAILED, failure)


Part = tuple[Mapping[str, Activations], "np.ndarray | None", int]
"""Activations, which of their rows (None: all), and the encoder (-1: drawn)."""


def step(fitted: Fitted, take: Callable[[], Part], peers: Peers, room: Room) -> tuple[StepReport, Exchanged] | None:
    """One step on the rows of all processes; None where one of them has left. `take` gives this process's part of the batch.

    Raises
    ------
    OtherProcessError
        Where another process could not do its part. Nothing was changed, here or there.
    """
    fitted.record_last()
    failure: BaseException | None = None
    opening = {"tokens": 0, "step": 0, "encoder": 0, "fingerprint": 0}
    try:
        acts, rows, encoder = take()
        opening = fitted.core.shared_begin([x.native for x in acts.values()], rows, encoder)
    except BaseException as error:  # which the others have to know, whatever it is
        failure = error
    try:
        mine = [opening[name] for name in ("tokens", "step", "encoder", "fingerprint")]
        table = _open(peers, STEP, READY if failure is None else FAILED, failure, [*mine, _settings(fitted)])
        if (table[:, 1] == LEAVING).any():
            return None
        _check_alike(table)
        exchanges = fitted.core.shared_agree(np.ascontiguousarray(table[:, 2]), peers.rank)
        return _exchange(fitted, [_Exchange(*exchange) for exchange in exchanges], peers, room)
    except BaseException:
        room.clear()
        raise
    finally:
        fitted.core.shared_abandon()  # which does nothing after the end of a step


def _exchange(fitted: Fitted, exchanges: list[_Exchange], peers: Peers, room: Room) -> tuple[StepReport, Exchanged]:
    counts = [exchange.n_numbers for exchange in exchanges]
    counts[-1] += peers.size  # whether each process failed, behind the summary
    failure: BaseException | None = None
    try:
        arrays = room.arrays(counts)
    except MemoryError as error:
        failure, arrays = error, [np.zeros(count, np.float32) for count in counts]
    computing, waiting, failure = _add_up(fitted.core, exchanges, arrays, peers, failure)
    _raise_failure(peers, arrays[-1][exchanges[-1].n_numbers :] > 0, failure)
    start = time.perf_counter()
    sums = [None if exchange.awaited else array for exchange, array in zip(exchanges, arrays, strict=True)]
    report = fitted.core.shared_finish([*sums[:-1], arrays[-1][: exchanges[-1].n_numbers]])
    updating = time.perf_counter() - start
    names = tuple(_name(exchange, fitted.names) for exchange in exchanges)
    sizes = tuple(4 * count for count in counts)
    return fitted.report(report), Exchanged(names, sizes, tuple(computing), tuple(waiting), updating)


def _add_up(
    core: _usae.Core, exchanges: list[_Exchange], arrays: list[np.ndarray], peers: Peers, failure: BaseException | None
) -> tuple[list[float], list[float], BaseException | None]:
    """Sums into the arrays; seconds of computing and waiting. A process that fails goes on with zeros: others wait for it."""
    waits: list[Callable[[], object]] = []
    try:
        return _add_up_in_turn(core, exchanges, arrays, peers, failure, waits)
    except BaseException:
        # A peer is gone. What was begun still has the arrays: threads of the network must not hold them on when this returns.
        for wait in waits:
            with contextlib.suppress(Exception):
                wait()
        raise


def _add_up_in_turn(
    core: _usae.Core,
    exchanges: list[_Exchange],
    arrays: list[np.ndarray],
    peers: Peers,
    failure: BaseException | None,
    waits: list[Callable[[], object]],
) -> tuple[list[float], list[float], BaseException | None]:
    computing, waiting = [0.0] * len(arrays), [0.0] * len(arrays)
    for number, (exchange, array) in enumerate(zip(exchanges, arrays, strict=True)):
        start = time.perf_counter()
        failure = failure or _failure_of(core.shared_fill, number, array[: exchange.n_numbers])
        if failure is not None:
            array[:] = 0
        if number == len(arrays) - 1:
            array[exchange.n_numbers :] = 0
            array[exchange.n_numbers + peers.rank] = failure is not None
        computing[number] = time.perf_counter() - start
        waits.append(peers.add(array))
        if exchange.awaited:
            waiting[number] = _timed(waits[number])
            failure = failure or _failure_of(core.shared_take, number, array)
    for number, exchange in enumerate(exchanges):
        if not exchange.awaited:
            waiting[number] = _timed(waits[number])
    return computing, waiting, failure


def _failure_of(call: Callable[[int, np.ndarray], object], number: int, array: np.ndarray) -> BaseException | None:
    try:
        call(number, array)
    except BaseException as error:  # whatever it is, the others have to hear of it before it is raised
        return error
    return None


def _timed(wait: Callable[[], object]) -> float:
    start = time.perf_counter()
    wait()
    return time.perf_counter() - start


def _open(
    peers: Peers, operation: int, state: int, failure: BaseException | None, values: Sequence[int] = (0,) * 5
) -> np.ndarray:
    """A row of numbers of each process: operation, state, `values`. Raises what failed, and where operations differ.

    Of one shape whatever the operation: gloo ends the program where arrays of different sizes meet.
    """
    table = np.zeros((peers.size, 7), np.int64)
    table[peers.rank] = [operation, state, *(value & (2**63 - 1) for value in values)]
    peers.add(table)()
    _raise_failure(peers, table[:, 1] == FAILED, failure)
    if (table[:, 0] != table[0, 0]).any():
        calls = "; ".join(f"rank {rank} {_call(*row[:2])}" for rank, row in enumerate(table.tolist()))
        raise DifferentCallsError(
            f"every process must make the same calls in the same order, got others: {calls}; nothing was done. Where one made "
            f"its DistributedTrainer anew, let all call partial_fit again"
        )
    return table


def _call(operation: int, state: int) -> str:
    if operation == AGREE:
        return "begins (a first partial_fit, synchronize or fit_distributed)"
    return "ends its training" if state == LEAVING else "goes on with a step"


def _raise_failure(peers: Peers, failed: np.ndarray, mine: BaseException | None) -> None:
    """Where a process failed: its own error there, and one with its words in the others."""
    if not failed.any():
        return
    words = peers.texts("" if mine is None else _words(mine))
    if mine is not None:
        raise mine
    which = "; ".join(f"rank {rank}: {words[rank]}" for rank in np.flatnonzero(failed).tolist())
    raise OtherProcessError(f"nothing was done, because a process that takes part could not do its own; {which}")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _settings(fitted: Fitted) -> int:
    """A number for everything besides parameters and data that decides a step."""
    known = [fitted.n_concepts, fitted.k, fitted.seed, fitted.widths, fitted.recipe.to_dict()]
    return int.from_bytes(hashlib.sha256(json.dumps(known).encode()).digest()[:8], "little")


# In the order in which one explains the next: another seed draws another encoder.
_ALIKE = {3: "steps done", 6: "sizes, seed, models or recipe", 4: "encoder", 5: "parameters"}


def _check_alike(table: np.ndarray) -> None:
    """The same error in every process where they do not train the same thing."""
    for column, what in _ALIKE.items():
        others = np.flatnonzero(table[:, column] != table[0, column]).tolist()
        if others:
            remedy = "make the autoencoders alike, or call synchronize() of every process's DistributedTrainer"
            if what == "encoder":
                remedy = "give all of them the same encoder=, or none"
            ranks = ", ".join(map(str, others))
            raise InvalidInputError(
                f"every process must have the same {what}, got others than rank 0 in rank {ranks}; {remedy}"
            )  # fmt: skip


def _name(exchange: _Exchange, models: Sequence[str]) -> str:
    words = {
        _usae.EXCHANGE_MEANS: "means",
        _usae.EXCHANGE_COVARIANCE: "covariance",
        _usae.EXCHANGE_RESIDUAL_MEANS: "residual means",
        _usae.EXCHANGE_SPREADS: "spreads",
        _usae.EXCHANGE_RESTARTS: "tokens of merged twins",
        _usae.EXCHANGE_SUMMARY: "summary",
        _usae.EXCHANGE_UPPER_HALVES: "upper halves",
        _usae.EXCHANGE_LOWER_HALVES: "lower halves",
        _usae.EXCHANGE_TIES: "ties",
    }
    if exchange.kind != _usae.EXCHANGE_GRADIENT:
        return words[exchange.kind]
    tensor = next(name for name, number in PARAMETERS.items() if number == exchange.tensor)
    return f"gradient of {tensor} of {models[exchange.model]}"


def spread(fitted: Fitted, peers: Peers) -> None:
    """Everything of rank 0 that training depends on, to all; and the history."""
    step = np.array([fitted.core.step_count], np.int64)
    peers.spread(step)
    for model in range(len(fitted.names)):
        for name in (*fitted.parameter_names(), *fitted.training_state_names()):
            values = fitted.read(model, name)
            peers.spread(values)
            if peers.rank > 0:
                fitted.write(model, name, values)
    if peers.rank > 0:
        fitted.core.step_count = int(step[0])
    history = peers.texts(json.dumps(fitted.history) if peers.rank == 0 else "")[0]
    fitted.history = json.loads(history)
