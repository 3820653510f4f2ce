"""`usae.torch.Model(threads=)`: the number of PyTorch's threads during a pass, and that it is as before afterwards."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

from support.networks import Gives, convolutional
from support.refusals import refuses
from usae.torch import Model, extract
from usae.torch._threads import compute_alone, using_threads

OUTSIDE, INSIDE = 2, 3


class Telling(nn.Module):
    """Notes PyTorch's number of threads in each pass, there and back."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.forward_threads, self.backward_threads = [], []

    def forward(self, images):
        self.forward_threads.append(torch.get_num_threads())
        doubled = images * 2
        if doubled.requires_grad:
            doubled.register_hook(lambda _: self.backward_threads.append(torch.get_num_threads()))
        return self.layer(doubled)


@pytest.fixture(autouse=True)
def outside():
    """Sets a number of threads for a test, and restores that of the test process."""
    before = torch.get_num_threads()
    torch.set_num_threads(OUTSIDE)
    yield
    torch.set_num_threads(before)


def of_a_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_passes_there_and_back_have_the_number_and_afterwards_it_is_as_before(images):
    net = Telling().eval()
    model = Model(net, "layer", threads=INSIDE, mean=0, std=1, size=(16, 24))
    model(images)
    activations, pull = model.vjp(images)
    assert torch.get_num_threads() == OUTSIDE
    pull(np.ones_like(activations))
    assert torch.get_num_threads() == OUTSIDE
    extract({"a": model}, images.clip(0, 1))
    assert set(net.forward_threads) == set(net.backward_threads) == {INSIDE}
    assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == OUTSIDE


def test_without_a_number_pytorchs_is_left_alone(images):
    net = Telling().eval()
    Model(net, "layer")(images)
    assert net.forward_threads == [OUTSIDE]


def test_the_number_is_restored_after_errors(images):
    def fails(_):
        raise kind("no")

    for kind in (RuntimeError, ValueError, KeyboardInterrupt):
        model = Model(Gives(fails).eval(), "part", threads=INSIDE)
        for use in (model, model.vjp):
            with pytest.raises(Exception if kind is not KeyboardInterrupt else kind):
                use(images)
            assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == OUTSIDE
    activations, pull = Model(convolutional(), "3", threads=INSIDE).vjp(images)
    with refuses("gradient"):
        pull(np.full_like(activations, np.inf))
    assert torch.get_num_threads() == OUTSIDE


def test_passes_in_several_threads_at_once_leave_the_number_as_it_was(images):
    """The first pass begins before the others and ends before them, and the others' threads are new to PyTorch."""
    entered, ended, after = threading.Barrier(3, timeout=30), threading.Event(), {}

    def waits(number):
        def make(given):
            entered.wait()
            if number > 1:
                assert ended.wait(30)
            return given * torch.get_num_threads()

        return make

    def use(number):
        model = Model(Gives(waits(number)).eval(), "part", threads=number)
        assert np.allclose(model(images), number * Model(nn.Sequential(nn.Identity()).eval(), "0")(images))
        after[number] = torch.get_num_threads()
        if number == 1:
            ended.set()

    threads = [threading.Thread(target=use, args=(number,)) for number in (1, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert after == {1: OUTSIDE, 3: OUTSIDE, 4: OUTSIDE}
    assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == OUTSIDE


def test_a_pass_within_a_pass_has_its_own_number(images):
    inner = Model(Telling().eval(), "layer", threads=INSIDE)

    def make(given):
        before = torch.get_num_threads()
        inner(given)
        assert torch.get_num_threads() == before == 1
        return given

    Model(Gives(make).eval(), "part", threads=1)(images)
    assert inner.module.forward_threads == [INSIDE] and torch.get_num_threads() == OUTSIDE


def test_threads_that_read_pictures_compute_alone_and_change_no_other(images):
    net = Telling().eval()
    model = Model(net, "layer", threads=INSIDE, mean=0, std=1, size=(16, 24))
    extract({"a": model}, images.clip(0, 1), num_workers=2, batch_size=1)
    assert set(net.forward_threads) == {INSIDE}
    assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == OUTSIDE
    with using_threads(INSIDE):  # the first worker may begin while a network computes
        assert of_a_new_thread(lambda: (compute_alone(), torch.get_num_threads())) == (None, 1)
        assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == INSIDE
    assert torch.get_num_threads() == of_a_new_thread(torch.get_num_threads) == OUTSIDE


@pytest.mark.parametrize("bad", [0, -1, 1025, 1.5, "2", True])
def test_other_numbers_are_refused(bad):
    with refuses("threads", repr(bad)):
        Model(convolutional(), "3", threads=bad)


def test_the_number_is_shown_and_copied_with_the_model():
    model = Model(convolutional(), "3", threads=1)
    assert "threads=1" in repr(model) and "threads" not in repr(Model(convolutional(), "3"))
    assert copy.deepcopy(model).threads == pickle.loads(pickle.dumps(model)).threads == 1
