"""`usae.torch.Model`: a layer's tokens, and gradients pulled back to images, held to PyTorch's own."""

import concurrent.futures
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import usae
import usae.torch
from usae.torch import Model
from usae.torch._layers import TokenReader


class Transformer(nn.Module):
    """A class token, a register and patches of 4 x 4 pixels, through one block."""

    def __init__(self, width=12, dropout=0.0):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, 2, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.block(torch.cat([self.extra.expand(len(tokens), -1, -1), tokens], 1))[:, 0])


class Gives(nn.Module):
    """Whatever `make` makes of the images, as the layer "part"."""

    def __init__(self, make):
        super().__init__()
        self.part = nn.Identity()
        self.make = make

    def forward(self, images):
        return self.part(self.make(images))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, 2, 1)).eval()


def transformer(**options):
    torch.manual_seed(1)
    return Transformer(**options).eval()


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((2, 3, 16, 24)).astype(np.float32)


# --- Layers and tokens ------------------------------------------------------------------------------------------------


def test_a_map_becomes_tokens_row_by_row(images):
    net = convolutional()
    model = Model(net, "3", size=(16, 24))
    tokens = model(images)
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).numpy()  # [2, 6, 4, 6]
    assert tokens.shape == (2, 24, 6) and tokens.dtype == np.float32 and tokens.flags.c_contiguous
    np.testing.assert_array_equal(tokens[:, 2 * 6 + 5], expected[:, :, 2, 5])
    assert (model.grid, model.n_tokens, model.width) == ((4, 6), 24, 6)


def test_class_and_register_tokens_are_dropped_and_the_grid_follows_the_image(images):
    net = transformer()
    model = Model(net, "block", n_prefix_tokens=2, size=(16, 24))
    caught = []
    with net.block.register_forward_hook(lambda module, args, out: caught.append(out)), torch.no_grad():
        net(torch.from_numpy(images))
    np.testing.assert_array_equal(model(images), caught[0][:, 2:].numpy())
    assert model.grid == (4, 6)


def test_nothing_after_the_layer_is_computed_or_can_overwrite_its_output(images):
    net = convolutional()
    before = Model(net, "1")(images)  # the ReLU behind it works in place
    assert before.min() < 0
    net[3] = nn.Linear(1, 1)  # would fail
    np.testing.assert_array_equal(Model(net, "1")(images), before)
    assert not any(part._forward_hooks for part in net.modules())


def test_hooks_are_removed_after_an_error_too(images):
    net = convolutional()
    net[0] = nn.Linear(1, 1)
    with pytest.raises(usae.InvalidInputError, match="could not be run on images of 16 x 24"):
        Model(net, "3")(images)
    assert not any(part._forward_hooks for part in net.modules())


def test_the_module_itself_is_a_layer_and_tensors_are_images_too(images):
    net = convolutional()
    np.testing.assert_array_equal(Model(net, "")(torch.from_numpy(images)), Model(net, "3")(images))


@pytest.mark.parametrize("wrap", [lambda x: (x, x.mean()), lambda x: [None, x], lambda x: {"hidden": x}])
def test_the_first_tensor_of_several_outputs_is_meant(images, wrap):
    maps = convolutional()
    np.testing.assert_array_equal(Model(Gives(lambda x: wrap(maps(x))), "part")(images), Model(maps, "")(images))


def test_tokens_may_be_a_function(images):
    time_first = Gives(lambda x: x.flatten(2).permute(2, 0, 1))  # [tokens, n, 3]
    with pytest.raises(usae.InvalidInputError, match=r"images in its first dimension, got \[384, 2, 3\] for 2 images"):
        Model(time_first, "part")(images)
    model = Model(time_first, "part", tokens=lambda x: x.transpose(0, 1))
    np.testing.assert_array_equal(model(images), images.reshape(2, 3, -1).transpose(0, 2, 1))
    assert "tokens=a function" in repr(model)
    shorter = Model(time_first, "part", n_prefix_tokens=4, tokens=lambda x: x.transpose(0, 1))
    np.testing.assert_array_equal(shorter(images), model(images)[:, 4:])


def test_the_old_name_of_n_prefix_tokens_still_works_with_a_warning_that_has_the_new_one(images):
    net = transformer()
    with pytest.warns(DeprecationWarning, match=r"now called n_prefix_tokens=2") as caught:
        old = Model(net, "block", tokens=2, size=(16, 24))
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(old(images), Model(net, "block", n_prefix_tokens=2, size=(16, 24))(images))
    with pytest.raises(usae.InvalidInputError, match="tokens must be a function where n_prefix_tokens is given, got 1"):
        Model(net, "block", n_prefix_tokens=2, tokens=1)


@pytest.mark.parametrize("shape", [(5, 4, 6), (6, 4, 6), (9, 1, 1), (40, 2, 3), (16, 4, 6)])
def test_the_order_of_a_map_shows_by_the_proportions_of_the_image(images, shape):
    first = Gives(lambda x: torch.arange(2.0 * np.prod(shape)).reshape(2, *shape))
    last = Gives(lambda x: first.make(x).movedim(1, 3))
    expected = Model(first, "part", channels_last=False)(images)
    np.testing.assert_array_equal(Model(first, "part", grid=shape[1:])(images), expected)
    np.testing.assert_array_equal(Model(last, "part", channels_last=True)(images), expected)
    if shape[1] * 24 == shape[2] * 16:
        np.testing.assert_array_equal(Model(first, "part")(images), expected)
        np.testing.assert_array_equal(Model(last, "part")(images), expected)


@given(
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)) | st.integers(8, 300).map(lambda side: (side, side)),
    stride=st.integers(1, 64),
    width=st.integers(1, 300),
    rounding=st.sampled_from([math.floor, math.ceil]),
    channels_last=st.booleans(),
)
def test_the_order_of_a_map_is_never_taken_for_the_other(size, stride, width, rounding, channels_last):
    grid = tuple(max(1, rounding(side / stride)) for side in size)
    output = torch.zeros(1, *grid, width) if channels_last else torch.zeros(1, width, *grid)
    try:
        tokens, found = TokenReader("x").read(output, 1, size)
    except usae.InvalidInputError as error:
        assert "order of dimensions does not show" in str(error)
    else:
        assert found == grid and tokens.shape == (1, math.prod(grid), width)


def test_an_odd_map_still_shows_its_order_and_one_that_does_not_is_an_error():
    images = np.zeros((1, 3, 30, 45), np.float32)
    odd = Gives(lambda x: torch.zeros(1, 64, 4, 6))  # ceil(30 / 8), ceil(45 / 8)
    assert Model(odd, "part", size=(30, 45)).grid == (4, 6)
    cube = Gives(lambda x: torch.zeros(1, 7, 7, 7))
    with pytest.raises(usae.InvalidInputError, match=r"map \[1, 7, 7, 7\] for images of 28 x 28.*channels_last=False"):
        Model(cube, "part")(np.zeros((1, 3, 28, 28), np.float32))
    assert Model(cube, "part", channels_last=True)(images).shape == (1, 49, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_prefix_tokens": 1, "grid": (4, 6)}, r"after 1 are dropped, got 25; n_prefix_tokens=2 would leave as many"),
        ({"n_prefix_tokens": 0, "grid": (9, 9)}, r"9 x 9 tokens after 0 are dropped, got 26; give the grid= of this layer"),
        ({"n_prefix_tokens": 26}, r"n_prefix_tokens=26 must be fewer than the tokens of layer 'block' of Transformer, got 26"),
        ({"n_prefix_tokens": -1}, r"n_prefix_tokens must be an integer from 0 to \d+, got -1"),
    ],
)
def test_tokens_that_do_not_fit_the_grid_are_an_error(images, options, message):
    with pytest.raises(usae.InvalidInputError, match=message):
        Model(transformer(), "block", **options)(images)


def test_tokens_cannot_be_dropped_from_a_map_and_vectors_are_no_tokens(images):
    with pytest.raises(usae.InvalidInputError, match="n_prefix_tokens must be 0 for layer '3' of Sequential, which gives a"):
        Model(convolutional(), "3", n_prefix_tokens=1)(images)
    with pytest.raises(usae.InvalidInputError, match=r"got torch.float32 \[2, 5\]; choose a layer before images are pooled"):
        Model(transformer(), "head", n_prefix_tokens=2)(images)
    with pytest.raises(usae.InvalidInputError, match="grid must be that of layer '3' of Sequential, .4, 6., got .6, 4."):
        Model(convolutional(), "3", grid=(6, 4), channels_last=False)(images)


def test_tokens_whose_number_fits_no_grid_have_none(images):
    model = Model(transformer(), "block", n_prefix_tokens=1, size=(16, 24))
    assert model.grid is None and model.n_tokens == 25


# --- What is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_layer_is_an_error_with_the_close_names():
    with pytest.raises(usae.InvalidInputError, match=r"got 'block.linaer1'; did you mean 'block.linear1' or 'block.linear2'"):
        Model(transformer(), "block.linaer1")
    with pytest.raises(usae.InvalidInputError, match=r"got 'xyz'; it starts with one of 'patches', 'block', 'head'"):
        Model(transformer(), "xyz")
    with pytest.raises(usae.InvalidInputError, match=r"layer must be given for Transformer.*'patches', 'block', 'head'"):
        Model(transformer())
    with pytest.raises(usae.InvalidInputError, match=r"must be the name of a submodule of Transformer, got 3"):
        Model(transformer(), 3)


def test_a_layer_that_does_not_run_is_an_error(images):
    net = transformer()
    net.unused = nn.Identity()
    with pytest.raises(usae.InvalidInputError, match=r"layer 'unused' of Transformer must run when"):
        Model(net, "unused")(images)


@pytest.mark.parametrize("of", ["call", "vjp"])
def test_a_module_in_training_mode_is_an_error_that_names_the_part(images, of):
    net = convolutional()
    running = net[1].running_mean.clone()
    net[1].train()
    model = Model(net, "3")
    with pytest.raises(usae.InvalidInputError, match=r"Sequential whose '1' \(BatchNorm2d\) is in training mode; call .eval"):
        model(images) if of == "call" else model.vjp(images)
    assert torch.equal(net[1].running_mean, running)
    with pytest.raises(usae.InvalidInputError, match=r"training mode"):
        Model(transformer(dropout=0.1).train(), "block")(images)
    Model(transformer().train(), "block")(images)  # nothing in it behaves differently


def test_images_that_cannot_be_used_are_errors(images):
    model = Model(convolutional(), "3", size=(16, 24))
    for bad, message in [
        (images[:, :, :, :16], r"floats \[n, 3, 16, 24\], normalised, got float32 \[2, 3, 16, 16\]; model.preprocess"),
        (images[0], r"got float32 \[3, 16, 24\]"),
        (images[:0], r"got float32 \[0, 3, 16, 24\]"),
        (images.astype(np.uint8), r"got uint8 \[2, 3, 16, 24\]"),
        (torch.zeros(2, 1, 16, 24), r"got float32 \[2, 1, 16, 24\]"),
        (["a.jpg"], r"got list; model.preprocess"),
        (np.where(images > 3, np.nan, images), r"images must be finite"),
    ]:
        for use in (model, model.vjp):
            with pytest.raises(usae.InvalidInputError, match=message):
                use(bad)


def test_arguments_that_cannot_be_used_are_errors():
    for options, message in [
        ({"size": 0}, "size must be an integer from 1"),
        ({"size": (1, 2, 3)}, "size must be an integer or two"),
        ({"grid": "8x8"}, "grid must be an integer or two"),
        ({"mean": (0.5, 0.5)}, "mean must be a number or three"),
        ({"std": 0}, "std must be above 0"),
        ({"std": np.nan}, "std must be a number or three"),
        ({"autocast": torch.int8}, "autocast must be torch.bfloat16"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            Model(convolutional(), "3", **options)
    with pytest.raises(usae.InvalidInputError, match="module must be a torch.nn.Module, got str"):
        Model("resnet18")
    with pytest.raises(usae.InvalidInputError, match="size must be given for Sequential"):
        Model(convolutional(), "3").grid  # noqa: B018


def test_activations_that_are_not_finite_are_an_error(images):
    net = convolutional()
    net[3].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(usae.InvalidInputError, match=r"layer '3' of Sequential gave activations that are not finite.*NaN in"):
        Model(net, "3")(images)
    half = nn.Conv2d(3, 4, 4, 4).half()
    half.weight.data.fill_(1e4)
    with pytest.raises(usae.InvalidInputError, match=r"float16 ends at 65504: compute in bfloat16"):
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
    # bfloat16 has 8 bits: 2**-9 a rounding, of which a chain of some 60 products, two layers deep, makes a few per cent.
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
    with pytest.raises(usae.InvalidInputError, match=r"layer 'part' of Gives must depend on the images by differentiable"):
        activations, pull = Model(Gives(make), "part").vjp(images)
        pull(np.ones_like(activations))


def test_a_gradient_that_cannot_be_used_is_an_error_and_pull_stays_usable(images):
    activations, pull = Model(convolutional(), "3").vjp(images)
    good = np.ones_like(activations)
    bad = good.copy()
    bad[1, 2, 3] = np.nan
    for gradient, message in [
        (bad, r"gradient must be finite, got nan at \[1, 2, 3\]"),
        (good[:1], r"gradient must be floats \[2, 24, 6\], one for each activation, got float32 \[1, 24, 6\]"),
        (good.astype(int), r"got int64 \[2, 24, 6\]"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            pull(gradient)
    np.testing.assert_array_equal(pull(good), pull(good.astype(np.float64)[..., ::-1][..., ::-1]))


def test_a_gradient_that_overflows_on_its_way_is_an_error(images):
    _, pull = Model(Gives(lambda x: (x * 0).sqrt()), "part").vjp(images)  # infinite slope at 0, times 0
    with pytest.raises(usae.InvalidInputError, match="gradient of layer 'part' of Gives with respect to the images is not"):
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


def test_no_library_of_networks_is_imported():
    script = "import sys, usae.torch; print([m for m in ('timm', 'transformers', 'torchvision', 'PIL') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_without_torch_the_error_names_what_to_install():
    script = "import sys; sys.modules['torch'] = None; import usae; import usae.torch"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0 and re.search(
        r"ImportError: usae.torch needs PyTorch .*pip install 'usae\[torch\]'", done.stderr
    )
