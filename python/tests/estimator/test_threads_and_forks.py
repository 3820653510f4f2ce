"""One autoencoder in several threads and processes."""

import copy
import os
import signal
import threading

import pytest

import usae
from support.autoencoders import small


def test_training_gets_its_turn_while_others_encode(trained, acts):
    sae = copy.deepcopy(trained).set_total_steps(None)
    stop = threading.Event()

    def encode():
        while not stop.is_set():
            sae.encode(acts["vit"], "vit")

    others = [threading.Thread(target=encode) for _ in range(3)]
    for thread in others:
        thread.start()
    training = threading.Thread(target=lambda: [sae.partial_fit(acts) for _ in range(20)])
    training.start()
    training.join(600)
    finished = not training.is_alive()
    stop.set()
    for thread in (training, *others):
        thread.join()
    assert finished and sae.n_steps_ == trained.n_steps_ + 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_works_with_what_was_at_rest_and_is_told_what_was_not(acts):
    """The child has the parent's memory, but not the thread that trains."""
    resting, busy = small().fit(acts, steps=2), small().fit(acts, steps=2).set_total_steps(None)
    expected = resting.encode(acts["vit"], "vit")
    stop = threading.Event()
    training = threading.Thread(target=lambda: [busy.partial_fit(acts) for _ in iter(stop.is_set, True)])
    training.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(600)  # a child that hangs is a failure, not a hang
                good = resting.encode(acts["vit"], "vit") == expected and small().fit(acts, steps=2).n_steps_ == 2
                try:
                    busy.encode(acts["vit"], "vit")
                except usae.InvalidInputError as error:  # it was in the middle of a step
                    good = good and str(error).startswith("autoencoder: ")
                os._exit(0 if good else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        training.join()
