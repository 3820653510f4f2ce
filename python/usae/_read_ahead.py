"""The next items of an iterator, made by another thread while this one works."""

from __future__ import annotations

import threading
import time
from collections import deque
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
        self.waited_for_items = self.waited_for_room = 0.0
        self._items = items
        self._depth = depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._produce, name="usae read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> ReadAhead[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            start = time.perf_counter()
            while not self._ready and not self._ended:
                self._changed.wait()
            self.waited_for_items += time.perf_counter() - start
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _produce(self) -> None:
        try:
            while self._has_room():
                item = next(self._items)
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                del item  # or it would be kept until the next is made
        except StopIteration:
            pass
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Waits until one more item may be made; False where nobody wants it."""
        with self._changed:
            start = time.perf_counter()
            while len(self._ready) >= self._depth and not self._stopped:
                self._changed.wait()
            self.waited_for_room += time.perf_counter() - start
            return not self._stopped
