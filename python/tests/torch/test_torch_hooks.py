"""The hook that ends a forward pass: it is gone from the user's network after every call, and after Ctrl-C at any moment."""

import copy

import numpy as np

from support.interrupts import ctrl_c_at_each_instruction_of
from support.networks import convolutional
from usae.torch import Model


def hooks_of(net):
    return [hook for part in net.modules() for hook in part._forward_hooks.values()]


def test_ctrl_c_at_any_moment_leaves_no_hook_and_the_network_runs_as_before(images):
    net = convolutional()
    models = Model(net, "0"), Model(net, "3")
    expected = [model(images) for model in models]
    for model in models:
        for n, _ in enumerate(ctrl_c_at_each_instruction_of(lambda model=model: model(images))):
            assert not hooks_of(net), f"interrupted at instruction {n}"
    for model, before in zip(models, expected, strict=True):
        np.testing.assert_array_equal(model(images), before)


def test_ctrl_c_while_gradients_are_taken_leaves_no_hook(images):
    net = convolutional()
    model = Model(net, "3")
    for _ in ctrl_c_at_each_instruction_of(lambda: model.vjp(images)):
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
