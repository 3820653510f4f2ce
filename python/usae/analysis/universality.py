"""Which concepts of an `Evaluation` co-fire above a null, and what its summary says of universal ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from usae._base import checks
from usae.analysis import cofiring
from usae.analysis.nulls import CofireNull
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae.analysis.evaluation import Evaluation


def mask(
    evaluation: Evaluation,
    share: object = cofiring.UNIVERSAL_SHARE,
    entropy: object = cofiring.UNIVERSAL_ENTROPY,
    error_rate: object = cofiring.ERROR_RATE,
    null: CofireNull | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `Evaluation.universal`, and which concepts fire too seldom to be above the null if they always co-fired, bool [m].

    Concepts that are dead in a model are neither.
    """
    if len(evaluation.model_names) < 2:
        raise InvalidInputError(
            f"evaluation must be of at least two models for universal concepts, which all share, got one, "
            f"{evaluation.model_names[0]!r}; evaluate models that were trained together"
        )
    share, entropy = _proportion(share, "share"), _proportion(entropy, "entropy")
    rate = checks.as_float(error_rate)
    if not 0 < rate < 1:
        raise InvalidInputError(f"error_rate must be a number between 0 and 1, such as .05, got {checks.shown(error_rate)}")
    firing = np.asarray(evaluation.firing_counts)
    limit, expected = cofiring.log_limit(int((firing.min(0) > 0).sum()), rate), None
    if null is not None and (smallest := _checked(null, evaluation).smallest_log_p) is not None:
        limit, expected = _limit_of_images(smallest, null.n_draws, rate), null.expected
    observed, largest = (
        cofiring.log_cofire_p_values(firing, cofires, evaluation.n_tokens, expected)
        for cofires in (evaluation.cofire_counts, firing.min(0))
    )
    universal = (evaluation.firing_entropy >= entropy) & (evaluation.cofire_proportion >= share).all(0) & (observed <= limit)
    return universal, largest > limit


def _checked(null: object, evaluation: Evaluation) -> CofireNull:
    """Return a null of tokens or images permuted. (With concepts permuted some meet themselves, which is no chance.)"""
    if not isinstance(null, CofireNull):
        raise InvalidInputError(f"null must be a CofireNull from usae.controls, got {type(null).__name__}")
    if not np.array_equal(null.observed, evaluation.cofire_counts):
        raise InvalidInputError(
            "null must be of this evaluation, got one with other co-fires; run usae.controls on the same activations"
        )
    if null.permuted not in ("tokens", "images"):
        raise InvalidInputError(
            f"null must be of tokens or images permuted, got {null.permuted}; give usae.controls(...).images"
        )
    if null.permuted == "images" and null.smallest_log_p is None:
        raise InvalidInputError(
            "null must have smallest_log_p, got one of an earlier version, which has none; run usae.controls again"
        )
    return null


def _limit_of_images(smallest_log_p: np.ndarray, n_draws: int, error_rate: float) -> float:
    limit = cofiring.log_limit_of_draws(smallest_log_p, error_rate)
    if limit == -math.inf:
        raise InvalidInputError(
            f"null must have at least {math.ceil(1 / error_rate) - 1} draws for an error rate of {error_rate:g}, got "
            f"{n_draws}; give usae.controls a larger n_permutations"
        )
    return limit


def _proportion(value: object, name: str) -> float:
    number = checks.as_float(value)
    if not 0 <= number <= 1:
        raise InvalidInputError(f"{name} must be a number from 0 to 1, got {checks.shown(value)}")
    return number


def lines(evaluation: Evaluation) -> list[str]:
    """Return what a summary says of universal concepts: nothing for one model, which shares nothing."""
    if len(evaluation.model_names) < 2:
        return []
    return [
        f"{int(mask(evaluation)[0].sum()):,} concepts universal: firing entropy of {cofiring.UNIVERSAL_ENTROPY} or more, "
        f"co-firing above chance and in {cofiring.UNIVERSAL_SHARE:.0%} or more of each model's firing",
        *rare_lines(evaluation),
    ]


def rare_lines(evaluation: Evaluation) -> list[str]:
    """Return a line about the concepts that fire too seldom for the default null to say anything, if there are any."""
    rare, alive = int(mask(evaluation)[1].sum()), int((~evaluation.dead).all(0).sum())
    if not rare:
        return []
    return [f"{rare:,} of the {alive:,} concepts alive in all models fire in too few tokens to be told from chance"]
