"""The modules and names of an autoencoder's models, whether it is a `UniversalSAE` or an `Autoencoder`."""

from __future__ import annotations

import torch

from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Autoencoder, Decoder, Encoder


def modules_of(sae: UniversalSAE | Autoencoder, name: str, device: torch.device) -> tuple[Encoder, Decoder]:
    """Return encoder and decoder of a model on a device: copies without gradients, or those of an `Autoencoder`."""
    if isinstance(sae, Autoencoder):
        encoder, decoder = sae.encoder(name), sae.decoder(name)
        if encoder.weight.device != device:
            raise InvalidInputError(
                f"sae must be on the device of the network of {name!r}, {device}, got an Autoencoder on "
                f"{encoder.weight.device}; use sae.to({str(device)!r})"
            )
        return encoder, decoder
    with torch.inference_mode(False):  # so that gradients may pass through them, wherever they were made
        return (
            Encoder.from_sae(sae, name, device=device).requires_grad_(False),
            Decoder.from_sae(sae, name, device=device).requires_grad_(False),
        )


def names_of(sae: object) -> tuple[str, ...]:
    """Return the names of an autoencoder's models."""
    return sae.model_names if isinstance(sae, Autoencoder) else checked_sae(sae).model_names_
