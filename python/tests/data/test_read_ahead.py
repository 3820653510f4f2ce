"""Items made in the background come as they would without it."""

import itertools
import os
import subprocess
import sys
import threading

import pytest

from usae._data import read_ahead
from usae._data.read_ahead import ReadAhead


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
            assert release.acquire(timeout=60)
        assert not release.acquire(timeout=0.05) and made == list(range(7))


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
    before, made = threading.active_count(), []

    def endless():
        for number in itertools.count():
            made.append(number)
            yield number

    numbers = endless()
    with ReadAhead(numbers, depth=3) as items:
        next(items)
    assert threading.active_count() == before
    count = len(made)
    assert next(numbers) == count  # nobody else is using it


def test_waiting_is_counted(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(read_ahead.time, "perf_counter", lambda: next(ticks))  # so that any wait takes one or more
    with ReadAhead(iter(range(3))) as items:
        assert list(items) == [0, 1, 2]
    assert items.waited_for_items >= 4 and items.waited_for_reader >= 4


INTERRUPTED = """
import itertools, random, signal, threading
from usae._data.read_ahead import ReadAhead

signal.signal(signal.SIGALRM, signal.default_int_handler)
random.seed(0)
interrupted = 0
for _ in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 6e-4))
        with ReadAhead(itertools.count()) as items:
            for _ in range(20):
                next(items)
    except (KeyboardInterrupt, RuntimeError):  # the latter from threading's own conditions, now and then
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(interrupted > 100, threading.active_count() < 10)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_at_any_moment_leaves_no_thread_that_waits_for_ever():
    result = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=100)
    assert result.stdout == "True True\n", result.stderr
