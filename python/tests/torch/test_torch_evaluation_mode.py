"""A network must compute as in evaluation mode. The condition is checked, and not a list of parts that might break it."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from support.networks import transformer
from support.refusals import refuses
from usae.torch import Model


class Part(nn.Module):
    """A convolution and something after it."""

    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 5, 4, 4)
        self.act = act
        self.register_buffer("running", torch.zeros(5))

    def forward(self, x):
        return self.act(self, self.patches(x))


def running_mean(self, x):
    if self.training:
        self.running.mul_(0.9).add_(0.1 * x.mean((0, 2, 3)))
    return x - self.running[:, None, None]


def replaced_mean(self, x):
    if self.training:
        self.running = 0.9 * self.running + 0.1 * x.mean((0, 2, 3)).detach()
    return x - self.running[:, None, None]


DIFFERS = {
    "functional dropout": lambda self, x: F.dropout(x, 0.1, self.training),
    "functional dropout of maps": lambda self, x: F.dropout2d(x, 0.5, self.training),
    "alpha dropout": lambda self, x: F.alpha_dropout(x, 0.1, self.training),
    "noise": lambda self, x: x + torch.randn_like(x) if self.training else x,
    "stochastic depth": lambda self, x: x * (torch.rand(len(x), 1, 1, 1) < 0.9) / 0.9 if self.training else x,
    "noise of NumPy": lambda self, x: x + float(np.random.normal()) if self.training else x,  # noqa: NPY002
    "noise of Python": lambda self, x: x + random.random() if self.training else x,
    "attention with dropout": lambda self, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0),
    "functional batch norm": lambda self, x: F.batch_norm(x, self.running, self.running + 1, training=self.training),
    "statistics of the batch": lambda self, x: F.batch_norm(x, None, None, training=True) if self.training else x,
    "a running mean": running_mean,
    "a replaced running mean": replaced_mean,
    "another scale": lambda self, x: 2 * x if self.training else x,
    "another shape": lambda self, x: x[:, :, ::2] if self.training else x,
}


@pytest.mark.parametrize("use", ["call", "vjp"])
@pytest.mark.parametrize("name", DIFFERS)
def test_what_differs_in_training_mode_is_refused_and_leaves_no_trace(images, name, use):
    net = Part(DIFFERS[name])
    model = Model(net, "", channels_last=False)
    before = net.running.clone()
    with refuses("module", remedy=".eval()"):
        model(images) if use == "call" else model.vjp(images)
    assert torch.equal(net.running, before) and net.training and net.patches.training
    net.eval()
    expected = model(images)
    np.testing.assert_array_equal(model(images), expected)


def test_what_is_always_random_is_refused_in_evaluation_mode_too(images):
    for act in (lambda self, x: F.dropout(x, 0.1), lambda self, x: x[:, :, torch.randperm(4)]):
        with refuses("module", "different ones at layer ''", remedy=".eval()"):
            Model(Part(act).eval(), "", channels_last=False)(images)


def test_a_module_in_training_mode_in_which_nothing_differs_is_taken_and_stays_in_it(images):
    for net, layer in ((transformer(), "block"), (Part(lambda self, x: F.dropout(x, 0.0, self.training)), "")):
        expected = Model(net.eval(), layer)(images)
        model = Model(net.train(), layer)
        np.testing.assert_allclose(model(images), expected, atol=1e-5)
        model.vjp(images)
        assert all(part.training for part in net.modules())


def test_the_comparison_is_made_once(images):
    calls = []
    net = Part(lambda self, x: calls.append(len(x)) or x)
    model = Model(net, "")
    for _ in range(3):
        model(np.repeat(images, 4, 0))
    assert calls == [8, 2, 8, 8]
    calls.clear()
    net.eval()
    model(images)
    assert calls == [2]


def test_random_numbers_that_are_drawn_elsewhere_do_not_matter(images):
    """As another thread draws them during a call."""

    def draws(self, x):
        torch.rand(3)
        return x

    expected = Model(Part(lambda self, x: x).eval(), "")(images)
    np.testing.assert_array_equal(Model(Part(draws).eval(), "")(images), expected)
