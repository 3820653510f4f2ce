"""Masked autoencoders without their mask: all patches go through the encoder, in the order in which they lie in the image.

As they are, these networks drop most patches at random, and bring the others into a random order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from usae.torch._repositories import is_mae


class Unmasked(nn.Module):
    """Runs a masked autoencoder's encoder.

    Attributes
    ----------
    network : torch.nn.Module
        The masked autoencoder.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


def unmasked(network: nn.Module) -> nn.Module:
    """Return a module that runs the encoder of a masked autoencoder, and any other network as it is."""
    if is_mae(network):
        return _OfRepository(network)
    inside: Any = getattr(network, "vit", network)
    names = {cls.__name__ for cls in type(inside).__mro__ if cls.__module__.startswith("transformers.")}
    return _OfTransformers(inside) if "ViTMAEModel" in names else network


class _OfRepository(Unmasked):
    """Encoder of `MaskedAutoencoderViT`."""

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        tokens = _with_class_token(network.patch_embed(images), network.cls_token, network.pos_embed)
        for block in network.blocks:
            tokens = block(tokens)
        result: Tensor = network.norm(tokens)
        return result


class _OfTransformers(Unmasked):
    """`ViTMAEModel`."""

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        embeddings = network.embeddings
        tokens = _with_class_token(embeddings.patch_embeddings(images), embeddings.cls_token, embeddings.position_embeddings)
        if hasattr(network, "encoder"):  # transformers 4
            tokens = network.encoder(tokens)[0]
        else:
            for layer in network.layers:
                tokens = layer(tokens)
                tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        result: Tensor = network.layernorm(tokens)
        return result


def _with_class_token(patches: Tensor, class_token: Tensor, positions: Tensor) -> Tensor:
    first = (class_token + positions[:, :1]).expand(len(patches), -1, -1)
    return torch.cat((first, patches + positions[:, 1:]), 1)
