"""Pictures read ahead by threads, in their order, while networks compute.

Threads rather than processes, because Pillow and PyTorch let go of the interpreter where they decode and resize: nothing has to
be forked, pickled or copied between processes, and notebooks and programs without ``if __name__ == "__main__"`` work.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from usae import _usae
from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._extraction_plan import Inputs, Plan
from usae.torch._images import Picture
from usae.torch._model import Model
from usae.torch._reader import Reader
from usae.torch._threads import compute_alone

MOST_WORKERS = 1024
MOST_PREFETCHED = 1024

DEFAULT_PREFETCH = 2
"""Batches that are read ahead. While one is computed another is complete, and a slow picture holds nothing up."""

MOST_BY_DEFAULT = 16
"""Workers by default at most: each may hold a whole picture as floats, 150 MB for one of 12 megapixels."""

SHARE_OF_CORES = 2
"""Cores for each worker where a network computes on the CPU, which is busy with it."""


class Feeding(NamedTuple):
    """The checked arguments of reading ahead.

    Attributes
    ----------
    n_workers : int
        Number of threads. 0: pictures are read where they are needed, in the caller's thread.
    prefetch : int
        Number of batches that are read ahead. 0: no picture is read before its batch is needed.
    """

    n_workers: int = 0
    prefetch: int = 0

    @staticmethod
    def of(num_workers: object, prefetch: object, models: Mapping[str, Model], images: object) -> Feeding:
        """Check arguments and choose those that are None. InvalidInputError for any that cannot be used."""
        if num_workers is None:
            n = _default_workers(models)
        else:
            n = checks.integer(num_workers, "num_workers", 0, MOST_WORKERS, ", or None, which chooses")
        if prefetch is None:
            # What an iterator has given is gone, so it is not taken further than the caller needs.
            return Feeding(n, 0 if isinstance(images, Iterator) else DEFAULT_PREFETCH)
        return Feeding(n, checks.integer(prefetch, "prefetch", 0, MOST_PREFETCHED, ", or None, which chooses"))


class Outcome(NamedTuple):
    """What came of a picture: what networks take of it by `Model.input_kind` and its name, or the error of reading it."""

    picture: Picture
    inputs: Inputs
    name: str | None = None
    error: InvalidInputError | None = None


Prepare = Callable[[Picture, Tensor], Outcome]
"""A function from a picture and its pixels to what is kept of them."""


class Feeder:
    """Reads pictures in order. As a context manager it leaves no thread behind.

    A picture is read by any thread, by one thread in the order of pictures, or by the caller's, as `Picture.threads` says.
    """

    def __init__(self, feeding: Feeding, plan: Plan, prepare: Prepare):
        self._feeding = feeding
        self._batch_size = plan.batch_size
        self._draft = plan.draft
        self._prepare = prepare
        self._pools: list[ThreadPoolExecutor] = []
        self._waiting: deque[tuple[Picture | None, Future[list[Outcome]]]] = deque()
        self._data_set = threading.Lock()
        self._n_taken = 0
        self._n_here = 0

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)
        self._waiting.clear()

    def outcomes(self, pictures: Iterator[Picture]) -> Iterator[Outcome]:
        """Yield what comes of each picture, in order. What the iterator itself raises comes in its place too."""
        if not self._feeding.n_workers:
            for each in pictures:
                yield from self._read(each)
            return
        more = True
        while more or self._waiting:
            while more and len(self._waiting) < self._capacity():
                more = self._submit_next(pictures)
            if not self._waiting:
                return
            picture, future = self._waiting.popleft()
            self._n_here -= picture is not None and picture.threads == "caller"
            found = future.result()
            if picture is not None and picture.expand is not None and any(outcome.error for outcome in found):
                found = self._read(picture)  # of a data set that works in one thread only, such as one of SQLite
            self._n_taken += len(found)
            yield from found

    def _capacity(self) -> int:
        """Return how many pictures may be on their way. One that the caller's thread reads gains nothing by being early."""
        if self._n_here:
            return 0
        rest_of_batch = self._batch_size - self._n_taken % self._batch_size
        return max(rest_of_batch, self._feeding.prefetch * self._batch_size)

    def _submit_next(self, pictures: Iterator[Picture]) -> bool:
        """Have the next picture read. Return whether there may be more."""
        future: Future[list[Outcome]]
        try:
            picture = next(pictures, None)
        except Exception as error:  # the caller's, after the pictures before it
            future = Future()
            future.set_exception(error)
            self._waiting.append((None, future))
            return False
        if picture is None:
            return False
        if picture.threads == "caller":
            future = Future()
            self._n_here += 1
            try:
                future.set_result(self._read(picture))
            except Exception as error:
                future.set_exception(error)
        else:
            future = self._pool(in_order=picture.threads == "one").submit(self._read, picture)
        self._waiting.append((picture, future))
        return True

    def _pool(self, in_order: bool) -> ThreadPoolExecutor:
        if not self._pools:
            counts = (self._feeding.n_workers, 1)
            self._pools = [ThreadPoolExecutor(n, "usae-pictures", initializer=compute_alone) for n in counts]
        return self._pools[in_order]

    def _read(self, picture: Picture) -> list[Outcome]:
        with contextlib.nullcontext() if picture.expand is None else self._data_set:
            return [self._outcome(part) for part in picture.parts()]

    def _outcome(self, picture: Picture) -> Outcome:
        try:
            pixels = picture.loaded(self._draft)
        except InvalidInputError as error:
            return Outcome(picture, {}, error=error)
        return self._prepare(picture, pixels)


def kept(outcomes: Iterator[Outcome], reader: Reader) -> Iterator[Outcome]:
    """Yield those that could be read. `reader` counts all, and says whether the others are errors."""
    for outcome in outcomes:
        if outcome.error is None:
            reader.pass_over()
            yield outcome
        else:
            reader.leave_out(outcome.picture, outcome.error)


def _default_workers(models: Mapping[str, Model]) -> int:
    cores = min(int(_usae.threads()), MOST_BY_DEFAULT)
    on_cpu = all(model.device.type == "cpu" for model in models.values())
    return cores // SHARE_OF_CORES if on_cpu else cores
