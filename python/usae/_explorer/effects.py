"""The columns of what ablating concepts does to the networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from usae._base import checks
from usae._explorer.measures import Column
from usae.analysis.effects import ConceptEffects
from usae.errors import InvalidInputError


def as_effects(effects: object, names: Sequence[str], m: int) -> ConceptEffects | None:
    """Check the argument `effects`."""
    if effects is None:
        return None
    if not isinstance(effects, ConceptEffects):
        raise InvalidInputError(f"effects must be what usae.torch.concept_effects returns, got {checks.shown(effects)}")
    if not set(effects.model_names) <= set(names) or effects.images_active.shape[1] != m:
        raise InvalidInputError(
            f"effects must be of this autoencoder, with {m} concepts of {', '.join(names)}, got "
            f"{effects.images_active.shape[1]} of {', '.join(effects.model_names)}"
        )
    return effects


def described(effects: ConceptEffects, names: Sequence[str]) -> dict[str, Any]:
    """Return what the page says of the measurement: the score of each of its models, and the number of images."""
    scores = dict(zip(effects.model_names, effects.scores, strict=True))
    return {"scores": [scores.get(name) for name in names], "images": effects.n_images}


def columns(effects: ConceptEffects, names: Sequence[str]) -> list[Column]:
    """Return the columns of each model and of each pair; numbers of concepts that were not ablated are NaN."""
    of = [names.index(name) for name in effects.model_names]
    sizes, changes = effects.spread(effects.size), effects.spread(effects.change)
    by_model = [
        (
            "effect",
            "Effect",
            "Mean size of the output's change when it is ablated, in the images in which it is active.",
            sizes,
        ),
        ("change", "Change of the score", "Mean change of the network's score when it is ablated.", changes),
        ("estimate", "Change to first order", "The same estimated by code x gradient.", effects.first_order),
    ]
    found = [
        Column(f"{key}:{i}", title, words, values[number], (i,), 3)
        for key, title, words, values in by_model
        if values is not None
        for number, i in enumerate(of)
    ]
    exact, estimated = effects.agreement, effects.first_order_agreement
    pairs = list(itertools.combinations(range(len(of)), 2))
    for a, b in pairs:
        models = tuple(sorted((of[a], of[b])))
        found += _of_pair(
            "effects", "Agreement of effects", models, *map(effects.spread, (exact.value[a, b], exact.null[a, b]))
        )
        if estimated is not None:
            title = "Agreement of effects to first order"
            found += _of_pair("estimates", title, models, estimated.value[a, b], estimated.null[a, b])
    if pairs:
        lowest = effects.spread(np.stack([exact.value[a, b] for a, b in pairs]).min(0))
        found.append(
            Column("effects", "Lowest agreement of effects", "Of any two networks: do the same images change?", lowest)
        )
    return found


def _of_pair(key: str, title: str, models: tuple[int, ...], value: np.ndarray, null: np.ndarray) -> list[Column]:
    i, j = models
    words = "Rank correlation over images of the sizes of two networks' changes when it is ablated."
    return [
        Column(f"{key}:{i}:{j}", title, words, value, models),
        Column(f"{key}Null:{i}:{j}", f"{title}, null", "The same with other concepts like it in one network.", null, models),
    ]
