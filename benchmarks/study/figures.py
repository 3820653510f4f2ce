"""The figures that are reported of a trained autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np

import usae
from study.worlds import World

ENERGETIC = 1000  # number of concepts with the largest energy over which co-firing is averaged, as in the paper


def figures(sae: usae.UniversalSAE, world: World) -> dict[str, float]:
    """Return numbers on held-out tokens, including those about true concepts if these are known."""
    evaluation = sae.evaluate(world.held_out)
    permuted = usae.controls(sae, world.held_out, include=("tokens",), progress=False).tokens
    assert permuted is not None
    result = of_evaluation(evaluation) | {"cofire, tokens permuted": float(permuted.proportion_mean.mean())}
    if world.truth is not None:
        score = usae.synthetic.score(sae, world.truth, world.tokens)
        result |= {
            "universal": score.universally_recovered,
            "dictionary": float(score.dictionary_recovered[score.shared].mean()),
            "code": float(score.code_recovered[score.shared].mean()),
            "private": float(score.recovered[score.private].mean()),
            "duplicates": score.duplicates,
            "AUROC": score.entropy_auroc,
        }
    return result


def of_evaluation(evaluation: usae.Evaluation) -> dict[str, float]:
    off = ~np.eye(len(evaluation.model_names), dtype=bool)
    with np.errstate(invalid="ignore"):
        return {
            "R2 same": float(np.diag(evaluation.r2).mean()),
            "R2 other": float(evaluation.r2[off].mean()),
            "cofire": float(evaluation.mean_cofire_proportion(ENERGETIC).mean()),
            "entropy >= .9": float(np.mean(evaluation.firing_entropy >= 0.9)),
            "dead": float(evaluation.dead_everywhere.mean()),
        }


def stability(runs: list[usae.UniversalSAE]) -> float:
    """Return the mean cosine of the first seed's dictionary rows with their matches in those of the other seeds."""
    first, *others = runs
    matched = [usae.consistency(first, {name: other.dictionary(name) for name in first.model_names_}) for other in others]
    return float(np.mean([[found[name].mean for name in first.model_names_] for found in matched]))


def nulls(sae: usae.UniversalSAE, world: World) -> dict[str, Any]:
    """Evaluate the same recipe trained on shuffled pairs, and before training, on real pairs."""
    controls = usae.controls(sae, world.held_out, train=world.train, include=("initial", "shuffled", "linear"), progress=False)
    assert controls.shuffled is not None and controls.initial is not None and controls.linear is not None
    off = ~np.eye(len(world.train), dtype=bool)
    return {
        "shuffled": of_evaluation(controls.shuffled.paired),
        "initial": of_evaluation(controls.initial),
        "ridge R2 other": float(controls.linear.r2[off].mean()),
    }
