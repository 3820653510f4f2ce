"""Arguments of `usae.torch.Model`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._plain import plain

LARGEST_SIDE = 2**16


def renamed_tokens(tokens: int, n_prefix_tokens: int | None) -> int:
    """Return a number of tokens to drop that was given by its old name, with a warning that has the new one."""
    if n_prefix_tokens is not None:
        raise InvalidInputError(
            f"tokens must be a function where n_prefix_tokens is given, got {checks.shown(tokens)}; leave it out"
        )
    tokens = checks.integer(tokens, "tokens", 0, 2**31, ", or a function")
    warnings.warn(
        f"tokens={tokens!r}, the number of tokens to drop, is now called n_prefix_tokens={tokens!r}; the next version takes "
        f"only a function as tokens",
        DeprecationWarning,
        stacklevel=3,
    )
    return tokens


def as_pair(value: Any, name: str) -> tuple[int, int]:
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        raise InvalidInputError(f"{name} must be an integer or two, (height, width), got {checks.shown(value)}")
    return checks.integer(both[0], name, 1, LARGEST_SIDE), checks.integer(both[1], name, 1, LARGEST_SIDE)


def chosen_channels(channels: object, known: int | None) -> int:
    return (known or 3) if channels is None else checks.integer(channels, "channels", 1, LARGEST_SIDE)


def scale(
    given: Any, found: Sequence[float] | None, name: str, channels: int, told: Sequence[float] | None = None
) -> np.ndarray | None:
    """Return the mean or standard deviation of each channel; None if it is not known. `told` is what `preprocessing` says."""
    if given is not None:
        return per_channel(given, name, channels)
    if found is not None and len(found) != channels and len(set(found)) == 1:
        found = [found[0]] * channels
    if told is not None and found is not None and len(found) != channels:
        raise InvalidInputError(
            f"preprocessing must be for images of {channels} channels, got {len(told)} numbers as {name}; give {name}=, or "
            f"channels= how many the network's images have"
        )
    return None if found is None or len(found) != channels else per_channel(found, name, channels)


def per_channel(value: Any, name: str, channels: int) -> np.ndarray:
    if isinstance(value, (Tensor, np.ndarray)):
        value = _listed(value, name)
    numbers = list(value) if isinstance(value, Sequence) else [value] * channels
    numbers = [checks.as_float(number) for number in numbers]
    if len(numbers) != channels or not all(map(math.isfinite, numbers)):
        raise InvalidInputError(
            f"{name} must be a number or {channels}, one a channel of images in 0..1, got {checks.shown(value)}; channels= is "
            f"how many the network's images have"
        )
    if max(numbers) > 1:
        raise InvalidInputError(
            f"{name} must be of images in 0..1, so 1 at most, got {checks.shown(value)}; if it is of images in 0..255, divide "
            f"mean and std by 255"
        )
    return np.array(numbers, np.float32)


def _listed(value: Any, name: str) -> Any:
    """Return the numbers of an array or tensor, one or a list."""
    value = plain(value, name)
    try:
        return value.tolist()
    except Exception as error:  # of a subclass
        raise InvalidInputError(f"{name} must be numbers, got {type(value).__name__}: {error}; give a list") from error


def autocast_type(autocast: object) -> Any:
    if not any(autocast is known for known in (None, torch.bfloat16, torch.float16)):
        raise InvalidInputError(f"autocast must be torch.bfloat16, torch.float16 or None, got {checks.shown(autocast)}")
    return autocast


def checked_device(device: object) -> torch.device:
    """Return a device on which this machine can compute. InvalidInputError, which lists those, for anything else."""
    try:
        if isinstance(device, bool) or not isinstance(device, (torch.device, str, int)):
            raise TypeError(f"a value of type {type(device).__name__}")
        found = torch.device(device)
        torch.empty(1, device=found)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # PyTorch raises errors of five types, and ModuleNotFoundError
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InvalidInputError(
            f"device must be {_devices()}, got {checks.shown(device)}: {reason}; leave it out for that of its parameters"
        ) from error
    if found.type == "meta":
        raise InvalidInputError(f'device must be {_devices()}, got "meta", which computes no numbers; leave it out')
    return found


def _devices() -> str:
    """Return the devices of this machine, for messages."""
    found = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    found += ["mps"] if torch.backends.mps.is_available() else []
    return f"one that PyTorch has here ({', '.join(found)})"


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module. InvalidInputError if it cannot be moved."""
    try:
        module.to(device)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # for example of quantized modules
        raise InvalidInputError(
            f'device must be one to which {type(module).__name__} can be moved, got "{device}": {type(error).__name__}: '
            f"{error}; leave it out and move the network yourself"
        ) from error


def thread_number(threads: object) -> int | None:
    return None if threads is None else checks.integer(threads, "threads", 1, 1024, ", or None for PyTorch's own number")


def short(values: np.ndarray | None) -> str:
    if values is None:
        return "unknown"
    numbers = [f"{value:.4g}" for value in values]
    return numbers[0] if len(set(numbers)) == 1 else f"({', '.join(numbers)})"
