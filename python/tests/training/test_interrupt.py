"""Ctrl-C, as a user sends it: SIGINT to a process that is deep in the core."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import usae
from usae._training import loop

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends a signal")

# A step here takes long, so that an answer within a second has to come from inside it.
SETTING = """
import sys, time
import numpy as np
import usae

rng = np.random.default_rng(0)
acts = {name: rng.standard_normal((16384, d), dtype=np.float32) for name, d in {"a": 384, "b": 256}.items()}
sae = usae.UniversalSAE(4096, 32, recipe=usae.recipes.default(batch_size=16384), n_threads=1)

def ready(*_):
    print("ready", flush=True)
"""

WORK = {
    "fit": "sae.fit(acts, steps=10_000, callbacks=[ready])",
    "fit_stream": "sae.fit_stream([acts], steps=10_000, callbacks=[ready])",
    "partial_fit": "sae.partial_fit(acts)\nready()\nwhile True: sae.partial_fit(acts)",
    "evaluate": "sae.initialize({'a': 384, 'b': 256})\nready()\nwhile True: sae.evaluate(acts)",
    "encode": "sae.initialize({'a': 384, 'b': 256})\nready()\nwhile True: sae.encode(acts['a'], 'a')",
}

# The main thread waits for a step of another thread, which nobody can interrupt.
WAITING = """
import threading
sae.initialize({'a': 384, 'b': 256})
busy = threading.Thread(target=lambda: [sae.partial_fit(acts) for _ in range(3)])
busy.start()
time.sleep(0.1)
ready()
try:
    while True: sae.encode(acts['a'], 'a')
except KeyboardInterrupt:
    print("stopped", busy.is_alive(), flush=True)
"""

AFTERWARDS = """
    codes = sae.encode(acts["b"][:100], "b")
    assert sae.decode(codes, "a").shape == (100, 384)
    step = sae.n_steps_
    assert sae.partial_fit({name: x[:64] for name, x in acts.items()}).step == step + 1
    print("usable", step, len(sae.history_), flush=True)
"""


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_is_answered_within_a_second_and_leaves_a_usable_object(work):
    body = "\n    ".join(WORK[work].splitlines())
    script = f"{SETTING}\ntry:\n    {body}\nexcept KeyboardInterrupt:\n    print('stopped', flush=True){AFTERWARDS}"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(0.15)  # into the next step
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        line = process.stdout.readline()
        while line == "ready\n":
            line = process.stdout.readline()
        waited = time.monotonic() - sent
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert line == "stopped\n", errors
    assert waited < 1
    word, steps, logged = rest.split()[:3]
    assert word == "usable" and errors == ""
    assert int(steps) + 1 == int(logged)
    assert int(steps) >= (work in ("fit", "fit_stream", "partial_fit"))


@pytest.fixture
def acts():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((64, d), dtype=np.float32) for name, d in {"a": 12, "b": 9}.items()}


def steps_in(sae):
    return [entry["step"] for entry in sae.history_]


@pytest.mark.parametrize("go_on", ["look", "step", "save"])
def test_a_step_that_ctrl_c_kept_from_being_recorded_is_in_the_history_all_the_same(acts, go_on, monkeypatch, tmp_path):
    sae, alike = (usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0)) for _ in range(2))
    for _ in range(2):
        sae.partial_fit(acts)

    def interrupted(*_, **__):  # as a signal that comes when the core has done the step, and nobody has its report yet
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "record_single", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sae.partial_fit(acts)
    assert sae.n_steps_ == 3
    if go_on == "step":
        sae.partial_fit(acts)
    if go_on == "save":
        sae.save(tmp_path / "saved")
        sae = usae.load(tmp_path / "saved")
    for _ in range(sae.n_steps_):
        alike.partial_fit(acts)
    assert repr(sae.history_) == repr(alike.history_)  # NaN is not equal to itself


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_history_has_every_step_once_whenever_signals_come(acts):
    """A timer interrupts a few hundred times, at the places where a signal may: between any two instructions of Python.

    Where it comes while Python cleans up, nobody hears of it, so that the loop needs an end of its own.
    """
    sae = usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0)).initialize({"a": 12, "b": 9})
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    rng = np.random.default_rng(0)
    try:
        for delay in rng.uniform(1e-4, 2e-3, 300):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                for _ in range(100):
                    sae.partial_fit(acts)
            except KeyboardInterrupt:
                interrupted += 1
            assert steps_in(sae) == list(range(1, sae.n_steps_ + 1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 200 and sae.n_steps_ > 0


def test_threads_that_train_one_object_and_look_at_its_history_record_each_step_once(acts):
    sae = usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0), n_threads=1).initialize({"a": 12, "b": 9})
    before, done = sys.getswitchinterval(), threading.Event()

    def look():
        while not done.is_set():
            assert sae.history_ is not None

    threads = [threading.Thread(target=lambda: [sae.partial_fit(acts) for _ in range(1000)]) for _ in range(2)]
    looking = threading.Thread(target=look)
    sys.setswitchinterval(1e-5)
    try:
        for thread in [*threads, looking]:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
        done.set()
        looking.join()
    assert steps_in(sae) == list(range(1, 2001))


def test_training_state_is_lost_until_a_step_is_done_interrupted_or_not(acts, tmp_path, monkeypatch):
    usae.UniversalSAE(32, 4).fit(acts, steps=2).save(tmp_path / "saved", training_state=False)
    sae = usae.load(tmp_path / "saved")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "record_single", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="starts afresh"):
            sae.partial_fit(acts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae.set_total_steps(None).partial_fit(acts)


def test_gradients_and_a_number_of_steps_that_was_set_leave_no_report_to_record(acts):
    sae = usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0))
    sae.partial_fit(acts)
    sae.gradients(acts, encoder="a")
    core = sae._autoencoder.core
    assert core.last_report["step"] == 1 and steps_in(sae) == [1]
    core.step_count = 7
    assert core.last_report is None and steps_in(sae) == [1]


def test_ctrl_c_is_answered_while_another_thread_trains():
    process = subprocess.Popen(
        [sys.executable, "-c", SETTING.replace("4096, 32", "16384, 32") + WAITING], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)  # into the wait
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        line = process.stdout.readline()
        waited = time.monotonic() - sent
    finally:
        process.kill()
        process.wait()
    assert line == "stopped True\n"  # True: it was answered before the other thread had finished
    assert waited < 1


def test_the_command_ends_with_130_and_without_a_traceback(tmp_path):
    script = """
import sys, time, types
import usae.cli, usae.demo
def run(**_):
    print("ready", flush=True)
    time.sleep(30)
usae.demo.run = run
sys.exit(usae.cli.main(["demo"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors == "usae: interrupted\n"
