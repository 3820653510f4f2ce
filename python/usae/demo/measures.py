"""What the three demo networks know about photographs they have not seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from usae.demo.networks import MaskedAutoencoder, to_tensor
from usae.demo.photographs import Photograph, crops


def held_out_measures(
    networks: Mapping[str, nn.Module], photographs: list[Photograph], *, n: int = 1000, seed: int = 0
) -> dict[str, float]:
    """One number for each network, on crops of the held-out regions; 1 is perfect.

    Parameters
    ----------
    networks : mapping of str to torch.nn.Module
        "classifier", "masked" and "contrastive", as from `usae.demo.networks.load_networks`.
    photographs : list of Photograph
        Those the networks were trained on, in the same order.
    n : int
        Number of held-out crops, and of the training crops that "contrastive" looks them up in.
    seed : int
        Of the crops and the masks.

    Returns
    -------
    dict of str to float
        "classifier": share of crops whose photograph is named; chance is 1 / len(photographs).
        "masked": share of the variance of the hidden patches' colours and edge directions that is filled in; guessing
        their mean would give 0.
        "contrastive": share of crops whose nearest training crop, by cosine of the embeddings, is of the same
        photograph; chance is 1 / len(photographs), but colours alone bring an untrained network to about 0.7.
    """
    unseen, seen = crops(photographs, "held_out", n, seed), crops(photographs, "train", n, seed)
    images, labels = to_tensor(unseen.images), torch.from_numpy(unseen.photograph)
    library, library_labels = to_tensor(seen.images), torch.from_numpy(seen.photograph)
    with torch.inference_mode():
        return {
            "classifier": _share_named(networks["classifier"], images, labels),
            "masked": _share_filled_in(networks["masked"], images, seed),
            "contrastive": _share_found(networks["contrastive"], images, labels, library, library_labels),
        }


def _share_named(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (classifier(images).argmax(1) == labels).double().mean().item()


def _share_filled_in(masked: nn.Module, images: Tensor, seed: int) -> float:
    order = np.random.default_rng(seed).random((len(images), MaskedAutoencoder.n_patches)).argsort(1)
    guess, truth = masked(images, torch.from_numpy(order))
    return 1 - ((guess - truth).square().sum() / (truth - truth.mean((0, 1))).square().sum()).item()


def _share_found(contrastive: nn.Module, images: Tensor, labels: Tensor, library: Tensor, library_labels: Tensor) -> float:
    nearest = (contrastive(images) @ contrastive(library).T).argmax(1)
    return (library_labels[nearest] == labels).double().mean().item()
