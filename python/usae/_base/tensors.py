"""Tensors of PyTorch, for code that does not need PyTorch."""

from __future__ import annotations

import sys
from typing import Any


def on_cpu(x: Any) -> Any:
    """Return a tensor in the CPU's memory and without its graph, and anything else as it is.

    That copies a tensor of another device, so it is for what is used once, and not for activations that training reads again
    and again. A tensor without numbers (on the device "meta") stays where it is.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return x
    x = x.detach()
    return x if x.device.type in ("cpu", "meta") else x.cpu()
