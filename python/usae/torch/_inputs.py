"""What goes into a network and comes out of it, as tensors and arrays: images, activations and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usae.errors import InvalidInputError
from usae.torch._network_errors import pass_on
from usae.torch._plain import in_a_standard_type, plain, type_of


def checked_images(given: Any, network: nn.Module, channels: int, known_size: tuple[int, int] | None) -> Tensor:
    """Return a copy of normalised images, [n, channels, height, width], on the device of a network and in its type."""
    if not isinstance(given, (np.ndarray, Tensor)):
        raise InvalidInputError(
            f"images must be a NumPy array or a tensor [n, {channels}, height, width], got {type(given).__name__}; "
            f"model.preprocess(images) makes one from pictures"
        )
    size = "height, width" if known_size is None else f"{known_size[0]}, {known_size[1]}"
    images = plain(given, "images")
    shape, dtype = tuple(images.shape), type_of(images)
    fits = len(shape) == 4 and shape[1] == channels and known_size in (None, shape[2:]) and 0 not in shape
    if not fits or "float" not in dtype:
        takes = len(shape) == 4 and shape[1] not in (0, channels) and "float" in dtype
        more = f", or Model(..., channels={shape[1]}) if the network takes as many" if takes else ""
        raise InvalidInputError(
            f"images must be floats [n, {channels}, {size}], normalised, got {dtype} {list(shape)}; "
            f"model.preprocess(images) makes them{more}"
        )
    device, kind = where(network)
    if device.type == "meta":
        raise InvalidInputError(
            f"module must have numbers as parameters, got {type(network).__name__} with some on the device "
            f'"meta", which have none; load its weights first'
        )
    try:
        copy = _as_tensor(images) if isinstance(images, np.ndarray) else images.detach().clone()
        copy = in_a_standard_type(copy).to(device, kind)
        is_finite = all_finite(copy)
    except Exception as error:  # of a subclass, such as PyTorch's fake tensors
        pass_on(error, "images")
        raise InvalidInputError(
            f"images must be an array whose numbers can be read, got {type(images).__name__}: {type(error).__name__}: "
            f"{error}; make a plain one"
        ) from error
    if not is_finite:
        raise InvalidInputError(
            f"images must be finite, also in {type_of(copy)}, the type of the network, got NaN or infinity; "
            f"model.preprocess(images) makes images that are"
        )
    return copy


def checked_gradient(gradient: object, tokens: Tensor) -> Tensor:
    """Return the gradient of a number with respect to activations, which `tokens` are, on their device and in their type."""
    given: Any = plain(gradient, "gradient")
    try:
        if isinstance(given, Tensor):
            given = (given.detach().double() if given.is_floating_point() else given.detach()).cpu().numpy()
        array = np.asarray(given)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(
            f"gradient must be floats {list(tokens.shape)}, got {type(gradient).__name__}: {error}"
        ) from error
    if array.dtype.kind != "f" or array.shape != tuple(tokens.shape):
        raise InvalidInputError(
            f"gradient must be floats {list(tokens.shape)}, one for each activation, got {array.dtype} {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidInputError(f"gradient must be finite, got {array[tuple(place)]} at {place}")
    return _as_tensor(array).to(tokens.device, tokens.dtype)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a copy as an array, so that a change of the array does not change what `pull` computes."""
    return np.array(tensor.float().cpu().numpy(), order="C")


def all_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. Their sum is not if one is not, and takes a twentieth of the time."""
    tensor = tensor.detach()
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def in_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of float64 as float32, which results are, and in which it may overflow; another as it is."""
    return tensor.detach().float() if tensor.dtype == torch.float64 else tensor


def where(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and type in which a network computes."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.itemsize > 1:  # PyTorch keeps numbers in 8 bits, but computes in more
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def _as_tensor(array: np.ndarray) -> Tensor:
    """Return a copy of an array of floats."""
    return torch.from_numpy(array.astype(np.float64 if array.itemsize > 4 else np.float32, order="C"))
