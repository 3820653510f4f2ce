"""Checkpoints as the published code saves them, and what they compute."""

import copy

import numpy as np
import torch

from reference import problems

N_CONCEPTS, K = 60, 8
WIDTHS = {"siglip": 24, "dinov2": 13}
STATISTICS = {"siglip": (-0.0305, 2.2315), "dinov2": (0.0329, 2.4741)}  # of the published runs


def activations(n_tokens=100):
    random = np.random.default_rng(0)
    return {j: np.float32(random.normal(mean, std, (n_tokens, WIDTHS[j]))) for j, (mean, std) in STATISTICS.items()}


def training_checkpoint(pair, steps=2):
    """What the published code's `save_checkpoint` saves, optimiser state and a learning rate that is a tensor included."""
    optimizer = torch.optim.AdamW(pair.parameters(), lr=3e-4)
    rates = torch.linspace(1e-6, 3e-4, 10)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    for step in range(steps):
        pair.decode(pair.encode(torch.randn(16, pair.encoder.final_block[0].in_features))[1]).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = rates[step]
    pair.load_state_dict(before)
    rate = optimizer.param_groups[0]["lr"]
    state = {"model_state_dict": pair.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    return {"epoch": 29, **state, "learning_rate": rate}


def assert_same_function(sae, saes):
    """Codes and reconstructions equal the architecture's own, from every model to every model."""
    for i, x in activations().items():
        mean, std = STATISTICS[i]
        standard = (torch.from_numpy(x) - mean) / (std + 1e-5)
        with torch.no_grad():
            pre, codes = copy.deepcopy(saes[i]).double().encode(standard.double())
        found = sae.encode(x, i)
        # Rounding of d multiply-adds of terms near 1, times BatchNorm's gain of up to 1.5 / sqrt(0.1).
        bound = 4 * problems.UNIT * 24 * 10 * 5
        np.testing.assert_allclose(sae.preactivations(x, i), pre.numpy(), rtol=0, atol=bound)
        # torch.topk fills up with zeros where fewer than k codes are positive: only positive entries mean anything.
        np.testing.assert_allclose(found.to_dense(), codes.numpy(), rtol=0, atol=bound)
        assert (found.to_dense() > 0).sum() == (codes > 0).sum()
        for j, pair in saes.items():
            mean, std = STATISTICS[j]
            with torch.no_grad():
                expected = copy.deepcopy(pair).double().decode(codes).numpy() * (std + 1e-5) + mean
            np.testing.assert_allclose(sae.decode(found, j), expected, rtol=0, atol=10 * bound)
            np.testing.assert_allclose(sae.reconstruct(x, i, j), expected, rtol=0, atol=10 * bound)


def saved(saes, folder, content=training_checkpoint, suffix=".pth"):
    paths = {}
    for j, pair in saes.items():
        paths[j] = folder / f"uni_{j}_checkpoint_29{suffix}"
        torch.save(content(pair), paths[j])
    return paths
