"""The next items of an iterator, made by another thread while this one works."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """An iterator over the items of another, whose next `depth` are made in the background. Use with ``with``.

    The items and their order are those of the other iterator, whatever the timing. An exception of it arrives when its turn
    comes. Leaving ``with`` waits for the item that is being made, so that nobody uses the iterator afterwards.

    Attributes
    ----------
    waited_for_items, waited_for_room : float
        Seconds that the reader waited for an item and the background thread for the reader.
    """

    def __init__(self, items: Iterator[T], depth: int = 1):
        self.waited_for_items = 0.0
        self._producer = _Producer(items, depth)
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._producer.run, name="usae read-ahead", daemon=True)

    @property
    def waited_for_room(self) -> float:
        return self._producer.waited

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._producer.stop()
        self._thread.join()

    def __del__(self) -> None:
        if hasattr(self, "_producer"):  # where Ctrl-C came while this was made, or ``with`` was entered or left
            self._producer.stop()

    def __iter__(self) -> ReadAhead[T]:
        return self

    def __next__(self) -> T:
        if self._end is None:
            start = time.perf_counter()
            self._producer.room.put(None)
            item, self._end = self._producer.ready.get()
            self.waited_for_items += time.perf_counter() - start
            if self._end is None:
                return item  # type: ignore[return-value]
        raise self._end


class _Producer(Generic[T]):
    """What the thread does. It knows nothing of `ReadAhead`, so that it ends where that is forgotten.

    The two threads share queues and no condition: methods of these are single calls in C, so that Ctrl-C finds them done or not
    begun, while a condition that is interrupted within its own Python code may be left locked.
    """

    def __init__(self, items: Iterator[T], depth: int):
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One for each item that may be made, and one to wake the thread when it is to end."""
        self.ready: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        """Items, and at the end what ended them."""
        self.waited = 0.0
        self._items = items
        self._stopped = False
        for _ in range(depth):
            self.room.put(None)

    def stop(self) -> None:
        """Make no more items. May be called again."""
        self._stopped = True
        self.room.put(None)

    def run(self) -> None:
        end: BaseException = StopIteration()
        try:
            while self._has_room():
                self.ready.put((next(self._items), None))
        except BaseException as error:
            end = error
        self.ready.put((None, end))

    def _has_room(self) -> bool:
        """Waits until one more item may be made; False where nobody wants it."""
        start = time.perf_counter()
        self.room.get()
        self.waited += time.perf_counter() - start
        return not self._stopped
