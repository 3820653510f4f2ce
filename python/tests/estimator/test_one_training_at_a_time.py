"""What several calls do to one object at the same time: each sees it between two steps, and none is lost in silence."""

import pickle
import threading

import numpy as np
import pytest

import usae
from support.autoencoders import small
from support.refusals import refuses

pytestmark = pytest.mark.slow

CALLS = [
    ("fit", lambda sae, acts: sae.fit(acts, steps=1)),
    ("fit_stream", lambda sae, acts: sae.fit_stream([acts], steps=1, buffer_tokens=2048)),
    ("partial_fit", lambda sae, acts: sae.partial_fit(acts)),
    ("add_model", lambda sae, acts: sae.add_model("late", {"vit": acts["vit"], "late": -acts["vit"]}, steps=1)),
    ("initialize", lambda sae, acts: sae.initialize({"a": 3})),
    ("set_total_steps", lambda sae, acts: sae.set_total_steps(20)),
    ("set_parameters", lambda sae, acts: sae.set_parameters("vit", {"mean": np.zeros(17)})),
    ("set_params", lambda sae, acts: sae.set_params(seed=3)),
    ("__setstate__", lambda sae, acts: sae.__setstate__(small().fit(acts, steps=1).__getstate__())),
]
CHANGING = {name for name, _ in CALLS}


@pytest.mark.parametrize("name, call", CALLS)
@pytest.mark.parametrize("where", ["callback", "thread"])
def test_an_object_in_training_is_not_trained_by_a_second_call(acts, name, call, where):
    """It would replace what the first one trains, or add steps to its plan."""
    refused = []

    def attempt(sae):
        with refuses(name, "one whose fit is under way", "copy.deepcopy"):
            call(sae, acts)
        refused.append(True)

    sae = small()

    def callback(report):
        if where == "callback":
            attempt(sae)
        else:
            thread = threading.Thread(target=attempt, args=[sae])
            thread.start()
            thread.join()
        return False

    expected = small().fit(acts, steps=3)
    sae.fit(acts, steps=3, callbacks=[callback])
    assert refused == [True] * 3
    assert all(np.array_equal(sae.parameters("vit")[key], value) for key, value in expected.parameters("vit").items())
    call(sae, acts)  # and then it can be trained


def test_every_method_that_changes_an_object_is_among_them():
    """A method that only reads may be called while the object is trained; so one that is added has to be sorted here."""
    reading = {"decode", "dictionary", "encode", "evaluate", "get_params", "gradients", "parameters", "preactivations"}
    reading |= {"reconstruct", "save", "save_history", "history_frame", "export", "push_to_hub"}
    public = {name for name, value in vars(usae.UniversalSAE).items() if callable(value) and not name.startswith("_")}
    assert public - reading == CHANGING - {"__setstate__"}


def test_of_two_first_steps_at_once_none_is_lost(acts):
    for _ in range(20):
        sae, barrier, done = small(), threading.Barrier(2), []

        def step(sae=sae, barrier=barrier, done=done):
            barrier.wait()
            try:
                sae.partial_fit(acts)
            except usae.InvalidInputError:
                return
            done.append(True)

        threads = [threading.Thread(target=step) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sae.n_steps_ == len(done) >= 1


def test_a_step_that_ends_during_a_fit_does_not_bring_back_the_object_before_it(acts, monkeypatch):
    sae = small().initialize({name: x.shape[1] for name, x in acts.items()})
    step, in_step, may_end = type(sae._autoencoder).step, threading.Event(), threading.Event()

    def slow(self, *arguments):
        if threading.current_thread() is thread:
            in_step.set()
            may_end.wait(60)
        return step(self, *arguments)

    monkeypatch.setattr(type(sae._autoencoder), "step", slow)
    thread = threading.Thread(target=lambda: sae.partial_fit(acts))
    thread.start()
    in_step.wait(60)
    sae.fit(acts, steps=3)
    may_end.set()
    thread.join()
    assert sae.n_steps_ == 3


def test_what_failed_or_was_stopped_is_no_longer_in_training(acts):
    sae = small()

    def fail(report):
        raise KeyError("enough")

    with pytest.raises(KeyError):
        sae.fit(acts, steps=3, callbacks=[fail])
    with refuses("steps"):
        sae.fit(acts, steps=0)
    sae.fit(acts, steps=2)
    assert sae.n_steps_ == 2


def test_a_save_beside_training_is_of_one_step(acts, tmp_path):
    """All tensors count the same steps, and what is loaded goes on to the bits of an object that was never saved."""
    sae = small().fit(acts, steps=1).set_total_steps(None)
    stop = threading.Event()
    training = threading.Thread(target=lambda: [sae.partial_fit(acts) for _ in iter(stop.is_set, True)])
    training.start()
    try:
        saved = [pickle.loads(pickle.dumps(sae)) for _ in range(12)]
        for number in range(3):
            sae.save(tmp_path / str(number), training_state=True)
            saved.append(usae.load(tmp_path / str(number)))
    finally:
        stop.set()
        training.join()
    alone, step = small().fit(acts, steps=1).set_total_steps(None), 1
    for one in sorted(saved, key=lambda one: one.n_steps_):
        while step < one.n_steps_:
            alone.partial_fit(acts)
            step += 1
        autoencoder, other = alone._autoencoder, one._autoencoder
        for name in (*autoencoder.parameter_names(), *autoencoder.training_state_names()):
            for model in range(len(autoencoder.names)):
                assert np.array_equal(autoencoder.read(model, name), other.read(model, name)), (step, name)
        assert all(entry["step"] <= step for entry in one.history_)


def test_gradients_in_two_threads_are_each_of_their_own_batch(acts):
    sae = small().fit(acts, steps=2)
    halves = [{name: x[part] for name, x in acts.items()} for part in (slice(0, 150), slice(150, 400))]
    expected = [sae.gradients(half, encoder=name) for half, name in zip(halves, sae.model_names_[:2], strict=True)]
    wrong = []

    def compute(number):
        for _ in range(40):
            report, gradients = sae.gradients(halves[number], encoder=sae.model_names_[number])
            same = report.loss == expected[number][0].loss and all(
                np.array_equal(tensor, expected[number][1][model][name])
                for model, tensors in gradients.items()
                for name, tensor in tensors.items()
            )
            if not same or gradients.keys() != expected[number][1].keys():
                wrong.append(number)

    threads = [threading.Thread(target=compute, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_parameters_that_are_set_together_are_set_or_refused_together(acts):
    sae = small().fit(acts, steps=1)
    before = sae.parameters("vit")
    with refuses("scale"):
        sae.set_parameters("vit", {"mean": before["mean"] + 1, "scale": -before["scale"]})
    assert all(np.array_equal(value, before[name]) for name, value in sae.parameters("vit").items())
    sae.set_parameters("vit", {"mean": before["mean"] + 1, "scale": 2 * before["scale"]})
    assert np.array_equal(sae.parameters("vit")["scale"], 2 * before["scale"])


@pytest.mark.parametrize("ending", ["copy", "save"])
def test_a_copy_beside_training_has_the_history_of_its_steps(acts, tmp_path, ending):
    sae, copies = small().set_params(n_threads=1), []
    stop = threading.Event()

    def copy():
        while not stop.is_set():
            if ending == "copy":
                copies.append(pickle.loads(pickle.dumps(sae)))
            elif sae.__sklearn_is_fitted__():
                sae.save(tmp_path / "save", training_state=True)
                copies.append(usae.load(tmp_path / "save"))

    thread = threading.Thread(target=copy)
    thread.start()  # also beside the first step, before which there is nothing to copy
    try:
        sae.fit(acts, steps=200)
    finally:
        stop.set()
        thread.join()
    trained = [each for each in copies if each.__sklearn_is_fitted__() and each.n_steps_]
    assert trained and all([entry["step"] for entry in each.history_] == [*range(1, each.n_steps_ + 1)] for each in trained)
