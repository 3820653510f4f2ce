"""Conversion of the output of any layer of a vision network to tokens, [n_images, tokens, width]."""

from __future__ import annotations

import contextlib
import difflib
import math
import operator
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from usae._base import checks
from usae.errors import InvalidInputError, UsaeError
from usae.torch._plain import in_a_standard_type, plain
from usae.torch._wrappers import eager

Grid = tuple[int, int]
"""Rows and columns."""


class _Reached(BaseException):
    """Ends a forward pass after the wanted layer. It is no Exception, so that no ``except`` of a network catches it."""


class Presence:
    """Lives as long as a call of `run_to`, or as a block in which tokens are edited. Keys of hooks refer to it weakly."""

    __slots__ = ("__weakref__",)


told_of_ends: weakref.WeakSet[Any] = weakref.WeakSet()
"""Whose `after_network` is called when `run_to` ends a pass at its last layer: hooks of the network's end do not run then."""


class TokenReader(NamedTuple):
    """How the output of a layer is read.

    Attributes
    ----------
    label : str
        Name of the layer in error messages.
    n_prefix_tokens : int
        Number of leading tokens to drop.
    grid : (int, int) or None
        Rows and columns. None: they are inferred from the output.
    channels_last : bool or None
        Whether a map is [n_images, rows, columns, width]. None: it is inferred from the shape.
    tokens : callable or None
        Function from the layer's output to the tensor that is read instead. It is last, because pickles of version 0.1 lack it.
    """

    label: str
    n_prefix_tokens: int = 0
    grid: Grid | None = None
    channels_last: bool | None = None
    tokens: Callable[[Tensor], Tensor] | None = None

    def read(self, output: object, n_images: int | None, size: Grid) -> tuple[Tensor, Grid | None]:
        """Return tokens, [n_images, tokens, width], row by row, and their grid, or None if there is none.

        Parameters
        ----------
        output : tensor, or tuple, list or mapping of which the first tensor is taken
            Output of the layer, [n_images, tokens, width] or a map of four dimensions.
        n_images : int or None
            Number of images. None: it is not known.
        size : (int, int)
            Height and width of the images.
        """
        tensor = tensor_of(output, self.label)
        if self.tokens is not None:
            tensor = tensor_of(self._rearranged(tensor), f"tokens(output of {self.label})")
        if tensor.ndim not in (3, 4) or not tensor.is_floating_point() or 0 in tensor.shape:
            raise InvalidInputError(
                f"{self.label} must give floats [n_images, tokens, width] or a map of four dimensions, got {tensor.dtype} "
                f"{list(tensor.shape)}; choose a layer before images are pooled, or give tokens= a function that makes tokens"
            )
        if n_images is not None and len(tensor) != n_images:
            raise InvalidInputError(
                f"{self.label} must give images in its first dimension, got {list(tensor.shape)} for {n_images} images; "
                f"give tokens= a function that brings them there, for instance tokens=lambda x: x.transpose(0, 1)"
            )
        return self._from_map(tensor, size) if tensor.ndim == 4 else self._from_sequence(tensor, size)

    def _rearranged(self, tensor: Tensor) -> object:
        try:
            return self.tokens(tensor)  # type: ignore[misc]
        except (UsaeError, MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            raise InvalidInputError(
                f"tokens must be a function of the output of {self.label}, got {type(error).__name__}: {error}, when given a "
                f"tensor {list(tensor.shape)}; correct it"
            ) from error

    def _from_sequence(self, tensor: Tensor, size: Grid) -> tuple[Tensor, Grid | None]:
        prefix = self.n_prefix_tokens
        n = tensor.shape[1] - prefix
        if n < 1:
            raise InvalidInputError(
                f"n_prefix_tokens must be fewer than the {tensor.shape[1]} tokens of {self.label}, got {prefix}"
            )
        if self.grid is not None and n != math.prod(self.grid):
            rows, columns = self.grid
            more = tensor.shape[1] - rows * columns
            remedy = f"n_prefix_tokens={more} would leave as many" if more >= 0 else "give the grid= of this layer"
            raise InvalidInputError(
                f"{self.label} must give {rows} x {columns} tokens after {prefix} are dropped, got {n}; {remedy}"
            )
        return tensor[:, prefix:], self.grid or grid_like(n, size)

    def _from_map(self, tensor: Tensor, size: Grid) -> tuple[Tensor, Grid]:
        if prefix := self.n_prefix_tokens:
            raise InvalidInputError(
                f"n_prefix_tokens must be 0 for {self.label}, which gives a map {list(tensor.shape)}, got {prefix}"
            )
        tensor = tensor.movedim(3, 1) if self._is_channels_last(tuple(tensor.shape), size) else tensor
        rows, columns = tensor.shape[2:]
        if self.grid not in (None, (rows, columns)):
            raise InvalidInputError(f"grid must be that of {self.label}, {(rows, columns)}, got {self.grid}; leave it out")
        return tensor.flatten(2).transpose(1, 2), (rows, columns)

    def _is_channels_last(self, shape: tuple[int, ...], size: Grid) -> bool:
        """Find rows and columns: the two dimensions that equal the given grid, or that have the proportions of the image."""
        if self.channels_last is not None:
            return self.channels_last
        if self.grid is not None and (shape[2:] == self.grid) != (shape[1:3] == self.grid):
            return shape[1:3] == self.grid
        first, last = _likeness((shape[2], shape[3]), size), _likeness((shape[1], shape[2]), size)
        # The map of a square image is square, so an exactly square pair of dimensions is preferred to a nearly square one.
        if first == last or (first and last and size[0] != size[1]):
            raise InvalidInputError(
                f"channels_last must be given for {self.label}, got None and a map {list(shape)} for images of {size[0]} x "
                f"{size[1]}, which could be of either order; False is [n_images, width, rows, columns], True is width last"
            )
        return last > first


def run_to(module: nn.Module, layers: Sequence[nn.Module], labels: Sequence[str], given: Any) -> list[Any]:
    """Return the output of each of `layers` when it first runs in ``module(given)``. What follows the last is not computed.

    `given` is one argument, such as images, or a mapping with several by their names.

    So no later layer can overwrite that output in place either. Of the others copies are kept.
    """
    outputs: dict[int, Any] = {}
    wanted = {id(layer): layer for layer in layers}
    thread = threading.get_ident()

    def keep(layer: nn.Module, _inputs: object, output: Any) -> None:
        if threading.get_ident() != thread or id(layer) in outputs:  # another thread may be using the same module
            return
        is_last = len(outputs) + 1 == len(wanted)
        outputs[id(layer)] = output if is_last else _copied(output)
        if is_last:
            raise _Reached

    # Ctrl-C may come between any two calls of Python functions, so within `register_forward_hook` and `RemovableHandle.remove`
    # too, and a hook would stay in the user's network. Here a single call of C puts them in, within `try`, and a single one
    # takes them out. Should that one not be reached, the hooks go with this call's `Presence`, to which their keys refer. (A
    # weak reference that is gone before its referent calls nothing, so `keys` is the earlier variable.)
    keys: list[Any] = []
    presence = Presence()
    all_hooks: list[Any] = [layer._forward_hooks for layer in wanted.values()]
    keys += [weakref.ref(presence, hooks.pop) for hooks in all_hooks]
    removers = [hooks.pop for hooks in all_hooks]
    try:
        deque(map(operator.setitem, all_hooks, keys, repeat(keep)), maxlen=0)
        with eager(module):
            module(**given) if isinstance(given, Mapping) else module(given)
    except _Reached:
        for each in list(told_of_ends):
            each.after_network()
        return [outputs[id(layer)] for layer in layers]
    finally:
        deque(map(operator.call, removers, keys, repeat(None)), maxlen=0)
    label = next(label for layer, label in zip(layers, labels, strict=True) if id(layer) not in outputs)
    remedy = "choose another layer"
    if any(isinstance(part, torch.jit.ScriptModule) for part in (module, *layers)):
        remedy = "hooks do not run in TorchScript: give the network before it was scripted"
    elif "torch._dynamo" in sys.modules:  # functions outside of modules may be compiled too, which cannot be seen
        remedy += ", or, if a compiled function runs it, give the network before torch.compile"
    raise InvalidInputError(f"{label} must run in a pass of {type(module).__name__}, got nothing from it; {remedy}")


@contextlib.contextmanager
def without_graph() -> Iterator[None]:
    """Disable gradients without inference mode: tensors that a network caches in inference mode cannot be used in `vjp`."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def find_layer(module: nn.Module, layer: str) -> nn.Module:
    """Return the submodule with a dotted name. "" is the module itself."""
    modules = dict(module.named_modules(remove_duplicate=False))
    if isinstance(layer, str) and layer in modules:
        return modules[layer]
    close = difflib.get_close_matches(layer, list(modules), n=3) if isinstance(layer, str) else []
    remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it starts with one of {children(module)}"
    raise InvalidInputError(
        f"layer must be the name of a submodule of {type(module).__name__}, got {checks.shown(layer)}; {remedy}"
    )


def children(module: nn.Module) -> str:
    """Return the names of a module's children, for messages."""
    return ", ".join(repr(name) for name, _ in module.named_children()) or "(it has no parts)"


def _copied(output: Any) -> Any:
    """Return a copy of the tensor that is read of a layer's output, and another output as it is."""
    tensor = found_tensor(output)
    return output if tensor is None else tensor.clone()


def found_tensor(output: object) -> Tensor | None:
    """Return the tensor that is read of a layer's output, or None if there is none."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((part for part in parts if isinstance(part, Tensor)), None)


def tensor_of(output: object, label: str) -> Tensor:
    """Return the first tensor of a layer's output, as it is read. `label` names the layer."""
    return in_a_standard_type(plain(first_tensor(output, label), label))


def first_tensor(output: object, label: str) -> Tensor:
    """Return the first tensor of a layer's output as it is. InvalidInputError without any."""
    tensor = found_tensor(output)
    if tensor is None:
        raise InvalidInputError(f"{label} must give a tensor, or tensors in a tuple or mapping, got {type(output).__name__}")
    return tensor


def images_first(output: Tensor) -> Tensor:
    """Return [tokens, images, width] as [images, tokens, width], and other outputs as they are."""
    return output.transpose(0, 1) if output.ndim == 3 else output


def grid_like(n: int, size: Grid) -> Grid | None:
    """Return the grid of `n` tokens with the proportions of the image, or None if there is none."""
    rows = round(math.sqrt(n * size[0] / size[1]))
    if rows < 1 or n % rows:
        return None
    grid = rows, n // rows
    return grid if _likeness(grid, size) == 2 else None


def _likeness(grid: Grid, size: Grid) -> int:
    """Return 2 if a grid has exactly the proportions of an image, 1 if it has them up to rounding at one stride, else 0."""
    (rows, columns), (height, width) = grid, size
    if rows > height or columns > width:
        return 0
    if rows * width == columns * height:
        return 2
    smallest = max(height / (rows + 1), width / (columns + 1))
    largest = min(height / (rows - 1) if rows > 1 else math.inf, width / (columns - 1) if columns > 1 else math.inf)
    return int(smallest < largest)
