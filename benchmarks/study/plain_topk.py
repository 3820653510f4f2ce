"""A TopK autoencoder of one model as a careful user of PyTorch writes it, without anything that makes models agree."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import usae

BATCH = 2048
RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates that are tried."""

DECAY = 0.2
"""Share of the run, at its end, in which the learning rate falls to 0."""


def train(x: np.ndarray, n_concepts: int, k: int, rate: float, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Train on rows [n_tokens, width] and return parameters with the names that `UniversalSAE.set_parameters` takes.

    A code has the k largest positive pre-activations of each token. The loss is the mean squared error of standardised tokens,
    the optimiser Adam; dictionary rows have norm 1, and encoders start equal to them.
    """
    mean = x.mean(0, dtype=np.float64)
    scale = float(np.sqrt(np.square(x - mean).mean(dtype=np.float64)))
    generator = torch.Generator().manual_seed(seed)
    dictionary = F.normalize(torch.randn(n_concepts, x.shape[1], generator=generator))
    weight, bias = dictionary.clone(), torch.zeros(n_concepts)
    parameters = [each.requires_grad_() for each in (weight, bias, dictionary)]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (1 - step / steps) / DECAY))
    order = torch.randperm(len(x), generator=generator).numpy()
    for step in range(steps):
        rows = np.take(order, np.arange(step * BATCH, (step + 1) * BATCH), mode="wrap")
        tokens = torch.from_numpy(((x[rows] - mean) / scale).astype(np.float32))
        loss = F.mse_loss(_reconstruct(tokens, weight, bias, dictionary, k), tokens)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            dictionary.div_(dictionary.norm(dim=1, keepdim=True))
    found = {"encoder_weight": weight, "encoder_bias": bias, "dictionary": dictionary}
    space = {"mean": mean.astype(np.float32), "scale": np.full(x.shape[1], scale, np.float32)}
    return space | {name: tensor.detach().numpy() for name, tensor in found.items()}


def _reconstruct(tokens: Tensor, weight: Tensor, bias: Tensor, dictionary: Tensor, k: int) -> Tensor:
    values, concepts = F.linear(tokens, weight, bias).relu().topk(k, sorted=False)
    return F.embedding_bag(concepts, dictionary, per_sample_weights=values, mode="sum")


def beside_each_other(
    parameters: dict[str, dict[str, np.ndarray]], n_concepts: int, k: int, threads: int, recipe: usae.Recipe | None = None
) -> usae.UniversalSAE:
    """Return one object with the autoencoders of several models, for figures of each. No index is the same in two of them."""
    sae = usae.UniversalSAE(n_concepts, k, recipe=recipe, n_threads=threads)
    sae.initialize({name: own["dictionary"].shape[1] for name, own in parameters.items()})
    for name, own in parameters.items():
        sae.set_parameters(name, own)
    return sae
