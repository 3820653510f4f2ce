"""Properties of networks of timm, transformers and torchvision.

A network is recognised by the module in which its class is defined, so these libraries are never imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from usae.errors import InvalidInputError

Pair = tuple[int, int]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

NORMALIZED_BY_HALF = ("vit", "beit", "data2vec-vision")
"""`model_type` in transformers of networks whose published checkpoints take images in -1..1, as those of SigLIP do."""


class Preset(NamedTuple):
    """Properties of a network. Most are arguments of `usae.torch.Model`.

    Attributes
    ----------
    source : str
        Name of the library.
    patch : (int, int) or None
        Height and width of a patch in pixels, for networks whose tokens are patches of the image at every layer.
    """

    source: str = "plain module"
    layer: str | None = None
    n_prefix_tokens: int = 0
    patch: Pair | None = None
    size: Pair | None = None
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    channels_last: bool | None = None


def find_preset(module: nn.Module) -> Preset:
    """Find the properties of a module. A subclass of a known class is recognised too."""
    libraries = {cls.__module__.partition(".")[0] for cls in type(module).__mro__}
    if "timm" in libraries:
        return _timm(module)
    if "transformers" in libraries:
        return _transformers(module)
    if "torchvision" in libraries:
        return _torchvision(module)
    return Preset()


def _timm(module: Any) -> Preset:
    cfg = getattr(module, "pretrained_cfg", None) or {}
    patches: Any = getattr(module, "patch_embed", None)
    # The tokens of other networks, such as Swin, are patches at the first layer only.
    is_plain = hasattr(module, "num_prefix_tokens") and hasattr(patches, "patch_size")
    size = getattr(patches, "img_size", None) or cfg.get("input_size", (None,))[1:]
    stages = getattr(module, "feature_info", None) or [{}]
    layer = stages[-1].get("module")
    return Preset(
        source="timm",
        layer=layer if layer in dict(module.named_modules()) else None,
        n_prefix_tokens=module.num_prefix_tokens if is_plain else 0,
        patch=_pair(patches.patch_size) if is_plain else None,
        size=_pair(size) if size else None,
        mean=cfg.get("mean", IMAGENET[0]),
        std=cfg.get("std", IMAGENET[1]),
        channels_last=getattr(module, "output_fmt", None) == "NHWC" or None,
    )


def _transformers(module: Any) -> Preset:
    if getattr(module, "main_input_name", "pixel_values") != "pixel_values":
        part = next((name for name, _ in module.named_children() if "vision" in name), None)
        raise InvalidInputError(
            f"module must take images first, got {type(module).__name__}, which takes {module.main_input_name}; give its part "
            f"for pictures{f', .{part}' if part else ''}"
        )
    config = module.config
    is_plain = not hasattr(config, "depths") and getattr(config, "patch_size", None) is not None
    mean, std = _normalization(str(getattr(config, "model_type", "")))
    size = getattr(config, "image_size", None)
    return Preset(
        source="transformers",
        layer=_last_of_encoder(module),
        n_prefix_tokens=_n_prefix_tokens(module) if is_plain else 0,
        patch=_pair(config.patch_size) if is_plain else None,
        size=_pair(size) if size else None,
        mean=mean,
        std=std,
    )


def _last_of_encoder(module: Any) -> str | None:
    """Return the last layer of the encoder, which is the first ModuleList of the configured length. Its name varies."""
    depth = getattr(module.config, "num_hidden_layers", None) or len(getattr(module.config, "depths", ()))
    for name, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == depth > 0:
            return f"{name}.{depth - 1}"
    return None


def _n_prefix_tokens(module: Any) -> int:
    names = ("cls_token", "class_embedding", "distillation_token")
    of_class = sum(name.endswith(names) for name, _ in module.named_parameters())
    return of_class + getattr(module.config, "num_register_tokens", 0)


def _normalization(model_type: str) -> tuple[Sequence[float], Sequence[float]]:
    if model_type.startswith("clip"):
        return CLIP
    return HALF if model_type.startswith("siglip") or model_type in NORMALIZED_BY_HALF else IMAGENET


def _torchvision(module: Any) -> Preset:
    size = _pair(getattr(module, "image_size", 224))
    if hasattr(module, "class_token"):
        last = f"encoder.layers.{list(module.encoder.layers._modules)[-1]}"
        return Preset("torchvision", last, n_prefix_tokens=1, patch=_pair(module.patch_size), size=size)
    stages = [name for name, _ in module.named_children() if name in ("layer4", "features", "trunk_output")]
    is_swin = any(cls.__name__ == "SwinTransformer" for cls in type(module).__mro__)
    return Preset("torchvision", stages[-1] if stages else None, size=size, channels_last=is_swin or None)


def _pair(value: Any) -> Pair:
    """Return (height, width) from one integer or two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
