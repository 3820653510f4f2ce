"""Resolving a recipe: filling in the fields that depend on the data, and choosing those that the core takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from usae import recipes
from usae._base import checks
from usae._data.part_order import cards_of
from usae.errors import InvalidInputError
from usae.recipes import Recipe

MINIMUM_STEPS = 1000
"""Smallest number of steps of a `fit` without epochs and steps."""

MAXIMUM_STEPS = 2**36
"""Largest number of steps. With the largest batch, 2**24, the core can still count the rows."""

DEAD_TOKENS_WITHOUT_PLAN = 1_000_000
"""Value of `dead_tokens` if neither it nor the number of steps is known."""


LEARNING_RATE = 7e-3
"""Largest derived learning rate."""

LEARNING_RATE_OF_MEAN = 5e-3
"""The same with the mean loss over all prefixes, each step of which has the gradients of all."""

STEP_LIMIT = 0.15
"""`Recipe.step_limit` of derived learning rates. Measured: docs/recipes.md."""


Sizes = Sequence[tuple[int, int]]
"""Numbers of models and of rows of each part of the activations."""


def resolved_for_fit(
    recipe: Recipe,
    n_models: int,
    sizes: Sizes,
    epochs: float | None,
    steps: int | None,
    shares: Sequence[float] | None = None,
) -> Recipe:
    """Return the recipe with every field filled in that depends on the data.

    `shares` are those that the parts have of the steps. Default: None, which goes by their rows.

    Raises
    ------
    InvalidInputError
        If epochs or steps are no positive numbers, or if they contradict each other or the recipe.
    """
    batch_size = min(recipe.batch_size, max(n_tokens * n_encoders(recipe, models) for models, n_tokens in sizes))
    batches = part_batches(recipe.replace(batch_size=batch_size), sizes)
    steps_per_epoch = sum(batches)
    asked = asked_steps(steps_per_epoch, epochs, steps)
    planned = recipe.total_steps
    if planned is None:
        total = asked or max(steps_per_epoch, MINIMUM_STEPS)
        recipe = recipe.replace(total_steps=total, warmup_steps=min(recipe.warmup_steps, total // 10))
    elif asked not in (None, planned):
        raise InvalidInputError(
            f"steps must equal recipe.total_steps = {planned}, got {asked}; give only one of them, or use "
            f"recipe.replace(total_steps=None)"
        )
    recipe = recipe.replace(batch_size=batch_size)
    encodings = None
    if len(sizes) > 1:
        cards = cards_of(batches, shares)
        tokens = part_tokens(recipe, sizes)
        each = [own * n_encoders(recipe, models) for own, (models, _) in zip(tokens, sizes, strict=True)]
        encodings = sum(own * n for own, n in zip(each, cards, strict=True)) / sum(cards)
    return resolved(recipe, n_models, encodings)


def resolved(recipe: Recipe, n_models: int, encodings: float | None = None) -> Recipe:
    """Return the recipe with the learning rate, `dead_tokens` and, where nothing says more, an input noise of 0 filled in.

    `encodings` are those of a step. Default: None, which takes `batch_size`.
    """
    if recipe.learning_rate is None:
        recipe = with_derived_rate(recipe)
    if recipe.input_noise is None:
        recipe = recipe.replace(input_noise=0.0)
    if recipe.dead_tokens is not None:
        return recipe
    if recipe.total_steps is None:
        return recipe.replace(dead_tokens=DEAD_TOKENS_WITHOUT_PLAN)
    # The expected number of tokens that one model encodes.
    planned_tokens = recipe.total_steps * (recipe.batch_size if encodings is None else encodings) / n_models
    return recipe.replace(dead_tokens=max(1, min(round(recipe.dead_share * planned_tokens), 2**53)))


def with_derived_rate(recipe: Recipe, factor: float = 1.0) -> Recipe:
    """Return the recipe with the largest learning rate that is derived, and its limit unless it has one, times a factor."""
    rate = LEARNING_RATE_OF_MEAN if recipe.prefix_loss == "mean" and recipe.prefixes is not None else LEARNING_RATE
    return recipe.replace(learning_rate=factor * rate, step_limit=recipe.step_limit or factor * STEP_LIMIT)


def n_encoders(recipe: Recipe, n_models: int) -> int:
    """Return how many models a step encodes."""
    return {"one": 1, "two": min(2, n_models), "all": n_models}[recipe.encoded_models]


def step_tokens(recipe: Recipe, n_models: int) -> int:
    """Return the number of tokens of a step, each of which several models may encode."""
    return max(1, recipe.batch_size // n_encoders(recipe, n_models))


def part_tokens(recipe: Recipe, sizes: Sizes) -> list[int]:
    """Return the number of tokens of a step on each part: all rows of the part, if there are fewer."""
    return [min(n_tokens, step_tokens(recipe, n_models)) for n_models, n_tokens in sizes]


def part_batches(recipe: Recipe, sizes: Sizes) -> list[int]:
    """Return how many batches the rows of each part make."""
    tokens = part_tokens(recipe, sizes)
    return [math.ceil(n_tokens / own) for own, (_, n_tokens) in zip(tokens, sizes, strict=True)]


def asked_steps(steps_per_epoch: int, epochs: object, steps: object) -> int | None:
    """Return the number of steps that epochs or steps ask for, or None if neither is given."""
    if epochs is not None and steps is not None:
        raise InvalidInputError(
            f"epochs must be None where steps are given, got epochs={checks.shown(epochs)} and steps={checks.shown(steps)}"
        )
    if steps is not None:
        return checks.integer(steps, "steps", 1, MAXIMUM_STEPS)
    if epochs is not None:
        number = checks.real(epochs, "epochs", "a number above 0")
        if not 0 < number * steps_per_epoch <= MAXIMUM_STEPS:
            raise InvalidInputError(f"epochs must be above 0 and come to at most 2**36 steps, got {checks.shown(epochs)}")
        return math.ceil(number * steps_per_epoch)
    return None


def for_core(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that the core takes. The others are used only in Python."""
    return {name: getattr(recipe, name) for name in recipes.CORE_FIELDS}
