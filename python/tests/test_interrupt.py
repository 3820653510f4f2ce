"""Ctrl-C, as a user sends it: SIGINT to a process that is deep in the core."""

import os
import signal
import subprocess
import sys
import time

import pytest

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
