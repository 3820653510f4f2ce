"""Properties of networks of timm, transformers and torchvision, and of the repositories in `_repositories`.

A network is recognised by the module in which its class is defined, so these libraries are never imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from usae.errors import InvalidInputError
from usae.torch import _repositories
from usae.torch._preprocessing import Preprocessing
from usae.torch._preset import CLIP, HALF, IMAGENET, NONE, Preset, Scale, as_pair_of
from usae.torch._transforms import checked, of_timm

SCALES: dict[str, Scale] = {
    **dict.fromkeys(
        ("conditional_detr", "convnext", "convnextv2", "cvt", "deformable_detr", "deit", "depth_anything", "detr", "dinat")
        + ("dinov2", "dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "eomt", "focalnet", "hiera", "ijepa", "levit")
        + ("lw_detr", "mask2former", "maskformer", "oneformer", "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "rf_detr")
        + ("sam", "sam2", "sam_hq", "sapiens2", "segformer", "swin", "swinv2", "table-transformer", "upernet", "van", "vit_mae")
        + ("vit_msn", "vitpose", "yolos"),
        IMAGENET,
    ),
    **dict.fromkeys(
        ("aimv2", "altclip", "blip", "blip-2", "blip_2", "chinese_clip", "clip", "git", "instructblip", "metaclip_2", "mlcd")
        + ("owlv2", "owlvit"),
        CLIP,
    ),
    **dict.fromkeys(("beit", "data2vec-vision", "dpt", "mobilenet_v1", "mobilenet_v2", "siglip", "siglip2", "vit"), HALF),
    **dict.fromkeys(("d_fine", "rt_detr", "rt_detr_v2"), NONE),
}
"""Mean and standard deviation of the published checkpoints, by `model_type` in transformers without "_vision" and "_model".

A module of transformers does not have its processor. What is not in this list has to be given.
"""


def find_preset(module: nn.Module) -> Preset:
    """Find the properties of a module. A subclass of a known class is recognised too."""
    libraries = {cls.__module__.partition(".")[0] for cls in type(module).__mro__}
    for recognise in _repositories.KNOWN:
        if (preset := _tried(recognise, module, libraries, _timm)) is not None:
            return preset
    for library, find in (("timm", _timm), ("transformers", _transformers), ("torchvision", _torchvision)):
        if library in libraries:
            return _tried(find, module) or Preset(library)
    return Preset()


def _tried(find: Callable[..., Preset | None], *arguments: Any) -> Preset | None:
    """Return what is found; None for a part of a network, or one that a user made of its parts, of which nothing is known."""
    try:
        return find(*arguments)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        if isinstance(error, InvalidInputError):
            raise
        return None


def _timm(module: Any) -> Preset:
    cfg = getattr(module, "pretrained_cfg", None) or {}
    patches: Any = getattr(module, "patch_embed", None)
    # The tokens of other networks, such as Swin, are patches at the first layer only.
    is_plain = hasattr(module, "num_prefix_tokens") and hasattr(patches, "patch_size")
    own = _of_config(cfg)
    size = getattr(patches, "img_size", None) or own.size
    stages = getattr(module, "feature_info", None) or [{}]
    layer = stages[-1].get("module") if isinstance(stages, (list, tuple)) else None
    return Preset(
        source="timm",
        layer=layer if layer in dict(module.named_modules()) else None,
        n_prefix_tokens=module.num_prefix_tokens if is_plain else 0,
        patch=as_pair_of(patches.patch_size) if is_plain else None,
        preprocessing=own._replace(size=as_pair_of(size) if size else None),
        channels=_channels_of_first_convolution(module),
        channels_last=getattr(module, "output_fmt", None) == "NHWC" or None,
    )


def _of_config(cfg: Any) -> Preprocessing:
    """Return what a network of timm says of its images; nothing if that cannot be read."""
    try:
        return checked(of_timm(cfg))
    except (TypeError, ValueError, IndexError, AttributeError):
        return Preprocessing()


def _transformers(module: Any) -> Preset:
    if getattr(module, "main_input_name", "pixel_values") != "pixel_values":
        part = next((name for name, _ in module.named_children() if "vision" in name), None)
        raise InvalidInputError(
            f"module must take images first, got {type(module).__name__}, which takes {module.main_input_name}; give its part "
            f"for pictures{f', .{part}' if part else ''}"
        )
    config = getattr(module, "config", None)
    if config is None:  # a part of a network
        return Preset("transformers")
    is_plain = not hasattr(config, "depths") and getattr(config, "patch_size", None) is not None
    mean, std = _scale_of(config)
    size = getattr(config, "image_size", None)
    return Preset(
        source="transformers",
        layer=_last_of_encoder(module),
        n_prefix_tokens=_n_prefix_tokens(module) if is_plain else 0,
        patch=as_pair_of(config.patch_size) if is_plain else None,
        preprocessing=Preprocessing(mean, std, as_pair_of(size) if size else None),
        channels=getattr(config, "num_channels", None),
        assumed="" if mean is None else f"the published networks of model_type {config.model_type!r} in transformers",
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


def _scale_of(config: Any) -> Scale | tuple[None, None]:
    """Return mean and standard deviation of the images of a network of transformers, or None for both if not known."""
    kind = str(getattr(config, "model_type", "")).removesuffix("_model").removesuffix("_vision")
    backbone = getattr(config, "backbone_config", None)
    if kind == "dpt" and backbone is not None:  # those on DINOv2 take its images, those on BiT theirs
        return _scale_of(backbone)
    return SCALES.get(kind, (None, None))


def _torchvision(module: Any) -> Preset:
    mean, std = HALF if _is_efficientnet_v2_l(module) else IMAGENET
    assumed = "torchvision's published networks"
    if hasattr(getattr(module, "transform", None), "image_mean"):  # networks for detection normalise their images
        (mean, std), assumed = NONE, ""
    own = Preprocessing(mean, std, as_pair_of(getattr(module, "image_size", 224)))
    channels = _channels_of_first_convolution(module)
    if hasattr(module, "class_token"):
        last = f"encoder.layers.{list(module.encoder.layers._modules)[-1]}"
        return Preset("torchvision", last, 1, as_pair_of(module.patch_size), own, channels, assumed=assumed)
    stages = [name for name, _ in module.named_children() if name in ("layer4", "features", "trunk_output")]
    is_swin = any(cls.__name__ == "SwinTransformer" for cls in type(module).__mro__)
    return Preset("torchvision", stages[-1] if stages else None, 0, None, own, channels, is_swin or None, assumed=assumed)


def _is_efficientnet_v2_l(module: nn.Module) -> bool:
    """Whether it is the one of torchvision's networks for classification whose weights take images in -1..1."""
    widths = [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    names = {type(part).__name__ for part in module.modules()}
    return type(module).__name__ == "EfficientNet" and "FusedMBConv" in names and widths[0] == 32


def _channels_of_first_convolution(module: nn.Module) -> int | None:
    """Return how many channels the images of a network have. In timm and torchvision its first convolution takes them."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return None if first is None else first.in_channels
