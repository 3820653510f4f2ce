"""A step that encodes several models, dense and differentiated by autograd: steps of one model each, and the agreement term."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from . import step as reference


@dataclass
class Step:
    """The steps of the encoded models, which have the same tokens and parameters; tensors keep their graph."""

    steps: dict  # {encoder: reference.Step}
    losses: dict  # {model: scalar} main loss, the mean over the encoders
    agreement: torch.Tensor  # before the weight
    loss: torch.Tensor


def term(steps, recipe, widths, prefix=None):
    """Mean over tokens and pairs of the squared differences at the prefix's concepts that one of the two selects."""
    scale = recipe.agreement_scale or sum(widths) / len(widths)
    parts = []
    for one, other in itertools.combinations(steps, 2):
        a, b = one.pre, other.pre
        if recipe.agreement_on == "codes":
            a, b = torch.where(one.chosen, a, 0), torch.where(other.chosen, b, 0)
        union = one.chosen | other.chosen
        union[:, prefix:] = False
        parts.append((torch.where(union, a - b, 0) ** 2).sum(1).mean() / scale)
    return sum(parts) / len(parts) if parts else torch.zeros((), dtype=torch.float64)


def forward(parameters, batch, encoders, recipe, k, dead, prefix=None, number=0, seed=0):
    """The loss of a step, for tensors, on the models of `batch`. `dead` {model: [m] bool}."""
    steps = {e: reference.forward(parameters, batch, e, recipe, k, dead[e], prefix, number, seed) for e in encoders}
    widths = [own["dictionary"].shape[1] for own in parameters.values()]  # of all models
    agreement = term(list(steps.values()), recipe, widths, prefix)
    losses = {j: sum(step.losses[j] for step in steps.values()) / len(steps) for j in batch}
    loss = sum(step.loss for step in steps.values()) / len(steps) + recipe.agreement * agreement
    return Step(steps, losses, agreement, loss)


def stepped_names(recipe, models, encoders):
    """{model: names of the tensors that a step changes}."""
    names = {j: ["dictionary"] for j in models if recipe.update == "all" or j in encoders}
    return names | {e: [*reference.encoder_names(recipe), "dictionary"] for e in encoders}


def gradients(parameters, batch, encoders, recipe, k, dead, prefix=None, number=0, seed=0):
    """The step and its raw gradients {model: {name: array}} in float64, for arrays."""
    tensors = reference.to_tensors(parameters, torch.float64)
    names = stepped_names(recipe, list(batch), encoders)
    for j, own in names.items():
        for name in own:
            tensors[j][name].requires_grad_()
    data = {j: torch.tensor(np.asarray(a), dtype=torch.float64) for j, a in batch.items()}
    dead = {j: torch.tensor(np.asarray(d)) for j, d in dead.items()}
    step = forward(tensors, data, encoders, recipe, k, dead, prefix, number, seed)
    step.loss.backward()
    return step, {j: {name: tensors[j][name].grad.numpy() for name in own} for j, own in names.items()}
