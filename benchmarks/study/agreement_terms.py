"""Terms of the loss that make codes of two models agree, in plain PyTorch.

Each takes the two encoders that a step teaches, and all that encode its batch: those two, then the other models' without a
gradient. It returns a sum over the tokens of the batch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch.nn import functional

import usae

LENGTH = usae.recipes.default().agreement_scale ** 0.5
"""What differences of codes are divided by, and squared differences by its square, so that all terms have weights below 10."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A batch of one model: pre-activations [n, m], its largest k of each token with their columns [n, k], and its support."""

    p: torch.Tensor
    values: torch.Tensor
    columns: torch.Tensor
    support: torch.Tensor  # bool [n, m]

    @classmethod
    def of(cls, p: torch.Tensor, k: int) -> Encoded:
        values, columns = torch.topk(p, k, dim=1)
        values = values.relu()
        return cls(p, values, columns, torch.zeros_like(p, dtype=torch.bool).scatter_(1, columns, values > 0))

    @property
    def code(self) -> torch.Tensor:
        """The code, dense [n, m], without a gradient."""
        return torch.where(self.support, self.p.detach(), 0)

    @property
    def threshold(self) -> torch.Tensor:
        """The smallest selected pre-activation of each token, [n, 1], without a gradient."""
        return self.values.detach()[:, -1:]


def _directions(taught: list[Encoded]) -> list[tuple[Encoded, Encoded]]:
    return list(itertools.permutations(taught, 2))


def _at(support: torch.Tensor) -> torch.Tensor:
    return support.flatten().nonzero().squeeze(1)


def _towards(taught: list[Encoded], target: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Return the squared differences from a target without a gradient, at `support` and what the encoder itself selected."""
    total = torch.zeros(())
    for one in taught:
        at = _at(support | one.support)
        total = total + (one.p.take(at) - target.take(at)).square().sum()
    return total / LENGTH**2


def squared(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """The engine's term."""
    a, b = taught
    at = _at(a.support | b.support)
    return (a.p.take(at) - b.p.take(at)).square().sum() / LENGTH**2


def squared_codes(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """The engine's term on codes: what an encoder did not select counts as 0 and is not taught."""
    a, b = taught
    at = _at(a.support | b.support)
    x, y = (torch.where(one.support.take(at), one.p.take(at), 0) for one in taught)
    return (x - y).square().sum() / LENGTH**2


def margin(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """How far concepts that one encoder selected are below the other's threshold."""
    total = torch.zeros(())
    for a, b in _directions(taught):
        at = _at(a.support & ~b.support)
        total = total + (b.threshold.flatten()[at // b.p.shape[1]] - b.p.take(at)).relu().sum()
    return total / LENGTH


def rank(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """ListNet: cross entropy of the softmax over concepts, with that of the other encoder as the truth."""
    return torch.stack([-(a.p.detach().softmax(1) * b.p.log_softmax(1)).sum() for a, b in _directions(taught)]).sum()


def consensus(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """Both are taught the mean of both codes."""
    return consensus_of_all(taught, taught)


def consensus_of_all(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """Both are taught the mean of all models' codes."""
    target = torch.stack([one.code for one in everyone]).mean(0)
    return _towards(taught, target, target > 0)


def joint_selection(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """Both are taught the code that the mean of all models' pre-activations has."""
    joint = Encoded.of(torch.stack([one.p.detach() for one in everyone]).mean(0), taught[0].values.shape[1])
    return _towards(taught, joint.code, joint.support)


def teachers(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """Each is taught the mean of all other models' pre-activations, at the union of all supports."""
    union = torch.stack([one.support for one in everyone]).any(0)
    total = torch.zeros(())
    for one in taught:
        target = torch.stack([other.p.detach() for other in everyone if other is not one]).mean(0)
        total = total + _towards([one], target, union)
    return total


def logistic(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """Logistic regression of whether one encoder selects a concept on how far it is above the other's threshold."""
    total = torch.zeros(())
    for a, b in _directions(taught):
        above = b.p - b.threshold
        total = total + functional.softplus(above).sum() - above.take(_at(a.support)).sum()
    return total / LENGTH


def info_nce(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """InfoNCE for each concept: in which of the batch's tokens one encoder selects it, by the other's pre-activations there."""
    total = torch.zeros(())
    for a, b in _directions(taught):
        at = _at(a.support)
        total = total - (a.p.detach().take(at) * b.p.log_softmax(0).take(at)).sum()
    return total / LENGTH**2


def correlation(taught: list[Encoded], everyone: list[Encoded]) -> torch.Tensor:
    """1 - the correlation over the batch's tokens, for each concept weighted by energy: what is measured, at the union."""
    a, b = taught
    n, m = a.p.shape
    at = _at(a.support | b.support)
    x, y = a.p.take(at), b.p.take(at)

    def sums(of: torch.Tensor) -> torch.Tensor:
        return torch.zeros(m).index_add(0, at % m, of)

    def covariance(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sums(u * v) - sums(u) * sums(v) / n

    xx, yy = covariance(x, x), covariance(y, y)
    energy = (xx + yy).detach()
    found = covariance(x, y) / (xx * yy + 1e-6).sqrt()
    return n * (energy * (1 - found)).sum() / energy.sum()


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss, summed over the tokens of a batch, and the weights with which it is trained."""

    loss: Callable[[list[Encoded], list[Encoded]], torch.Tensor]
    weights: tuple[float, ...]
    everyone: bool = False  # whether models that are not taught in the step encode the batch too


REFERENCE = "squared difference"
TERMS = {
    REFERENCE: Term(squared, (0.0, 0.02, 0.05, 0.15, 0.5, 1.5)),
    "squared difference of codes": Term(squared_codes, (0.05, 0.15, 0.5)),
    "margin": Term(margin, (0.01, 0.02, 0.05)),
    "rank": Term(rank, (0.03, 0.15, 0.75)),
    "consensus": Term(consensus, (0.05, 0.2, 0.8)),
    "consensus of all": Term(consensus_of_all, (0.05, 0.2, 0.8), everyone=True),
    "joint selection": Term(joint_selection, (0.02, 0.1, 0.5), everyone=True),
    "teachers": Term(teachers, (0.05, 0.2, 0.8), everyone=True),
    "logistic": Term(logistic, (0.005, 0.025, 0.125)),
    "InfoNCE": Term(info_nce, (0.1, 0.5, 2.0)),
    "correlation": Term(correlation, (0.02, 0.1, 0.5)),
}
