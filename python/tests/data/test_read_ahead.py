"""Items made in the background come as they would without it."""

import itertools
import os
import signal
import threading

import pytest

from support.interrupts import ctrl_c_at_each_instruction_of
from usae._data import read_ahead
from usae._data.read_ahead import ReadAhead


def readers():
    """The threads that are making items now."""
    return [thread for thread in threading.enumerate() if thread.name == "usae read-ahead"]


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_items_come_in_order_and_once(depth):
    with ReadAhead(iter(range(50)), depth) as items:
        assert list(items) == list(range(50)) and list(items) == []


def test_no_more_than_the_depth_is_made_ahead():
    made, release = [], threading.Semaphore(0)

    def slowly():
        for number in itertools.count():
            made.append(number)
            release.release()
            yield number

    with ReadAhead(slowly(), depth=2) as items:
        for taken in range(5):
            assert next(items) == taken
        for _ in range(7):  # five that were taken, and two that are ready
            assert release.acquire(timeout=300)
    assert made == list(range(7))


def test_an_error_comes_when_its_turn_does_and_stays():
    def failing():
        yield 1
        raise KeyError("x")

    with ReadAhead(failing(), depth=5) as items:
        assert next(items) == 1
        for _ in range(2):
            with pytest.raises(KeyError):
                next(items)


def test_leaving_early_ends_the_thread_and_nothing_more_is_made():
    made = []

    def endless():
        for number in itertools.count():
            made.append(number)
            yield number

    numbers = endless()
    with ReadAhead(numbers, depth=3) as items:
        next(items)
    assert readers() == []
    count = len(made)
    assert next(numbers) == count  # nobody else is using it


def test_waiting_is_counted(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(read_ahead.time, "perf_counter", lambda: next(ticks))  # so that any wait takes one or more
    with ReadAhead(iter(range(3))) as items:
        assert list(items) == [0, 1, 2]
    assert items.waited_for_items >= 4 and items.waited_for_reader >= 4


def use():
    with ReadAhead(itertools.count()) as items:
        assert list(itertools.islice(items, 3)) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_instruction_leaves_no_thread_that_waits_for_ever():
    for number in ctrl_c_at_each_instruction_of(use):
        for thread in readers():
            thread.join(300)
        assert readers() == [], f"after instruction {number}"
    assert number > 100


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_the_wait_for_an_item_and_the_thread():
    def interrupting():
        yield 0
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        yield 1

    with pytest.raises(KeyboardInterrupt), ReadAhead(interrupting()) as items:
        for _ in items:
            pass
        threading.Event().wait()  # where the items came before the signal was seen
    assert readers() == []
