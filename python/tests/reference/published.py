"""The published recipe as one would write it with `torch.nn`: the architecture, its names and its training loop.

Modules carry the attribute names of the published code, so that `state_dict` has the keys of its checkpoints:
encoder.final_block.0.{weight,bias}, encoder.final_block.1.{weight,bias,running_mean,running_var,num_batches_tracked} and
dictionary._weights.
"""

import numpy as np
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, width, n_concepts):
        super().__init__()
        self.final_block = nn.Sequential(nn.Linear(width, n_concepts), nn.BatchNorm1d(n_concepts))

    def forward(self, x):
        return self.final_block(x)


class Dictionary(nn.Module):
    def __init__(self, width, n_concepts):
        super().__init__()
        self._weights = nn.Parameter(torch.randn(n_concepts, width))

    def get(self):
        return self._weights / (torch.norm(self._weights, p=2, dim=1, keepdim=True) + 1e-8)


class TopKSAE(nn.Module):
    """One model's encoder and dictionary."""

    def __init__(self, width, n_concepts, k):
        super().__init__()
        self.k = k
        self.encoder = Encoder(width, n_concepts)
        self.dictionary = Dictionary(width, n_concepts)

    def encode(self, x):
        """Pre-codes and codes, both [N, n_concepts]."""
        pre = self.encoder(x)
        top = torch.topk(torch.relu(pre), self.k, dim=-1)
        return pre, torch.zeros_like(pre).scatter(-1, top.indices, top.values)

    def decode(self, codes):
        return codes @ self.dictionary.get()


def l1_with_auxk(x, x_hat, pre, codes, dictionary, penalty=0.1):
    residual = x - x_hat
    unchosen = torch.relu(pre) - codes
    top = torch.topk(unchosen, k=unchosen.shape[1] // 2, dim=1)
    auxiliary = torch.zeros_like(codes).scatter(-1, top.indices, top.values)
    return residual.abs().mean() + penalty * (residual - auxiliary @ dictionary).abs().mean()


class CosineScheduler:
    """Sets the rate of an optimiser after each step, from a table of all steps, of which the first entry is never used."""

    def __init__(self, optimizer, base, start, final, warmup_steps, total_steps):
        decay = np.arange(total_steps - warmup_steps) / (total_steps - warmup_steps)
        cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * decay))
        self.rates = np.concatenate([np.linspace(start, base, warmup_steps), cosine])
        self.optimizer, self.final, self.step_count = optimizer, final, 0

    def step(self):
        self.step_count += 1
        done = self.step_count >= len(self.rates)
        for group in self.optimizer.param_groups:
            group["lr"] = self.final if done else float(self.rates[self.step_count])


class Training:
    """All pairs, their optimisers and their schedulers."""

    def __init__(self, saes, total_steps, warmup_steps, rate=3e-4, weight_decay=1e-5):
        self.saes = saes
        self.optimizers = {
            j: torch.optim.AdamW(sae.parameters(), lr=rate, weight_decay=weight_decay) for j, sae in saes.items()
        }
        self.schedulers = {
            j: CosineScheduler(optimizer, rate, 1e-6, 1e-6, warmup_steps, total_steps)
            for j, optimizer in self.optimizers.items()
        }

    def step(self, batch, drawn):
        """One step on standardised tensors {model: [N, d]}; its loss."""
        self.optimizers[drawn].zero_grad()
        pre, codes = self.saes[drawn].encode(batch[drawn])
        loss = 0.0
        for j, sae in self.saes.items():
            loss = loss + l1_with_auxk(batch[j], sae.decode(codes), pre, codes, sae.dictionary.get())
        loss.backward()
        for sae in self.saes.values():
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizers[drawn].step()
        self.schedulers[drawn].step()
        return loss.item()


def to_parameters(sae):
    """The trainable and running tensors of one pair under the names of `sae.set_parameters`."""
    linear, norm = sae.encoder.final_block[:2]
    tensors = {
        "encoder_weight": linear.weight, "encoder_bias": linear.bias, "bn_weight": norm.weight, "bn_bias": norm.bias,
        "bn_running_mean": norm.running_mean, "bn_running_var": norm.running_var, "dictionary": sae.dictionary._weights,
    }  # fmt: skip
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
