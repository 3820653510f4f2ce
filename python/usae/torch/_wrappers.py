"""Networks inside of modules that only wrap them, such as `torch.nn.DataParallel` and what `torch.compile` returns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn


class Wrapper(NamedTuple):
    """A class that wraps a network.

    Attributes
    ----------
    library : str
        The package that defines the class.
    name : str
        Name of the class, or its beginning.
    inside : str
        Dotted name of the network inside of it.
    runs_inside : bool
        Whether the network inside gives the same without its wrapper.
    """

    library: str
    name: str
    inside: str
    runs_inside: bool = True


WRAPPERS = (
    Wrapper("torch", "DataParallel", "module"),
    Wrapper("torch", "DistributedDataParallel", "module"),
    Wrapper("torch", "OptimizedModule", "_orig_mod"),
    Wrapper("torch", "AveragedModel", "module"),
    Wrapper("torch", "FullyShardedDataParallel", "_fsdp_wrapped_module", runs_inside=False),  # it gathers the parameters
    Wrapper("timm", "ModelEma", "module"),
    Wrapper("transformers", "TimmWrapper", "timm_model"),
    Wrapper("transformers", "TimmBackbone", "_backbone"),
    Wrapper("peft", "PeftModel", "base_model.model"),
    Wrapper("lightning", "_FabricModule", "_original_module"),
    Wrapper("deepspeed", "DeepSpeedEngine", "module"),
)


class Unwrapped(NamedTuple):
    """The network inside of a module, and the module that runs it; these are one unless the wrapper is needed."""

    network: nn.Module
    runner: nn.Module


def unwrapped(module: nn.Module) -> Unwrapped:
    """Find the network inside of known wrappers, however many there are."""
    network, runner = module, module
    while (wrapper := _wrapper_of(network)) is not None:
        inside = _inside(network, wrapper.inside)
        if inside is None:
            break
        if runner is network and wrapper.runs_inside:
            runner = inside
        network = inside
    return Unwrapped(network, runner)


def without_wrapper(layer: str, module: nn.Module, network: nn.Module) -> str:
    """Return a layer's name in `network` where it is its name in the wrapper `module`; any other name as it is."""
    if module is network:
        return layer
    names = dict(network.named_modules(remove_duplicate=False))
    if layer in names:
        return layer
    wanted = dict(module.named_modules(remove_duplicate=False)).get(layer)
    return next((name for name, part in names.items() if part is wanted), layer)


@contextlib.contextmanager
def eager(module: nn.Module) -> Iterator[None]:
    """Run what is compiled in a module as plain Python, in which hooks run. Nothing is done for one without such parts."""
    with everything_eager() if is_compiled(module) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def everything_eager() -> Iterator[None]:
    """Run all that is compiled as plain Python, also a network that is compiled around the module that one knows."""
    set_stance: Any = getattr(torch.compiler, "set_stance", None)  # PyTorch 2.6
    with set_stance("force_eager") if set_stance is not None and "torch._dynamo" in sys.modules else contextlib.nullcontext():
        yield


def is_compiled(module: nn.Module) -> bool:
    """Whether a module, a part of it or a method of one is compiled."""
    parts = list(module.modules())
    kinds = {cls for part in parts for cls in type(part).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module}
    return any(map(_is_compiled, parts)) or any(map(_has_compiled, kinds)) or any(map(_has_compiled, parts))


def _is_compiled(part: nn.Module) -> bool:
    return getattr(part, "_compiled_call_impl", None) is not None


def _has_compiled(owner: Any) -> bool:
    """Whether a module or a class of them has a function in its place that `torch.compile` returned."""
    values = list(vars(owner).values())
    return any("_torchdynamo_orig_callable" in getattr(value, "__dict__", ()) for value in values if callable(value))


def _wrapper_of(module: nn.Module) -> Wrapper | None:
    for cls in type(module).__mro__:
        library = cls.__module__.partition(".")[0]
        for wrapper in WRAPPERS:
            # Lightning's packages are lightning, lightning_fabric and pytorch_lightning.
            if wrapper.library in library and cls.__name__.startswith(wrapper.name):
                return wrapper
    return None


def _inside(module: Any, names: str) -> nn.Module | None:
    for name in names.split("."):
        module = getattr(module, name, None)
    return module if isinstance(module, nn.Module) else None
