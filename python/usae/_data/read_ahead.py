"""An iterator whose next items are produced by another thread while this one works."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """An iterator over the items of another iterator, `depth` of which are produced in advance. Use it in a ``with`` block.

    The items and their order do not depend on timing. An exception of the other iterator is raised here after the items before
    it. Leaving ``with`` waits for the item that is being produced, so that the other iterator is not in use afterwards.

    Attributes
    ----------
    waited_for_items, waited_for_reader : float
        Seconds in which the reader waited for an item, and in which the background thread waited for the reader.
    """

    def __init__(self, items: Iterator[T], depth: int = 1):
        self.waited_for_items = 0.0
        self._producer = _Producer(items, depth)
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._producer.run, name="usae read-ahead", daemon=True)

    @property
    def waited_for_reader(self) -> float:
        return self._producer.waited

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._producer.stop()
        self._thread.join()

    def __del__(self) -> None:
        if hasattr(self, "_producer"):  # Ctrl-C may have come in __init__, __enter__ or __exit__
            self._producer.stop()

    def __iter__(self) -> ReadAhead[T]:
        return self

    def __next__(self) -> T:
        if self._end is None:
            start = time.perf_counter()
            self._producer.capacity.put(None)
            item, self._end = self._producer.ready.get()
            self.waited_for_items += time.perf_counter() - start
            if self._end is None:
                return item  # type: ignore[return-value]
        raise self._end


class _Producer(Generic[T]):
    """The work of the background thread. It holds no reference to `ReadAhead`, whose deletion therefore ends the thread.

    The two threads share queues and no condition variable. A method of SimpleQueue is one call in C, so Ctrl-C comes before or
    after it. A condition variable is Python code, and Ctrl-C inside it may leave it locked.
    """

    def __init__(self, items: Iterator[T], depth: int):
        self.capacity: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One element for each item that may be produced, and one that wakes the thread to end it."""
        self.ready: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        """Items, each with None. The last element holds the exception that ended them."""
        self.waited = 0.0
        self._items = items
        self._stopped = False
        for _ in range(depth):
            self.capacity.put(None)

    def stop(self) -> None:
        """Stop producing items. It may be called more than once."""
        self._stopped = True
        self.capacity.put(None)

    def run(self) -> None:
        end: BaseException = StopIteration()
        try:
            while self._wait_for_capacity():
                self.ready.put((next(self._items), None))
        except BaseException as error:
            end = error
        self.ready.put((None, end))

    def _wait_for_capacity(self) -> bool:
        """Wait until one more item may be produced. False if the thread is to end."""
        start = time.perf_counter()
        self.capacity.get()
        self.waited += time.perf_counter() - start
        return not self._stopped
