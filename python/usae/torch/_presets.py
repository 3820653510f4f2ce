"""What is known about a network from the library it comes from.

Recognised by the module of its class, so that timm, transformers and torchvision are never imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preset(NamedTuple):
    """What a module says about itself; the arguments of `usae.torch.Model`."""

    source: str = "plain module"
    layer: str | None = None
    tokens: int = 0
    grid: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    channels_last: bool | None = None


def find_preset(module: nn.Module) -> Preset:
    return Preset()
