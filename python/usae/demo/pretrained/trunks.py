"""Convolutional trunks of inverted residuals, for weights that are read by their order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Stage(NamedTuple):
    """Some blocks of the same width, of which the first has the stride."""

    expansion: int
    kernel: int
    stride: int
    width: int
    blocks: int


class Convolution(nn.Conv2d):
    """A convolution without bias that pads its input, symmetrically or as TensorFlow's "SAME" does."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1, same: bool = False):
        super().__init__(n_in, n_out, kernel, stride, 0 if same else kernel // 2, groups=groups, bias=False)
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [n, n_in, h, w]; its height is h / stride, rounded up."""
        if self.same:
            pads = []
            for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
                total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
                pads += [total // 2, total - total // 2]
            x = F.pad(x, pads)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, and project; added to the input where the shapes are the same."""

    def __init__(self, n_in: int, stage: Stage, stride: int, same: bool, epsilon: float):
        super().__init__()
        wide = n_in * stage.expansion
        layers = [] if stage.expansion == 1 else [*_normalised(Convolution(n_in, wide, 1), epsilon), nn.ReLU6()]
        layers += [*_normalised(Convolution(wide, wide, stage.kernel, stride, wide, same), epsilon), nn.ReLU6()]
        layers += _normalised(Convolution(wide, stage.width, 1), epsilon)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and n_in == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for [n, n_in, h, w]."""
        return x + self.layers(x) if self.residual else self.layers(x)


def efficientnet_lite0(weights: Mapping[str, Tensor]) -> nn.Module:
    """Return EfficientNet-Lite0 up to its last inverted residual, 320 channels for each 32 x 32 pixels."""
    stages = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4))
    return _trunk([*itertools.starmap(Stage, stages), Stage(6, 3, 1, 320, 1)], weights, same=True, epsilon=1e-3)


def efficientnet_lite0_head(weights: Mapping[str, Tensor]) -> nn.Module:
    """Return what follows the trunk of EfficientNet-Lite0: a convolution, the mean over places, and logits of 1,000 classes."""
    layers = [*_normalised(Convolution(320, 1280, 1), 1e-3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = nn.Sequential(*layers, nn.Linear(1280, 1000))
    last = list(weights.values())[-len(head.state_dict()) :]
    head.load_state_dict(dict(zip(head.state_dict(), last, strict=True)))
    return head


def mobilenet_v2(weights: Mapping[str, Tensor]) -> nn.Module:
    """Return MobileNetV2 up to its last convolution, 1,280 channels for each 32 x 32 pixels."""
    stages = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 3, 2, 32, 3), (6, 3, 2, 64, 4), (6, 3, 1, 96, 3), (6, 3, 2, 160, 3))
    last = [*_normalised(Convolution(320, 1280, 1), 1e-5), nn.ReLU6()]
    return _trunk([*itertools.starmap(Stage, stages), Stage(6, 3, 1, 320, 1)], weights, same=False, epsilon=1e-5, last=last)


def _trunk(
    stages: list[Stage], weights: Mapping[str, Tensor], *, same: bool, epsilon: float, last: list[nn.Module] | None = None
) -> nn.Module:
    layers: list[nn.Module] = [*_normalised(Convolution(3, 32, 3, 2, same=same), epsilon), nn.ReLU6()]
    width = 32
    for stage in stages:
        for block in range(stage.blocks):
            layers.append(InvertedResidual(width, stage, stage.stride if block == 0 else 1, same, epsilon))
            width = stage.width
    trunk = nn.Sequential(*layers, *(last or []))
    # The names differ, but the order is that of the computation, as everywhere. load_state_dict compares the shapes.
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights.values(), strict=False)))
    return trunk


def _normalised(convolution: nn.Conv2d, epsilon: float) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels, epsilon)]
