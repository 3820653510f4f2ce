"""Options that name networks."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usae.cli.options import Parser, add_device
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae.torch import Model

HELP = (
    "a network and its name in the autoencoder: NAME=timm:vit_base_patch16_224 or NAME=torchvision:resnet50 (pretrained), "
    "NAME=package.module:function (which returns a PyTorch module or a usae.torch.Model), or demo (the three networks of the "
    "demonstration)"
)


def add_to(parser: Parser) -> None:
    """Add --network, --layer and --device."""
    parser.option("--network", nargs="+", action="extend", required=True, metavar="NAME=SPEC", help=HELP)
    parser.option(
        "--layer", nargs="+", action="extend", default=[], metavar="NAME=LAYER", help="dotted name of the network's layer"
    )
    add_device(parser)


def load(options: argparse.Namespace) -> dict[str, Model]:
    """Return the models of --network."""
    return load_networks(options.network, pairs(options.layer, "--layer"), options.device)


def pairs(entries: Sequence[str], option: str) -> dict[str, str]:
    """Split entries NAME=VALUE. Each name may occur once."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals and value) or name in found:
            raise InvalidInputError(f"{option} must be NAME=VALUE with names that differ, got {entry!r}")
        found[name] = value
    return found


def load_networks(entries: Sequence[str], layers: Mapping[str, str], device: str | None = None) -> dict[str, Model]:
    """Return models by name, with the given layers, moved to `device` if one is given."""
    models = _models(entries, layers)
    if device is not None:
        try:
            from usae.torch._model_arguments import checked_device

            target = checked_device(device)
            for model in models.values():
                model.module.to(target)
        except Exception as error:  # PyTorch raises many kinds if it does not have the device
            reason = str(error).partition("\n")[0]
            raise InvalidInputError(
                f"--device must be one that PyTorch has here, such as cpu, got {device!r}: {reason}"
            ) from None
    return models


def _models(entries: Sequence[str], layers: Mapping[str, str]) -> dict[str, Model]:
    if "demo" in entries:
        from usae.demo.networks import load_models

        if len(entries) > 1 or layers:
            raise InvalidInputError(
                "--network must be demo alone, which brings its three networks and their layers, got more beside it"
            )
        return load_models()
    networks = pairs(entries, "--network")
    for name in layers:
        if name not in networks:
            raise InvalidInputError(f"--layer must be of one of the networks {', '.join(networks) or '(none)'}, got {name!r}")
    loaded: dict[str, Any] = {}
    return {name: _model(name, spec, layers.get(name), loaded) for name, spec in networks.items()}


def _model(name: str, spec: str, layer: str | None, loaded: dict[str, Any]) -> Model:
    """Return the model of a network. Pretrained ones are put into `loaded`, so that layers of one share it and its pass."""
    from usae.torch import Model

    source, colon, what = spec.partition(":")
    if not (source and colon and what):
        raise InvalidInputError(
            f"--network {name}: expected timm:..., torchvision:... or package.module:function, got {spec!r}"
        )
    if source in ("timm", "torchvision"):
        if spec not in loaded:
            loaded[spec] = _pretrained(name, source, what)
        module = loaded[spec]
    else:
        module = _made(name, source, what)
    if isinstance(module, Model):
        if layer is not None:
            raise InvalidInputError(
                f"--layer must be left out for {name!r}, got one although {spec} returns a usae.torch.Model, which has its own"
            )
        return module
    return Model(module.eval(), layer, **(_scale_of_weights(what) if source == "torchvision" else {}))


def _pretrained(name: str, source: str, what: str) -> Any:
    try:
        if source == "timm":
            return importlib.import_module("timm").create_model(what, pretrained=True)
        return importlib.import_module("torchvision.models").get_model(what, weights="DEFAULT")
    except ImportError as error:
        raise ImportError(f"--network {name} needs {source}: pip install {source} ({error})") from error
    except Exception as error:  # unknown names, downloads that fail and damaged files are all kinds of errors there
        raise InvalidInputError(
            f"--network {name} must be a network that {source} has and can load here, got {what!r}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _scale_of_weights(what: str) -> dict[str, Any]:
    """Return mean and standard deviation of the images of a network's weights in torchvision; none if these do not say them."""
    own = importlib.import_module("torchvision.models").get_model_weights(what).DEFAULT.transforms()
    return {name: getattr(own, name) for name in ("mean", "std")} if hasattr(own, "mean") and hasattr(own, "std") else {}


def _made(name: str, module: str, function: str) -> Any:
    from torch.nn import Module

    from usae.torch import Model

    try:
        made = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # it is the user's code, which may raise anything
        raise InvalidInputError(
            f"--network {name} must be a function that can be imported and called, got {module}:{function}: "
            f"{type(error).__name__}: {error}; python -c 'import {module}; {module}.{function}()' shows where"
        ) from error
    if not isinstance(made, (Module, Model)):
        raise InvalidInputError(
            f"--network {name} must be a function that makes a torch.nn.Module or usae.torch.Model, got {type(made).__name__} "
            f"from {module}:{function}"
        )
    return made
