"""`usae.torch.Model`: gradients pulled back to images, held to PyTorch's own, and what is refused."""

import concurrent.futures
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from support.networks import Gives, convolutional, transformer
from support.refusals import refuses
from usae.torch import Model

# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["call", "vjp"])
def test_a_module_in_training_mode_is_an_error_that_names_the_part(images, of):
    net = convolutional()
    running = net[1].running_mean.clone()
    net[1].train()
    model = Model(net, "3")
    with refuses("module", "Sequential whose '1'"):
        model(images) if of == "call" else model.vjp(images)
    assert torch.equal(net[1].running_mean, running)
    with refuses("module", "Transformer whose 'block.self_attn'"):
        Model(transformer(dropout=0.1).train(), "block")(images)
    Model(transformer().train(), "block")(images)  # nothing in it behaves differently


def test_images_that_cannot_be_used_are_errors(images):
    model = Model(convolutional(), "3", size=(16, 24))
    for bad, argument, got in [
        (images[:, :, :, :16], "images", "float32 [2, 3, 16, 16]"),
        (images[0], "images", "float32 [3, 16, 24]"),
        (images[:0], "images", "float32 [0, 3, 16, 24]"),
        (images.astype(np.uint8), "images", "uint8 [2, 3, 16, 24]"),
        (torch.zeros(2, 1, 16, 24), "images", "float32 [2, 1, 16, 24]"),
        (["a.jpg"], "images", "list"),
        (np.where(images > 3, np.nan, images), "images", "NaN or infinity"),
    ]:
        for use in (model, model.vjp):
            with refuses(argument, got):
                use(bad)


def test_arguments_that_cannot_be_used_are_errors():
    for options, argument, got in [
        ({"size": 0}, "size", "0"),
        ({"size": (1, 2, 3)}, "size", "(1, 2, 3)"),
        ({"grid": "8x8"}, "grid", "'8x8'"),
        ({"mean": (0.5, 0.5)}, "mean", "(0.5, 0.5)"),
        ({"std": 0}, "std", "0"),
        ({"std": np.nan}, "std", "nan"),
        ({"autocast": torch.int8}, "autocast", "torch.int8"),
    ]:
        with refuses(argument, got):
            Model(convolutional(), "3", **options)
    with refuses("module", "str"):
        Model("resnet18")
    with refuses("size", "None"):
        Model(convolutional(), "3").grid  # noqa: B018


def test_activations_that_are_not_finite_are_an_error(images):
    net = convolutional()
    net[3].weight.data[0, 0, 0, 0] = torch.nan
    with refuses("activations of layer '3' of Sequential", "NaN or infinity"):
        Model(net, "3")(images)
    half = nn.Conv2d(3, 4, 4, 4).half()
    half.weight.data.fill_(1e4)
    with refuses("activations of layer '' of Conv2d", "NaN or infinity"):
        Model(half, "")(np.full((1, 3, 8, 8), 9, np.float32))


# --- Gradients --------------------------------------------------------------------------------------------------------


# Both run the same float64 operations; results are rounded to float32 once, by at most 2**-24 of themselves. Cancellation
# in float64 leaves some 1e-15 of the largest term.
TOLERANCE = {"rtol": 2.0**-24 + 1e-12, "atol": 1e-13}


@pytest.mark.parametrize(
    ("make", "layer", "tokens"), [(convolutional, "3", 0), (convolutional, "1", 0), (transformer, "block", 2)]
)
def test_gradients_are_those_of_pytorch_in_float64(images, make, layer, tokens):
    net = make().double()
    leaf = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    caught = []
    with net.get_submodule(layer).register_forward_hook(lambda module, args, out: caught.append(out.clone())):
        net(leaf)
    whole = caught[0].flatten(2).transpose(1, 2) if caught[0].ndim == 4 else caught[0][:, tokens:]

    activations, pull = Model(net, layer, n_prefix_tokens=tokens).vjp(images)
    assert activations.dtype == np.float32 and activations.flags.c_contiguous
    np.testing.assert_allclose(activations, whole.detach().numpy(), **TOLERANCE)
    activations[:] = np.nan  # belongs to the caller
    for seed in range(2):
        gradient = np.random.default_rng(seed).standard_normal(whole.shape).astype(np.float32)
        (expected,) = torch.autograd.grad(whole, leaf, torch.tensor(gradient).double(), retain_graph=True)
        pulled = pull(gradient)
        assert pulled.dtype == np.float32 and pulled.shape == images.shape
        np.testing.assert_allclose(pulled, expected.numpy(), **TOLERANCE)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_leave_parameters_and_images_alone_in_any_grad_mode(images, mode, frozen):
    net = transformer().requires_grad_(not frozen)
    net.patches.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = {name: (p.requires_grad, p.grad, p.clone()) for name, p in net.named_parameters()}
    images.flags.writeable = False
    copy = images.copy()
    with mode():
        activations, pull = Model(net, "block", n_prefix_tokens=2).vjp(images)
        pulled = pull(np.ones_like(activations))
    assert np.abs(pulled).max() > 0
    for name, p in net.named_parameters():
        assert p.requires_grad is before[name][0] and p.grad is before[name][1] and torch.equal(p, before[name][2])
    np.testing.assert_array_equal(images, copy)


def test_what_a_network_keeps_from_a_call_serves_gradients_later(images):
    class Keeps(nn.Module):
        table = None

        def forward(self, x):
            self.table = torch.linspace(0, 1, x.shape[-1]) if self.table is None else self.table
            return x * self.table

    model = Model(Keeps(), "")
    with torch.inference_mode():
        model(images)
    _, pull = model.vjp(images)
    pulled = pull(np.ones((2, 384, 3), np.float32))
    np.testing.assert_array_equal(pulled[0, 0, 0], torch.linspace(0, 1, 24).numpy())


def test_a_network_that_starts_in_place_and_a_bfloat16_one_have_gradients(images):
    _, pull = Model(nn.Sequential(nn.ReLU(inplace=True)), "").vjp(images)
    gradient = np.ones((2, 384, 3), np.float32)
    np.testing.assert_array_equal(pull(gradient), (images > 0).astype(np.float32))
    activations, pull = Model(convolutional().bfloat16(), "3").vjp(images)
    exact, exactly = Model(convolutional(), "3").vjp(images)
    # bfloat16 has 8 bits: 2**-9 a rounding, of which a sequence of some 60 products, two layers deep, makes a few per cent.
    np.testing.assert_allclose(activations, exact, atol=0.05 * np.abs(exact).max())
    expected = exactly(np.ones_like(exact))
    assert np.linalg.norm(pull(np.ones_like(exact)) - expected) < 0.1 * np.linalg.norm(expected)


def test_autocast_computes_in_bfloat16_and_gives_float32(images):
    exact, near = Model(convolutional(), "3")(images), Model(convolutional(), "3", autocast=torch.bfloat16)(images)
    assert near.dtype == np.float32 and 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    "make",
    [lambda x: x.detach(), lambda x: x.detach() * torch.ones(1, requires_grad=True), lambda x: x.sign().round().detach()],
)
def test_an_output_without_gradient_is_an_error(images, make):
    with refuses("layer 'part' of Gives", "no gradient"):
        activations, pull = Model(Gives(make), "part").vjp(images)
        pull(np.ones_like(activations))


def test_a_gradient_that_cannot_be_used_is_an_error_and_pull_stays_usable(images):
    activations, pull = Model(convolutional(), "3").vjp(images)
    good = np.ones_like(activations)
    bad = good.copy()
    bad[1, 2, 3] = np.nan
    for gradient, argument, got in [
        (bad, "gradient", "nan at [1, 2, 3]"),
        (good[:1], "gradient", "float32 [1, 24, 6]"),
        (good.astype(int), "gradient", "int64 [2, 24, 6]"),
    ]:
        with refuses(argument, got):
            pull(gradient)
    np.testing.assert_array_equal(pull(good), pull(good.astype(np.float64)[..., ::-1][..., ::-1]))


def test_a_gradient_that_overflows_on_its_way_is_an_error(images):
    _, pull = Model(Gives(lambda x: (x * 0).sqrt()), "part").vjp(images)  # infinite slope at 0, times 0
    with refuses("gradient of layer 'part' of Gives with respect to the images", "NaN or infinity"):
        pull(np.ones((2, 384, 3), np.float32))


# --- Beside others ----------------------------------------------------------------------------------------------------


def test_threads_may_take_different_layers_of_one_module(images):
    net = convolutional()
    models = [Model(net, layer) for layer in ("0", "1", "3")]
    expected = [model(images) for model in models]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda number: models[number % 3](images), range(90)))
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, expected[number % 3])


@pytest.mark.slow
def test_no_library_of_networks_is_imported():
    script = "import sys, usae.torch; print([m for m in ('timm', 'transformers', 'torchvision', 'PIL') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_without_torch_the_error_names_what_to_install():
    script = "import sys; sys.modules['torch'] = None; import usae; import usae.torch"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0 and re.search(
        r"ImportError: usae.torch needs PyTorch .*pip install 'usae\[torch\]'", done.stderr
    )
