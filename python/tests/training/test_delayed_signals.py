"""Signals while a run with checkpoints trains."""

import os
import signal
import threading
import time

import pytest

import usae
from support.runs import Crash, crash, new, steps_kept
from usae._training.delayed_signals import DelayedSignals


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_put_back(acts, tmp_path, handlers):
    new().fit(acts, steps=2, checkpoint=tmp_path / "run")
    with pytest.raises(Crash):
        new().fit(acts, steps=2, checkpoint=tmp_path / "other", callbacks=[crash(1)])
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_handler_of_ones_own_is_called_after_the_step_and_where_it_returns_training_goes_on(acts, tmp_path, handlers):
    def own(number, frame):
        calls.append((number, steps_kept(tmp_path / "run")))

    calls = []
    signal.signal(signal.SIGTERM, own)
    tell = [lambda report: report.step in (3, 5) and signal.raise_signal(signal.SIGTERM)]
    assert new().fit(acts, steps=8, checkpoint=tmp_path / "run", callbacks=tell).n_steps_ == 8
    assert calls == [(signal.SIGTERM, [3]), (signal.SIGTERM, [3, 5])]
    assert signal.getsignal(signal.SIGTERM) is own


def test_what_is_ignored_stays_ignored(acts, tmp_path, handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell = [lambda report: signal.raise_signal(signal.SIGINT)]
    assert new().fit(acts, steps=4, checkpoint=tmp_path / "run", callbacks=tell).n_steps_ == 4
    assert steps_kept(tmp_path / "run") == [4]


def test_a_second_ctrl_c_after_two_seconds_is_obeyed_at_once_and_makes_no_checkpoint(acts, tmp_path, handlers, monkeypatch):
    def twice(report):
        if report.step == 5:
            now = time.monotonic()
            signal.raise_signal(signal.SIGINT)
            monkeypatch.setattr(time, "monotonic", lambda: now + 2.5)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        new().fit(acts, steps=9, checkpoint=usae.Checkpoints(tmp_path / "run", every_steps=2), callbacks=[twice])
    assert steps_kept(tmp_path / "run") == [2, 4]
    assert signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_are_repeated_at_once_are_one(acts, tmp_path, handlers, number):
    def own(number, frame):
        raise Crash

    def twice(report):
        signal.raise_signal(number)
        signal.raise_signal(number)

    signal.signal(number, own)
    with pytest.raises(Crash):
        new().fit(acts, steps=9, checkpoint=tmp_path / "run", callbacks=[twice])
    assert steps_kept(tmp_path / "run") == [1]


def test_ctrl_c_beside_an_error_of_a_callback_is_not_lost(acts, tmp_path):
    def both(report):
        signal.raise_signal(signal.SIGINT)
        raise Crash

    with pytest.raises(KeyboardInterrupt):
        new().fit(acts, steps=9, checkpoint=tmp_path / "run", callbacks=[both])
    assert steps_kept(tmp_path / "run") == [1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_meanwhile_ends_by_sigterm(acts, tmp_path, handlers):
    def fork(report):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"!")  # Python forgets signals that come while it forks
            while True:
                pass
        os.read(reading, 1)
        os.close(reading)
        os.close(writing)
        os.kill(child, signal.SIGTERM)
        ends.append(os.waitpid(child, 0)[1])

    ends = []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    new().fit(acts, steps=2, checkpoint=tmp_path / "run", callbacks=[fork])
    assert [os.WTERMSIG(end) for end in ends] == [signal.SIGTERM] * 2


def test_a_handler_that_raises_while_ours_are_set_leaves_none_of_them(handlers, monkeypatch):
    def set_one(number, handler, real=signal.signal):
        if number == signal.SIGTERM and handler is not handlers[number]:
            raise KeyboardInterrupt
        real(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", set_one)
        with pytest.raises(KeyboardInterrupt):
            DelayedSignals().__enter__()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_another_thread_trains_with_checkpoints_and_without_handlers(acts, tmp_path):
    def in_thread():
        sae.fit(acts, steps=6, checkpoint=tmp_path / "run", callbacks=[lambda report: seen.append(signal.getsignal(2))])

    sae, seen = new(), []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert sae.n_steps_ == 6 and steps_kept(tmp_path / "run") == [6]
    assert set(seen) == {signal.getsignal(signal.SIGINT)}
