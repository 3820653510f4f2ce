"""The concepts that the demonstration shows, and the crops that fire them most."""

from __future__ import annotations

import dataclasses

import numpy as np

from usae import Codes, Evaluation
from usae.demo.photographs import Crops


@dataclasses.dataclass(frozen=True)
class Example:
    """A crop that fires a concept in one network.

    Attributes
    ----------
    crop : int
        Number of the crop.
    heat : ndarray of float32, [grid, grid]
        The concept's code at each token of the crop.
    """

    crop: int
    heat: np.ndarray


def universal_concepts(evaluation: Evaluation, n: int) -> list[int]:
    """Return the `n` universal concepts with the largest energy, the largest first.

    Energy is the geometric mean over the networks, so that a concept must be important in all of them.
    """
    universal = evaluation.universal()
    with np.errstate(divide="ignore"):
        importance = np.where(universal, np.log(evaluation.energy).mean(0), -np.inf)
    order = np.argsort(-importance, kind="stable")
    return [int(concept) for concept in order[:n] if universal[concept]]


def examples(codes: Codes, crops: Crops, concept: int, n: int, grid: int) -> list[Example]:
    """Return the crops with the largest sum of a concept's codes over their tokens. They hardly overlap in a photograph.

    Parameters
    ----------
    codes : Codes
        Codes of all tokens, crop by crop, with grid * grid tokens each.
    n : int
        Largest number of examples. Crops that do not fire the concept are no examples.
    """
    heat = np.where(codes.indices == concept, codes.values, 0).sum(1).reshape(-1, grid, grid)
    strength = heat.sum((1, 2))
    chosen: list[int] = []
    for crop in np.argsort(-strength, kind="stable"):
        if len(chosen) == n or strength[crop] <= 0:
            break
        if all(_overlap(crops, int(crop), other) < 0.2 for other in chosen):
            chosen.append(int(crop))
    return [Example(crop, heat[crop]) for crop in chosen]


def photograph_shares(codes: Codes, crops: Crops, concept: int, grid: int) -> dict[int, float]:
    """Return each photograph's share of the sum of a concept's codes, largest first."""
    strength = np.where(codes.indices == concept, codes.values, 0).sum(1).reshape(-1, grid * grid).sum(1)
    totals = np.bincount(crops.photograph, weights=strength)
    order = np.argsort(-totals, kind="stable")
    whole = totals.sum()
    return {int(i): float(totals[i] / whole) for i in order if totals[i] > 0}


def _overlap(crops: Crops, a: int, b: int) -> float:
    """Return the intersection over union of two crops' boxes. 0 if they are in different photographs."""
    if crops.photograph[a] != crops.photograph[b]:
        return 0.0
    top, left = np.maximum(crops.boxes[a][:2], crops.boxes[b][:2])
    bottom, right = np.minimum(crops.boxes[a][2:], crops.boxes[b][2:])
    shared = max(0, int(bottom - top)) * max(0, int(right - left))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (crops.boxes[a], crops.boxes[b])]
    return float(shared / (sum(areas) - shared))
