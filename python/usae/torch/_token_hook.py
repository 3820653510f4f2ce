"""Hooks by which a layer's tokens are replaced while the user runs the network, and which are gone afterwards."""

from __future__ import annotations

import contextlib
import operator
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from usae._base.warning import warn
from usae.errors import InvalidInputError
from usae.torch import _layer_output
from usae.torch._layer_output import Grid, Presence
from usae.torch._model import Model
from usae.torch._wrappers import everything_eager
from usae.torch._write_back import with_tokens

EditFunction = Callable[[Tensor, Grid | None], Tensor | None]
"""Function from tokens, [n_images, tokens, width], and their grid to those that take their place; None leaves the output."""


class _Key(weakref.ref[Presence]):
    """Key of a hook. It is there as long as the block, and in copies of the network another one takes its place."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _KeyOfCopy, ()


class _KeyOfCopy:
    """Key of a hook in a network that was copied or pickled within a block."""


class _Call:
    """A hook. Copies of the network, which the block does not know, get one that does nothing."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _CallOfCopy, ()


class _CallOfCopy:
    """A hook of a network that was copied or pickled within a block. It goes when the copy runs for the first time."""

    def __call__(self, module: Any, *_: object) -> None:
        for place in _places(module):
            for key in [key for key in place if isinstance(key, _KeyOfCopy)]:
                place.pop(key, None)


def _places(module: Any) -> tuple[Any, ...]:
    """Return where a module keeps hooks, and which of them are called with keywords, and always."""
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks_always_called,
    )


class _Hooks:
    """What is called when a network and one of its layers run."""

    def __init__(self, model: Model, edit: EditFunction):
        self.model = model
        self.n_edited = 0
        self._edit = edit
        self._thread = threading.get_ident()  # another thread may be using the same network
        self._is_within = self._is_done = False
        self._images: tuple[int, ...] | None = None

    def before_network(self, _network: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if threading.get_ident() == self._thread:
            self._is_within, self._is_done = True, False
            given = (each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.ndim == 4)
            self._images = next((tuple(each.shape) for each in given), None)

    def after_network(self, *_: object) -> None:
        if threading.get_ident() == self._thread:
            self._is_within, self._images = False, None

    def after_layer(self, _layer: object, _inputs: object, output: Any) -> Any:
        """Return the output with edited tokens: of the first call in a pass, as `Model` reads it. None: as it is."""
        if threading.get_ident() != self._thread or (self._is_within and self._is_done):
            return None
        self._is_done = True
        given = _layer_output.found_tensor(output)
        if given is not None and 0 in given.shape[:1]:  # a batch of no images
            self.n_edited += 1
            return None
        reader, images = self.model._reader, self._images
        n_images = images[0] if images else None
        size = (images[2], images[3]) if images else self.model.known_size
        tokens, grid = reader.read(output, n_images, size)
        edited = self._edit(tokens, grid)
        self.n_edited += 1
        return None if edited is None or edited is tokens else with_tokens(reader, output, edited, n_images, size)


def _remover(place: Any) -> Callable[[Any], object]:
    """Return a function that takes a key out, if it is there: tracebacks keep keys longer than dictionaries do."""
    return lambda key: place.pop(key, None)


@contextlib.contextmanager
def editing(edits: list[tuple[Model, EditFunction]], *, must_run: bool = True) -> Iterator[None]:
    """Replace tokens of layers whenever this thread runs their networks. Afterwards no hook is left, whatever happens.

    Compiled networks run as plain Python meanwhile, because compiled code does not call hooks that came after it. `must_run`
    says whether a warning tells of a layer that has not run.
    """
    for model, _ in edits:
        if any(isinstance(part, torch.jit.ScriptModule) for part in (model.module, model._layer)):
            raise InvalidInputError(
                f"module must be a module of Python, whose layers call hooks, got {type(model.module).__name__} of "
                f"TorchScript; give the network before it was scripted"
            )
    hooks = [_Hooks(model, edit) for model, edit in edits]
    # As in `run_to`, a single call of C puts everything in and a single one takes it out, so that Ctrl-C cannot come between,
    # and what a second Ctrl-C would leave goes with the presences.
    keys: list[Any] = []
    presences = [[Presence() for _ in range(3)] for _ in hooks]
    places: list[Any] = []
    values: list[Any] = []
    for each, own in zip(hooks, presences, strict=True):
        network, layer = each.model.module, each.model._layer
        entries: list[tuple[Any, Any, Presence]] = [
            (layer._forward_hooks, _Call(each.after_layer), own[0]),
            (network._forward_pre_hooks, _Call(each.before_network), own[1]),
            (network._forward_pre_hooks_with_kwargs, True, own[1]),
            (network._forward_hooks, _Call(each.after_network), own[2]),
            (network._forward_hooks_always_called, True, own[2]),
        ]
        places += [place for place, _, _ in entries]
        values += [value for _, value, _ in entries]
        keys += [_Key(presence, _remover(place)) for place, _, presence in entries]
        _layer_output.told_of_ends.add(each)
    removers = [place.pop for place in places]
    try:
        deque(map(operator.setitem, places, keys, values), maxlen=0)
        with everything_eager():
            yield
    finally:
        deque(map(operator.call, removers, keys, repeat(None)), maxlen=0)
    for each in hooks if must_run else []:
        if not each.n_edited:
            warn(
                f"{each.model._label} did not run while its tokens were to be edited, so nothing was; run the network itself, "
                f"in this thread, and as a module of Python"
            )
