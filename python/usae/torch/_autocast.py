"""Computing in a smaller type where that is safe: `torch.autocast`, with every PyTorch that is declared."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def using_autocast(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Let PyTorch compute on `device` in `dtype` where that is safe. None changes nothing."""
    if dtype is None:
        yield
        return
    with torch.autocast(device.type, dtype), _usual_path(device.type, dtype):
        yield


@contextlib.contextmanager
def _usual_path(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Do without PyTorch's fast path for layers of transformers if it cannot compute under autocast."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    if device != "cpu" or not was_enabled or not _fast_path_fails(dtype):
        yield
        return
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@functools.cache
def _fast_path_fails(dtype: torch.dtype) -> bool:
    """Whether the fast path refuses what autocast made of its input, as on the CPU in PyTorch 2.4. It is tried."""
    layer = nn.utils.skip_init(nn.TransformerEncoderLayer, 4, 2, 4, batch_first=True).eval()  # draws no random numbers
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        for parameter in layer.parameters():
            parameter.zero_()
        try:
            layer(torch.zeros(1, 2, 4), src_key_padding_mask=torch.tensor([[False, True]]))
        except RuntimeError:
            return True
    return False
