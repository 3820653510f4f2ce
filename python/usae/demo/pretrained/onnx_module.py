"""ONNX graphs as PyTorch modules, with gradients, up to one of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usae.demo.pretrained.onnx_file import Graph, Node, Value


class OnnxModule(nn.Module):
    """Computes a value of a graph that takes one input.

    Parameters
    ----------
    graph : Graph
        The graph.
    value : str
        Name of the value to compute. Operations that it does not follow from are left out.
    layer : str, optional
        Name of a value on the way that passes through the module's part `layer`, where hooks see and change it. Default: None.

    Raises
    ------
    ValueError
        If the graph has no such value, takes more than one input, or has an operation that is not among those known here.
    """

    def __init__(self, graph: Graph, value: str, layer: str | None = None):
        super().__init__()
        self.nodes = _needed(graph, value)
        if layer is not None and not any(layer in node.outputs for node in self.nodes):
            raise ValueError(f"layer: expected a value from which {value!r} follows, got {layer!r}")
        self.layer, self._layer_value = nn.Identity(), layer
        self.value = value
        inputs = [name for name in graph.inputs if name not in graph.tensors]
        if len(inputs) != 1:
            raise ValueError(f"graph: expected one input, got {inputs}")
        self.takes = inputs[0]
        names = {name for node in self.nodes for name in node.inputs if name in graph.tensors}
        self._names = {name: f"tensor{i}" for i, name in enumerate(sorted(names))}
        for name, attribute in self._names.items():
            self.register_buffer(attribute, torch.from_numpy(graph.tensors[name]))

    def forward(self, images: Tensor) -> Tensor:
        """Return the value for `images`, [n, 3, height, width]."""
        values = {self.takes: images}
        values |= {name: cast(Tensor, getattr(self, attribute)) for name, attribute in self._names.items()}
        for node in self.nodes:
            found = _OPERATIONS[node.kind](node.attributes, *(values[name] for name in node.inputs))
            values[node.outputs[0]] = self.layer(found) if node.outputs[0] == self._layer_value else found
        return values[self.value]


def _needed(graph: Graph, value: str) -> list[Node]:
    wanted, nodes = {value}, []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            if node.kind not in _OPERATIONS:
                raise ValueError(f"graph: expected operations among {sorted(_OPERATIONS)}, got {node.kind!r}")
            wanted.update(node.inputs)
            nodes.append(node)
    if not nodes:
        raise ValueError(f"value: expected a value that the graph computes, got {value!r}")
    return nodes[::-1]


Attributes = Mapping[str, Value]


def _padded(x: Tensor, given: Attributes, filling: float) -> Tensor:
    """Pad as a convolution's or pooling's attributes say. ONNX lists all beginnings, then all ends."""
    kernel, strides = _pair(given, "kernel_shape"), _pair(given, "strides")
    if given.get("auto_pad", "NOTSET") == "SAME_UPPER":
        sizes = zip(x.shape[2:], kernel, strides, strict=True)
        total = [max((-(-length // stride) - 1) * stride + side - length, 0) for length, side, stride in sizes]
        top, left = (each // 2 for each in total)
        bottom, right = total[0] - top, total[1] - left
    elif given.get("auto_pad", "NOTSET") == "NOTSET":
        top, left, bottom, right = cast(Sequence[int], given.get("pads", (0, 0, 0, 0)))
    else:
        raise ValueError(f"auto_pad: expected SAME_UPPER or NOTSET, got {given['auto_pad']!r}")
    return F.pad(x, (left, right, top, bottom), value=filling) if any((top, left, bottom, right)) else x


def _pair(given: Attributes, name: str) -> tuple[int, int]:
    high, wide = cast(Sequence[int], given.get(name, (1, 1)))
    return high, wide


def _convolution(given: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    groups, dilation = cast(int, given.get("group", 1)), _pair(given, "dilations")
    return F.conv2d(_padded(x, given, 0.0), weight, bias, _pair(given, "strides"), 0, dilation, groups)


def _transposed_convolution(given: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = cast(Sequence[int], given.get("pads", (0, 0, 0, 0)))
    groups, dilation = cast(int, given.get("group", 1)), _pair(given, "dilations")
    whole = F.conv_transpose2d(x, weight, bias, _pair(given, "strides"), 0, 0, groups, dilation)
    return whole[..., top : whole.shape[-2] - bottom, left : whole.shape[-1] - right]


def _nearest(given: Attributes, x: Tensor, _region: Tensor, scales: Tensor) -> Tensor:
    modes = given.get("mode"), given.get("coordinate_transformation_mode"), given.get("nearest_mode")
    down, right = (float(scale) for scale in scales[2:])
    if modes != ("nearest", "asymmetric", "floor") or [down % 1, right % 1, *scales[:2].tolist()] != [0, 0, 1, 1]:
        raise ValueError(f"Resize: expected whole steps to the nearest place below, got {dict(given)} by {scales.tolist()}")
    return x.repeat_interleave(int(down), 2).repeat_interleave(int(right), 3)


def _max_pool(given: Attributes, x: Tensor) -> Tensor:
    return F.max_pool2d(_padded(x, given, float("-inf")), _pair(given, "kernel_shape"), _pair(given, "strides"))


def _mean(given: Attributes, x: Tensor) -> Tensor:
    return x.mean(cast(list[int], given["axes"]), keepdim=bool(given.get("keepdims", 1)))


def _hard_sigmoid(given: Attributes, x: Tensor) -> Tensor:
    return (cast(float, given.get("alpha", 0.2)) * x + cast(float, given.get("beta", 0.5))).clamp(0, 1)


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, x, y: x + y,
    "Concat": lambda given, *parts: torch.cat(parts, given["axis"]),
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Div": lambda _, x, y: x / y,
    "Erf": lambda _, x: x.erf(),
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda _, x: x,
    "MaxPool": _max_pool,
    "Mul": lambda _, x, y: x * y,
    "ReduceMean": _mean,
    "Resize": _nearest,
    "Relu": lambda _, x: x.relu(),
    "Sigmoid": lambda _, x: x.sigmoid(),
}
