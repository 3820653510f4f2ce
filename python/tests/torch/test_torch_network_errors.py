"""What networks, and the users' functions beside them, raise: errors that name the layer, with the original as their cause."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import usae
from support.networks import convolutional
from support.refusals import refuses
from usae.torch import Model, extract

OPTIONS = {"size": (16, 24), "mean": 0.5, "std": 0.5}
BYTES = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return Model(convolutional(), "3", **OPTIONS)


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.error = error

    def forward(self, x):
        self.patches(x)
        raise self.error


KINDS = [
    RuntimeError,
    TypeError,
    KeyError,
    AttributeError,
    ValueError,
    IndexError,
    AssertionError,
    NotImplementedError,
    OSError,
]
KINDS += [ZeroDivisionError, StopIteration, RecursionError, Exception, EOFError, ImportError]
PASSED_ON = [
    KeyboardInterrupt(),
    SystemExit(1),
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    GeneratorExit(),
]
PASSED_ON += [RuntimeError("CUDA error: out of memory"), usae.NotInitializedError("its own")]


def test_what_a_network_raises_is_told_with_its_name_and_kept_as_the_cause():
    images = np.zeros((1, 3, 16, 24), np.float32)
    for kind, how in itertools.product(KINDS, ("call", "vjp", "n_tokens")):
        model = Model(Raising(kind("its-text")).eval(), "", **OPTIONS)
        of_shapes = issubclass(kind, (RuntimeError, IndexError, AssertionError)) and kind is not RecursionError
        with refuses("images" if of_shapes else "module") as caught:
            model.n_tokens if how == "n_tokens" else (model.vjp if how == "vjp" else model)(images)  # noqa: B018
        assert type(caught.value.__cause__) is kind
        assert all(name in str(caught.value) for name in ("its-text", "layer ''"))
    for error in PASSED_ON:
        with pytest.raises(type(error)) as caught:
            Model(Raising(error).eval(), "", **OPTIONS)(images)
        assert caught.value is error
    for net, argument in ((nn.Bilinear(3, 3, 3), "module"), (nn.LSTM(3, 4), "module"), (nn.Module(), "images")):
        with refuses(argument):
            Model(net.eval(), "", **OPTIONS)(images)


def test_memory_that_is_not_there_is_an_error_of_memory(model, monkeypatch):
    full = RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    with refuses("images", error=usae.UsaeMemoryError):
        Model(Raising(full).eval(), "", **OPTIONS)(np.zeros((1, 3, 16, 24), np.float32))

    def without_memory(x, size, **options):
        if tuple(size) in ((16, 24), (7, 9)):
            raise full
        return interpolate(x, size, **options)

    with monkeypatch.context() as patched:
        interpolate = torch.nn.functional.interpolate
        patched.setattr("torch.nn.functional.interpolate", without_memory)
        with refuses("a picture", error=usae.UsaeMemoryError):
            model.preprocess(BYTES)
        with refuses("activations", error=usae.UsaeMemoryError):
            extract(
                {"a": Model(convolutional(), "3", size=(32, 48), mean=0.5, std=0.5, channels_last=False)}, BYTES, grid=(7, 9)
            )
    for items in ([BYTES[0], MemoryError()], [BYTES[0], torch.cuda.OutOfMemoryError("CUDA out of memory")]):
        for images in (Examples(items), (x for x in Examples(items))):
            with pytest.raises(type(items[1])):
                extract({"a": model}, images, on_error="skip")


class Examples(Dataset):
    def __init__(self, items, length=len):
        self.items, self.length = items, length

    def __len__(self):
        return self.length(self.items)

    def __getitem__(self, number):
        if isinstance(self.items[number], BaseException):
            raise self.items[number]
        return self.items[number]


def test_a_data_set_that_does_not_know_its_length_is_read_to_its_end(model):
    for length in (lambda items: 1 / 0, lambda items: -1, lambda items: "many"):
        np.testing.assert_array_equal(model.preprocess(Examples(list(BYTES), length)), model.preprocess(BYTES))


def test_doubles_that_overflow_as_floats_are_an_error():
    images = np.full((1, 3, 16, 24), 0.5, np.float32)
    with refuses("activations of layer ''"):
        Model(nn.Identity(), "", tokens=lambda x: x.double() * 1e300, channels_last=False, **OPTIONS)(images)
    net = nn.Conv2d(3, 4, 4, 4).double()
    net.weight.data *= 1e38
    activations, pull = Model(net.eval(), "", channels_last=False, **OPTIONS).vjp(images * 1e-9)
    with refuses("gradient of layer ''"):
        pull(np.full_like(activations, 1e30))


def test_what_a_function_of_tokens_raises_or_gives_is_told():
    images = np.zeros((2, 3, 16, 24), np.float32)
    for tokens in (lambda x: 1 / 0, lambda: 3, lambda x: x.numpy(force=3), lambda x: x.foo, lambda x: x[:, :, :, :, 0]):
        with refuses("tokens") as caught:
            Model(convolutional(), "3", tokens=tokens, **OPTIONS)(images)
        assert caught.value.__cause__ is not None
    for tokens in (
        lambda x: None,
        lambda x: "a",
        lambda x: x.to("meta"),
        lambda x: x.int(),
        lambda x: x[:, :0],
        lambda x: x.sum(),
    ):
        with pytest.raises(usae.InvalidInputError) as caught:
            Model(convolutional(), "3", tokens=tokens, **OPTIONS)(images)
        assert "layer '3'" in str(caught.value)
    for error in (KeyboardInterrupt, MemoryError, torch.cuda.OutOfMemoryError):

        def failing(x, error=error):
            raise error

        with pytest.raises(error):
            Model(convolutional(), "3", tokens=failing, **OPTIONS)(images)


def test_what_a_backward_pass_raises_is_told():
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise KeyError("backward")

    class Net(nn.Module):
        def forward(self, x):
            return Odd.apply(x)

    activations, pull = Model(Net().eval(), "", channels_last=False, **OPTIONS).vjp(np.zeros((2, 3, 16, 24), np.float32))
    masked, without = np.ma.masked_array(activations, True), torch.empty(activations.shape, device="meta")
    for bad in (masked, without, [[1.0], [2.0, 3.0]], torch.ones(2), object()):
        with refuses("gradient"):
            pull(bad)
    with refuses("layer ''", "KeyError") as caught:
        pull(np.ones_like(activations))
    assert isinstance(caught.value.__cause__, KeyError)


def test_parts_of_the_networks_of_libraries_are_modules_of_which_nothing_is_known():
    images = np.zeros((1, 3, 16, 24), np.float32)
    for library in ("timm", "transformers", "torchvision"):
        for attributes in (
            {},
            {"config": None, "class_token": 3, "patch_embed": 3, "num_prefix_tokens": 1, "pretrained_cfg": 3},
            {"config": 3, "image_size": "large", "patch_embed": nn.Identity(), "feature_info": 3},
        ):
            part = type("Part", (nn.Conv2d,), {"__module__": f"{library}.layers", **attributes})(3, 4, 4, 4).eval()
            assert Model(part, "", channels_last=False, size=(16, 24))(images).shape == (1, 24, 4)
