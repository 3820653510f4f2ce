"""A layer's tokens: their order, their grid, and layers that have none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import usae
import usae.torch
from support.networks import Gives, convolutional, transformer
from support.refusals import refuses
from usae.torch import Model
from usae.torch._layer_output import TokenReader

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
    with refuses("images", "16 x 24 pixels"):
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
    with refuses("layer 'part' of Gives", "[384, 2, 3] for 2 images"):
        Model(time_first, "part")(images)
    model = Model(time_first, "part", tokens=lambda x: x.transpose(0, 1))
    np.testing.assert_array_equal(model(images), images.reshape(2, 3, -1).transpose(0, 2, 1))
    assert "tokens=a function" in repr(model)
    shorter = Model(time_first, "part", n_prefix_tokens=4, tokens=lambda x: x.transpose(0, 1))
    np.testing.assert_array_equal(shorter(images), model(images)[:, 4:])


def test_the_old_name_of_n_prefix_tokens_still_works_with_a_warning_that_has_the_new_one(images):
    net = transformer()
    with pytest.warns(DeprecationWarning, match="n_prefix_tokens=2") as caught:
        old = Model(net, "block", tokens=2, size=(16, 24))
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(old(images), Model(net, "block", n_prefix_tokens=2, size=(16, 24))(images))
    with refuses("tokens", 1):
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
        assert str(error).startswith("channels_last must be given")
    else:
        assert found == grid and tokens.shape == (1, math.prod(grid), width)


def test_an_odd_map_still_shows_its_order_and_one_that_does_not_is_an_error():
    images = np.zeros((1, 3, 30, 45), np.float32)
    odd = Gives(lambda x: torch.zeros(1, 64, 4, 6))  # ceil(30 / 8), ceil(45 / 8)
    assert Model(odd, "part", size=(30, 45)).grid == (4, 6)
    cube = Gives(lambda x: torch.zeros(1, 7, 7, 7))
    with refuses("channels_last", "None and a map [1, 7, 7, 7]"):
        Model(cube, "part")(np.zeros((1, 3, 28, 28), np.float32))
    assert Model(cube, "part", channels_last=True)(images).shape == (1, 49, 7)


@pytest.mark.parametrize(
    ("options", "argument", "got"),
    [
        ({"n_prefix_tokens": 1, "grid": (4, 6)}, "layer 'block' of Transformer", "25"),
        ({"n_prefix_tokens": 0, "grid": (9, 9)}, "layer 'block' of Transformer", "26"),
        ({"n_prefix_tokens": 26}, "n_prefix_tokens", "26"),
        ({"n_prefix_tokens": -1}, "n_prefix_tokens", "-1"),
    ],
)
def test_tokens_that_do_not_fit_the_grid_are_an_error(images, options, argument, got):
    with refuses(argument, got):
        Model(transformer(), "block", **options)(images)


def test_tokens_cannot_be_dropped_from_a_map_and_vectors_are_no_tokens(images):
    with refuses("n_prefix_tokens", "1"):
        Model(convolutional(), "3", n_prefix_tokens=1)(images)
    with refuses("layer 'head' of Transformer", "torch.float32 [2, 5]"):
        Model(transformer(), "head", n_prefix_tokens=2)(images)
    with refuses("grid", "(6, 4)"):
        Model(convolutional(), "3", grid=(6, 4), channels_last=False)(images)


def test_tokens_whose_number_fits_no_grid_have_none(images):
    model = Model(transformer(), "block", n_prefix_tokens=1, size=(16, 24))
    assert model.grid is None and model.n_tokens == 25


# --- What is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_layer_is_an_error_with_the_close_names():
    with refuses("layer", "'block.linaer1'", remedy="'block.linear1' or 'block.linear2'"):
        Model(transformer(), "block.linaer1")
    with refuses("layer", "'xyz'", remedy="'patches', 'block', 'head'"):
        Model(transformer(), "xyz")
    with refuses("layer", "None", remedy="'patches', 'block', 'head'"):
        Model(transformer())
    with refuses("layer", "3"):
        Model(transformer(), 3)


def test_a_layer_that_does_not_run_is_an_error(images):
    net = transformer()
    net.unused = nn.Identity()
    with refuses("layer 'unused' of Transformer", "nothing from it"):
        Model(net, "unused")(images)
