"""Properties of networks of DINO, DINOv2, DINOv3, MAE, open_clip and OpenAI's clip, as torch.hub and repositories give them.

Each function takes a network, the packages in which its class and the classes above it are defined, and the function that looks
at networks of timm. It returns None for a network that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from usae.torch._preprocessing import Cut, Preprocessing
from usae.torch._preset import CLIP, IMAGENET, Preset, as_pair_of

OfTimm = Callable[[Any], Preset]

OF_224_IN_256 = Cut("center", 224 / 256)
"""The usual cut of ImageNet: the shorter side becomes 256 pixels, of which the centre is taken."""

CUTS = {"shortest": Cut("center", 1.0), "squash": Cut("squash", 1.0), "longest": Cut("border", 1.0)}
"""Cuts by open_clip's names."""


def _dino(module: Any, libraries: set[str], _of_timm: OfTimm) -> Preset | None:
    names = {cls.__name__ for cls in type(module).__mro__}
    # DINO's own is in a file at the top of its repository. Others have one of this name too, so its own method has to be there.
    is_first = "vision_transformer" in libraries and "VisionTransformer" in names and hasattr(module, "get_last_selfattention")
    if not (is_first or "DinoVisionTransformer" in names) or not _is_transformer(module):
        return None
    # Registers are called storage tokens in DINOv3, and are added when the network runs in all three.
    registers = getattr(module, "num_register_tokens", getattr(module, "n_storage_tokens", 0))
    version = "dino" if is_first else "dinov3" if hasattr(module, "n_storage_tokens") else "dinov2"
    return _of_patches(module, version, 1 + int(registers))._replace(
        preprocessing=Preprocessing(
            *IMAGENET,
            as_pair_of(module.patch_embed.img_size),
            None if version == "dinov3" else "bicubic",
            OF_224_IN_256 if is_first else None,
        ),
        assumed=_published(version),
    )


def _mae(module: Any, libraries: set[str], of_timm: OfTimm) -> Preset | None:
    own = Preprocessing(*IMAGENET, None, "bicubic", OF_224_IN_256)
    if {"timm", "models_vit"} <= libraries:  # the encoder, for what comes after training
        preset = of_timm(module)
        said = preset.preprocessing
        return preset._replace(
            source="mae", preprocessing=said.or_else(own), assumed="" if said.mean and said.std else _published("mae")
        )
    if not is_mae(module) or not _is_transformer(module):
        return None
    return _of_patches(module, "mae", 1)._replace(
        preprocessing=own._replace(size=as_pair_of(module.patch_embed.img_size)), assumed=_published("mae")
    )


def is_mae(module: nn.Module) -> bool:
    """Whether it is MAE's network for training, which masks most patches."""
    return any(cls.__name__ == "MaskedAutoencoderViT" for cls in type(module).__mro__)


def _clip(module: Any, libraries: set[str], of_timm: OfTimm) -> Preset | None:
    """Networks of open_clip and clip, whole or their part for images."""
    if not libraries & {"open_clip", "clip"}:
        return None
    visual, path = (module.visual, "visual.") if isinstance(getattr(module, "visual", None), nn.Module) else (module, "")
    source = "open_clip" if "open_clip" in libraries else "clip"
    own, assumed = _clip_preprocessing(visual), "" if all(_said_scale(visual)) else _published(source)
    if isinstance(getattr(visual, "trunk", None), nn.Module):  # one of timm, within
        preset = of_timm(visual.trunk)
        layer = None if preset.layer is None else f"{path}trunk.{preset.layer}"
        return preset._replace(source=source, layer=layer, preprocessing=own.or_else(preset.preprocessing), assumed=assumed)
    if not isinstance(getattr(visual, "conv1", None), nn.Conv2d):
        return None
    preset = Preset(source, None, 0, None, own, visual.conv1.in_channels, assumed=assumed)
    if hasattr(visual, "layer4") and hasattr(visual, "attnpool"):
        return preset._replace(layer=f"{path}layer4")
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        return None
    # Blocks take tokens first where `batch_first` is False. Where there is none, the whole transformer does, as in clip.
    within = f"{path}transformer" if not hasattr(visual.transformer, "batch_first") else f"{path}transformer.resblocks"
    return preset._replace(
        layer=f"{path}transformer.resblocks.{len(blocks) - 1}",
        n_prefix_tokens=1,
        patch=as_pair_of(visual.conv1.kernel_size),
        tokens_first=() if getattr(visual.transformer, "batch_first", False) else (within,),
    )


def _clip_preprocessing(visual: Any) -> Preprocessing:
    said = getattr(visual, "preprocess_cfg", None) or {}
    size = getattr(visual, "image_size", None) or getattr(visual, "input_resolution", None) or said.get("size")
    mean, std = _said_scale(visual)
    return Preprocessing(
        mean or CLIP[0],
        std or CLIP[1],
        None if size is None else as_pair_of(size),
        said.get("interpolation") or "bicubic",
        CUTS.get(said.get("resize_mode") or "shortest"),
    )


def _said_scale(visual: Any) -> tuple[Any, Any]:
    """Return the mean and standard deviation that a part of open_clip says, or None for what it does not."""
    said = getattr(visual, "preprocess_cfg", None) or {}
    return said.get("mean") or getattr(visual, "image_mean", None), said.get("std") or getattr(visual, "image_std", None)


def _published(source: str) -> str:
    """Say whose scale it is that is taken where a network does not say its own."""
    return f"the published networks of {source}"


def _is_transformer(module: Any) -> bool:
    """Whether it has patches and blocks, as networks have that follow timm's."""
    return hasattr(getattr(module, "patch_embed", None), "patch_size") and isinstance(
        getattr(module, "blocks", None), (nn.ModuleList, nn.Sequential)
    )


def _of_patches(module: Any, source: str, n_prefix_tokens: int) -> Preset:
    convolution = next((part for part in module.patch_embed.modules() if isinstance(part, nn.Conv2d)), None)
    return Preset(
        source=source,
        layer=f"blocks.{len(module.blocks) - 1}",
        n_prefix_tokens=n_prefix_tokens,
        patch=as_pair_of(module.patch_embed.patch_size),
        channels=None if convolution is None else convolution.in_channels,
    )


KNOWN: tuple[Callable[[Any, set[str], OfTimm], Preset | None], ...] = (_dino, _mae, _clip)
