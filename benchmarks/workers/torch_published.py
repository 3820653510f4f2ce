"""Two implementations of the published recipe in PyTorch.

`plain` is written like the authors' code (and python/tests/reference/published.py): the criterion, with its AuxK, is called for
each decoded model. `tuned` computes the same parameters and loss as a careful user would: the auxiliary code and each
normalised dictionary once in a step, no gradients for dictionaries that are not updated, and PyTorch's fused AdamW.
"""

import platform

import numpy as np
import serving
import torch
from torch import nn

PENALTY, RATE, WEIGHT_DECAY, CLIP_NORM = 0.1, 3e-4, 1e-5, 1.0

trainings, batches = {}, {}


class Pair(nn.Module):
    """One model's encoder, Linear and BatchNorm, and its dictionary."""

    def __init__(self, width, n_concepts):
        super().__init__()
        self.linear = nn.Linear(width, n_concepts)
        self.norm = nn.BatchNorm1d(n_concepts)
        self.dictionary = nn.Parameter(torch.randn(n_concepts, width))

    def unit_dictionary(self):
        return self.dictionary / (torch.norm(self.dictionary, p=2, dim=1, keepdim=True) + 1e-8)

    def tensors(self):
        """Return the parameters by our names."""
        return {
            "encoder_weight": self.linear.weight, "encoder_bias": self.linear.bias, "bn_weight": self.norm.weight,
            "bn_bias": self.norm.bias, "bn_running_mean": self.norm.running_mean,
            "bn_running_var": self.norm.running_var, "dictionary": self.dictionary,
        }  # fmt: skip


def largest(pre, k):
    """Set all but the k largest elements of each row of `pre` to 0."""
    top = torch.topk(pre, k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


class Plain:
    """All pairs, their optimisers and a training step. The learning rate is constant, because a scheduler takes no time."""

    fused = False

    def __init__(self, widths, n_concepts, k, aux):
        torch.manual_seed(0)
        self.pairs = {j: Pair(width, n_concepts) for j, width in widths.items()}
        self.k, self.aux = k, aux
        self.optimizers = {
            j: torch.optim.AdamW(pair.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=self.fused)
            for j, pair in self.pairs.items()
        }

    def loss(self, batch, drawn):
        pair = self.pairs[drawn]
        pre = pair.norm(pair.linear(batch[drawn]))
        codes = largest(torch.relu(pre), self.k)
        total = 0.0
        for j, x in batch.items():
            residual = x - codes @ self.pairs[j].unit_dictionary()
            total = total + residual.abs().mean()
            if self.aux:
                auxiliary = largest(torch.relu(pre) - codes, pre.shape[1] // 2)
                total = total + PENALTY * (residual - auxiliary @ self.pairs[j].unit_dictionary()).abs().mean()
        return total

    def backward(self, batch, drawn):
        self.optimizers[drawn].zero_grad()
        loss = self.loss(batch, drawn)
        loss.backward()
        return loss.item()

    def update(self, drawn):
        for pair in self.pairs.values():
            nn.utils.clip_grad_norm_(pair.parameters(), CLIP_NORM)
        self.optimizers[drawn].step()


class Tuned(Plain):
    fused = True

    def loss(self, batch, drawn):
        pair = self.pairs[drawn]
        pre = torch.relu(pair.norm(pair.linear(batch[drawn])))
        codes = largest(pre, self.k)
        auxiliary = largest(pre - codes, pre.shape[1] // 2) if self.aux else None
        total = 0.0
        for j, x in batch.items():
            with torch.set_grad_enabled(j == drawn):
                dictionary = self.pairs[j].unit_dictionary()
            residual = x - codes @ dictionary
            total = total + residual.abs().mean()
            if self.aux:
                total = total + PENALTY * (residual - auxiliary @ dictionary).abs().mean()
        return total

    def update(self, drawn):
        nn.utils.clip_grad_norm_(self.pairs[drawn].parameters(), CLIP_NORM)
        self.optimizers[drawn].step()


def info():
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def set_threads(threads):
    torch.set_num_threads(threads)


def load_batch(name, files, start=0, stop=None):
    batches[name] = {j: torch.from_numpy(np.array(np.load(file, mmap_mode="r")[start:stop])) for j, file in files.items()}


def make(name, variant, widths, n_concepts, k, aux):
    trainings[name] = {"plain": Plain, "tuned": Tuned}[variant](widths, n_concepts, k, aux)


def drop(name):
    del trainings[name]


@torch.no_grad()
def set_parameters(name, files):
    for model, file in files.items():
        with np.load(file) as arrays:
            for key, tensor in trainings[name].pairs[model].tensors().items():
                tensor.copy_(torch.from_numpy(arrays[key]))


def step(name, batch, encoder, count=1):
    """Do steps on the batches in turn, given as one name or a list. Returns their seconds and losses."""
    names = [batch] if isinstance(batch, str) else batch
    losses, seconds = [], []

    def one(given):
        losses.append(trainings[name].backward(given, encoder))
        trainings[name].update(encoder)

    for number in range(count):
        given = batches[names[number % len(names)]]
        seconds += serving.timed(lambda given=given: one(given), 1)
    return {"seconds": seconds, "losses": losses}


def step_and_save(name, batch, encoder, file):
    """Do one step, and save the encoded model's gradients and its parameters after the step. Returns the loss."""
    training = trainings[name]
    loss = training.backward(batches[batch], encoder)
    tensors = training.pairs[encoder].tensors()
    gradients = {f"gradient_{key}": t.grad.numpy().copy() for key, t in tensors.items() if t.requires_grad}
    training.update(encoder)
    np.savez(file, **gradients, **{key: tensor.detach().numpy() for key, tensor in tensors.items()})
    return loss


if __name__ == "__main__":
    serving.serve({f.__name__: f for f in (info, set_threads, load_batch, make, drop, set_parameters, step, step_and_save)})
