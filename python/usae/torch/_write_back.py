"""The way back from tokens to the output of a layer: everything that is not read as a token stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from usae.errors import InvalidInputError
from usae.torch._layer_output import Grid, TokenReader, first_tensor


def with_tokens(reader: TokenReader, output: Any, tokens: Tensor, n_images: int | None, size: Grid) -> Any:
    """Return a layer's output in which other tokens stand at the places from which `reader` reads them.

    Prefix tokens and the other parts of a tuple or mapping are those of `output`, which is not changed. The memory format is
    kept, so that what follows in the network computes as it would without an edit.

    Parameters
    ----------
    reader : TokenReader
        How the output of the layer is read.
    output : tensor, or tuple, list or mapping of which the first tensor is taken
        Output of the layer.
    tokens : Tensor, [n_images, tokens, width]
        The new tokens, in any type of floats.
    n_images, size
        As for `TokenReader.read`.
    """
    tensor = first_tensor(output, reader.label)
    for memory_format in (torch.preserve_format, torch.contiguous_format):
        changed = _through_a_view(reader, tensor, tokens, n_images, size, memory_format)
        if changed is not None:
            return _with_tensor(output, changed)
    return _with_tensor(output, _at_their_places(reader, tensor, tokens, n_images, size))


def _through_a_view(
    reader: TokenReader, tensor: Tensor, tokens: Tensor, n_images: int | None, size: Grid, memory_format: torch.memory_format
) -> Tensor | None:
    """Write tokens into a copy through what `reader` reads of it, if that is a view. Return None if it is not."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return None
    result = tensor.clone(memory_format=memory_format)
    view, _ = reader.read(result, n_images, size)
    if view.dtype != result.dtype or (result.requires_grad and not view.requires_grad):
        return None
    try:
        is_view = view.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
    except RuntimeError:  # tensors of torch.func and of torch.export have no memory to compare
        is_view = reader.tokens is None and memory_format == torch.contiguous_format  # then `reader` only slices and merges
    if not is_view:
        return None
    view.copy_(tokens)
    return result


def _at_their_places(reader: TokenReader, tensor: Tensor, tokens: Tensor, n_images: int | None, size: Grid) -> Tensor:
    """Find out where each number of a token comes from, by reading numbers that count, and write the new one there."""
    numbers = torch.arange(tensor.numel(), dtype=torch.float64, device=tensor.device).reshape(tensor.shape)
    read, _ = reader.read(numbers, n_images, size)
    places = read.detach().flatten().to(torch.int64)
    before, _ = reader.read(tensor, n_images, size)
    is_rearranged = (
        tensor.layout == torch.strided
        and not tensor.is_quantized
        and len(places) == before.numel()
        and int(places.min()) >= 0
        and int(places.max()) < tensor.numel()
        and len(places.unique()) == len(places)
        and torch.equal(tensor.detach().flatten()[places].to(before.dtype), before.detach().flatten())
    )
    if not is_rearranged:
        raise InvalidInputError(
            f"tokens must only rearrange numbers of the output of {reader.label}, so that edited tokens can be put back where "
            f"they come from, got a function that computes others, or an output of type {tensor.dtype} and layout "
            f"{tensor.layout}; leave tokens= out, or choose a layer whose output are the tokens"
        )
    return tensor.flatten().scatter(0, places, tokens.flatten().to(tensor.dtype)).reshape(tensor.shape)


def _with_tensor(output: Any, tensor: Tensor) -> Any:
    """Return an output with another first tensor."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, Mapping):
        key = next(key for key, part in output.items() if isinstance(part, Tensor))
        changed: Any = copy.copy(output)
        changed[key] = tensor
        return changed
    place = next(place for place, part in enumerate(output) if isinstance(part, Tensor))
    parts = [*output[:place], tensor, *output[place + 1 :]]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
