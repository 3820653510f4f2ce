"""The hook that ends a forward pass: it is gone from the user's network after every call, and after Ctrl-C at any moment."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from support.interrupts import ctrl_c_at_each_instruction_of
from support.networks import convolutional
from support.refusals import refuses
from usae.torch import Model
from usae.torch._layer_output import run_to

pytestmark = pytest.mark.slow


def hooks_of(net):
    return [hook for part in net.modules() for hook in part._forward_hooks.values()]


@pytest.mark.parametrize("layers", ["0", "3", "02", "230"])
def test_ctrl_c_at_any_moment_leaves_no_hook_and_the_network_runs_as_before(images, layers):
    net, pixels = convolutional(), torch.from_numpy(images)
    expected = Model(net, layers[-1])(images)
    parts, moments = [net[int(layer)] for layer in layers], 0
    for moments in ctrl_c_at_each_instruction_of(lambda: run_to(net, parts, layers, pixels)):
        assert not hooks_of(net), f"interrupted at instruction {moments}"
    assert moments > 50
    np.testing.assert_array_equal(Model(net, layers[-1])(images), expected)


def test_an_error_within_the_network_leaves_no_hook(images):
    net = convolutional()
    net[2] = nn.Linear(1, 1)
    with refuses("images"):
        Model(net, "3").vjp(images)
    assert not hooks_of(net)


def test_the_hooks_of_the_user_stay_and_run_in_their_order(images):
    net, ran = convolutional(), []
    net[3].register_forward_hook(lambda *_: ran.append("first"))
    net[3].register_forward_hook(lambda *_: ran.append("second"))
    kept = hooks_of(net)
    model = Model(net, "3")
    model(images)
    assert ran == ["first", "second"] and hooks_of(net) == kept
    copy.deepcopy(net)
    layer_0 = Model(net, "0")(images)
    assert layer_0.shape == (2, 96, 8) and ran == ["first", "second"]
