"""Arrays and tensors of every kind as plain ones, with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from usae.errors import InvalidInputError


def plain(array: Any, label: str) -> Any:
    """Return an array or tensor as a dense one whose numbers can be read.

    Masked arrays without masked values, sparse and quantized tensors, and those of MKL-DNN, become what they stand for.
    InvalidInputError for what has no numbers, or more than numbers.
    """
    if isinstance(array, Tensor):
        return _plain_tensor(array, label)
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise InvalidInputError(
                f"{label} must have a number everywhere, got a masked array with {int(np.ma.count_masked(array))} masked "
                f"values; give x.filled(0), and which tokens count as mask="
            )
        return np.asarray(array.data)
    return np.asarray(array) if isinstance(array, np.ndarray) and array.dtype.names is None else array


def _plain_tensor(tensor: Tensor, label: str) -> Tensor:
    if tensor.is_nested:
        raise InvalidInputError(
            f"{label} must be a tensor of one size, got a nested tensor; give x.unbind(), a list of tensors"
        )
    if tensor.is_meta:
        raise InvalidInputError(
            f'{label} must have numbers, got a tensor on the device "meta", which has only a shape; make it on the CPU or a GPU'
        )
    try:
        if tensor.is_quantized:
            return tensor.dequantize()
        return tensor if tensor.layout == torch.strided else tensor.to_dense()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # PyTorch lacks many operations for such tensors
        raise InvalidInputError(
            f"{label} must be a dense tensor, got one of layout {tensor.layout}: {error}; give x.to_dense()"
        ) from error


def type_of(array: Any) -> str:
    """Return the name of an array's or a tensor's type, whatever its byte order."""
    return str(array.dtype).removeprefix("torch.") if isinstance(array, Tensor) else str(array.dtype.name)


def in_a_standard_type(tensor: Tensor) -> Tensor:
    """Return a tensor of floats of 8 bits or less, with which PyTorch can hardly compute, as float32; another as it is."""
    return tensor.float() if tensor.itemsize == 1 and tensor.is_floating_point() else tensor
