"""Ctrl-C during training, at moments that are chosen: within a step, in a wait, at any instruction of Python."""

import os
import signal
import sys
import threading
import warnings

import numpy as np
import pytest

import usae
from support.interrupts import ctrl_c, ctrl_c_at_each_instruction_of, while_the_core_works
from usae._core.autoencoder import Autoencoder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="sends a signal")]


@pytest.fixture(scope="module")
def large():
    """A step on these takes some tenths of a second, of which the core looks for a signal every twentieth."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((8192, d), dtype=np.float32) for name, d in {"a": 256, "b": 192}.items()}


def untrained():
    sae = usae.UniversalSAE(4096, 32, recipe=usae.recipes.default(batch_size=8192), n_threads=1)
    return sae.initialize({"a": 256, "b": 192})


def train_on(sae, acts, go):
    go()
    while True:
        sae.partial_fit(acts)


WORK = {
    "fit": lambda sae, acts, go: sae.fit(acts, steps=10_000, callbacks=[go]),
    "fit_stream": lambda sae, acts, go: sae.fit_stream([acts], steps=10_000, buffer_tokens=8192, callbacks=[go]),
    "partial_fit": train_on,
}

TRIES = range(20)
"""The end of a step is done in any case. Where the machine is so busy that the signal comes there, another one is sent."""


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_ends_a_step_in_the_middle_and_leaves_a_usable_object(work, large):
    sae, done = untrained(), []

    def interrupt():
        done.append(sae.n_steps_)
        ctrl_c()

    for _ in TRIES:
        with pytest.raises(KeyboardInterrupt), while_the_core_works(interrupt, "step") as go:
            WORK[work](sae, large, lambda *_, go=go: go())
        assert steps_in(sae) == list(range(1, sae.n_steps_ + 1))
        if sae.n_steps_ == done[-1]:
            break
    else:
        pytest.fail("every step went on to its end")
    step = sae.n_steps_
    codes = sae.encode(large["b"][:100], "b")
    assert sae.decode(codes, "a").shape == (100, 256)
    assert sae.partial_fit({name: x[:64] for name, x in large.items()}).step == step + 1


def test_ctrl_c_ends_the_wait_for_another_thread_that_trains(large):
    sae = untrained()
    for _ in TRIES:
        before, training = sae.n_steps_, threading.Thread(target=lambda: sae.partial_fit(large))
        with pytest.raises(KeyboardInterrupt), while_the_core_works(ctrl_c, "encode") as go:
            training.start()  # comes back when the other thread is in the core
            go()
            sae.encode(large["a"], "a")
        answered_before_the_step_was_done = sae.n_steps_ == before
        training.join()
        if answered_before_the_step_was_done:
            break
    else:
        pytest.fail("the wait went on to the end of each step")


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
        patched.setattr(Autoencoder, "recorded", interrupted)
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


def test_the_history_has_every_step_once_at_whichever_instruction_ctrl_c_comes(acts):
    sae = usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0)).initialize({"a": 12, "b": 9})
    sae.partial_fit(acts)  # what is computed once is computed
    for number in ctrl_c_at_each_instruction_of(lambda: sae.partial_fit(acts)):
        assert steps_in(sae) == list(range(1, sae.n_steps_ + 1)), f"after instruction {number}"
    assert 10 < sae.n_steps_ < number  # it came before the step and after it


def test_the_history_has_every_step_once_when_ctrl_c_comes_while_the_core_works(acts):
    sae = usae.UniversalSAE(32, 4, recipe=usae.recipes.default(warmup_steps=0)).initialize({"a": 12, "b": 9})
    for _ in range(50):
        with pytest.raises(KeyboardInterrupt), while_the_core_works(ctrl_c, "step") as go:
            train_on(sae, acts, go)
        assert steps_in(sae) == list(range(1, sae.n_steps_ + 1))


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
        patched.setattr(Autoencoder, "recorded", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="training_state=True"):
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
