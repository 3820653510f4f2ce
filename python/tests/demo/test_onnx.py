"""ONNX files as PyTorch modules. The files are put together here, field by field."""

import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support.refusals import refuses  # noqa: E402
from usae.demo.pretrained import onnx_file  # noqa: E402
from usae.demo.pretrained.onnx_module import OnnxModule  # noqa: E402


def integer(value):
    """An integer of variable length; negative ones take ten bytes."""
    value %= 2**64
    parts = []
    while True:
        value, low = value >> 7, value & 127
        parts.append(low | (128 if value else 0))
        if not value:
            return bytes(parts)


def field(number, value):
    """One field: an integer, a float, text, or the bytes of a message."""
    if isinstance(value, int):
        return integer(number << 3) + integer(value)
    if isinstance(value, float):
        return integer(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return integer(number << 3 | 2) + integer(len(content)) + content


def attribute(name, value):
    if isinstance(value, list):
        return field(1, name) + b"".join(field(8, one) for one in value)
    return field(1, name) + field({float: 2, int: 3, str: 4}[type(value)], value)


def node(kind, inputs, output, **attributes):
    parts = [field(1, name) for name in inputs] + [field(2, output), field(4, kind)]
    return field(1, b"".join([*parts, *(field(5, attribute(*each)) for each in attributes.items())]))


def tensor(name, values, raw=True):
    parts = [field(1, side) for side in values.shape]
    content = values.astype("<f4").tobytes()
    return field(5, b"".join([*parts, field(2, 1), field(8, name), field(9 if raw else 4, content)]))


def file(*parts):
    return field(1, 8) + field(7, b"".join([*parts, field(11, field(1, "x"))]))


def test_a_small_network_computes_what_pytorch_computes():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 3, 2, 2)), rng.normal(size=(1, 4, 1, 1))
    convolution = {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": "SAME_UPPER"}
    content = file(
        tensor("w", weight),
        tensor("b", bias, raw=False),
        node("Conv", ["x", "w"], "c", **convolution),
        node("Add", ["c", "b"], "a"),
        node("MaxPool", ["a"], "p", kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_UPPER"),
        node("ReduceMean", ["p"], "m", axes=[-2, -1], keepdims=1),
        node("HardSigmoid", ["m"], "h", alpha=0.25, beta=0.5),
        node("Mul", ["p", "h"], "y"),
        node("Loop", ["y"], "z"),
    )
    x = torch.from_numpy(rng.normal(size=(2, 3, 5, 6))).float().requires_grad_()
    y = OnnxModule(onnx_file.read(content), "y")(x)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    a = torch.nn.functional.conv2d(padded, torch.from_numpy(weight).float()) + torch.from_numpy(bias).float()
    p = torch.nn.functional.max_pool2d(torch.nn.functional.pad(a, (0, 1, 0, 1), value=-np.inf), 2, 1)
    expected = p * (0.25 * p.mean((2, 3), keepdim=True) + 0.5).clamp(0, 1)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert x.grad.abs().sum() > 0
    with refuses("graph", "'Loop'", error=ValueError):
        OnnxModule(onnx_file.read(content), "z")
    with refuses("value", "'q'", error=ValueError):
        OnnxModule(onnx_file.read(content), "q")


def test_a_map_is_enlarged_and_a_value_on_the_way_can_be_changed():
    rng = np.random.default_rng(1)
    weight, scales = rng.normal(size=(3, 2, 2, 2)), np.array([1.0, 1, 2, 3])
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    transposed = {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [1, 1], "group": 1, "pads": [0, 0, 1, 0]}
    content = file(
        tensor("w", weight),
        tensor("s", scales),
        node("Relu", ["x"], "r"),
        node("Resize", ["r", "s", "s"], "n", **nearest),
        node("ConvTranspose", ["n", "w"], "y", **transposed),
    )
    x = torch.from_numpy(rng.normal(size=(2, 3, 4, 5))).float()
    module = OnnxModule(onnx_file.read(content), "y", "r")

    def expected(r):
        n = torch.nn.functional.interpolate(r, scale_factor=(2, 3), mode="nearest")
        return torch.nn.functional.conv_transpose2d(n, torch.from_numpy(weight).float(), stride=2)[:, :, :-1]

    torch.testing.assert_close(module(x), expected(x.relu()))
    handle = module.layer.register_forward_hook(lambda _module, _inputs, r: 2 * r)
    torch.testing.assert_close(module(x), 2 * expected(x.relu()))
    handle.remove()
    with refuses("layer", "'y'", error=ValueError):
        OnnxModule(onnx_file.read(content), "n", "y")
    content = content.replace(b"floor", b"ceil!")
    with refuses("Resize", error=ValueError):
        OnnxModule(onnx_file.read(content), "y")(x)


def test_a_strided_convolution_has_the_padding_that_is_written():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(2, 1, 3, 3))
    given = {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [1, 1], "group": 2, "pads": [0, 1, 2, 1]}
    content = file(tensor("w", weight), node("Conv", ["x", "w"], "y", **given))
    x = torch.from_numpy(rng.normal(size=(1, 2, 8, 8))).float()
    padded = torch.nn.functional.pad(x, (1, 1, 0, 2))  # ONNX: top, left, bottom, right
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(weight).float(), stride=2, groups=2)
    torch.testing.assert_close(OnnxModule(onnx_file.read(content), "y")(x), expected)


@pytest.mark.parametrize("length", [0, 1, 7, 40, 90])
def test_a_file_cut_short_is_refused(length):
    content = file(tensor("w", np.ones((4, 4))), node("Relu", ["x"], "y"))
    with refuses("content", "something else", error=ValueError):
        onnx_file.read(content[:length])


def test_any_changed_byte_is_read_or_refused():
    content = file(tensor("w", np.ones((2, 2))), node("ReduceMean", ["x"], "y", axes=[2, -1], keepdims=1))
    for place in range(len(content)):
        for value in (0, 127, 128, 255):
            damaged = content[:place] + bytes([value]) + content[place + 1 :]
            try:
                onnx_file.read(damaged)
            except ValueError as error:
                assert str(error).startswith("content: ")


def test_tensors_of_other_types_are_refused():
    message = field(1, 1) + field(2, 10) + field(8, "half") + field(9, b"ab")
    with refuses("content", "ONNX's type 10", error=ValueError):
        onnx_file.read(file(field(5, message)))
