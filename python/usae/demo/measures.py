"""Held-out performance of the three networks of the demonstration."""

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
    """Measure the performance of each network, from 0 to 1, on crops of the held-out regions.

    Parameters
    ----------
    networks : mapping of str to torch.nn.Module
        "classifier", "masked" and "contrastive", as `usae.demo.networks.load_networks` returns them.
    photographs : list of Photograph
        The photographs on which the networks were trained, in the same order.
    n : int
        Number of held-out crops, and of the training crops among which "contrastive" searches. Default: 1000.
    seed : int
        Seed of the crops and the masks. Default: 0.

    Returns
    -------
    dict of str to float
        "classifier": accuracy, the share of crops whose photograph is recognised. Chance is 1 / len(photographs).
        "masked": R2 of the predicted colours and edge directions of hidden patches. Predicting their mean gives 0.
        "contrastive": share of crops whose nearest training crop, by cosine of the embeddings, is of the same photograph.
        Chance is 1 / len(photographs), but an untrained network reaches about 0.7 by colours alone.
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
