"""The published recipe as one would write it with `torch.nn`: the architecture, its names and its training loop.

Modules carry the attribute names of the published code, so that `state_dict` has the keys of its checkpoints:
encoder.final_block.0.{weight,bias}, encoder.final_block.1.{weight,bias,running_mean,running_var,num_batches_tracked} and
dictionary._weights.
"""

import math

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


def cosine_with_warmup(optimizer, base, start, final, warmup_steps, total_steps):
    def factor(t):
        if t < warmup_steps:
            return (start + (base - start) * t / warmup_steps) / base
        progress = min((t - warmup_steps) / (total_steps - warmup_steps), 1)
        return (final + (base - final) * 0.5 * (1 + math.cos(math.pi * progress))) / base

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Training:
    """All pairs, their optimisers and their schedulers."""

    def __init__(self, saes, total_steps, warmup_steps, rate=3e-4, weight_decay=1e-5):
        self.saes = saes
        self.optimizers = {
            j: torch.optim.AdamW(sae.parameters(), lr=rate, weight_decay=weight_decay) for j, sae in saes.items()
        }
        self.schedulers = {
            j: cosine_with_warmup(optimizer, rate, 1e-6, 1e-6, warmup_steps, total_steps)
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
