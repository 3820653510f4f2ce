"""The numbers of concepts that the page can sort and filter by, and the selections that it offers ready made."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae.analysis import universality
from usae.analysis.cofiring import ERROR_RATE, UNIVERSAL_ENTROPY, log_cofire_p_values
from usae.analysis.controls import Controls
from usae.analysis.evaluation import Evaluation
from usae.analysis.nulls import CofireNull
from usae.errors import InvalidInputError

MOST_MEASURES = 64


class Column(NamedTuple):
    """A number for each concept, float [m]. `models` are those it belongs to: none, one or two."""

    key: str
    title: str
    help: str
    values: np.ndarray
    models: tuple[int, ...] = ()
    digits: int = 2


def columns(
    evaluation: Evaluation,
    controls: Controls | None,
    *,
    coherence: np.ndarray | None,
    area: np.ndarray | None,
    disagreement: np.ndarray,
    measures: Mapping[str, np.ndarray],
) -> list[Column]:
    """Return all columns. `coherence`, `area` are [M, m], `disagreement` [m], `measures` [m] or [M, m]."""
    names = evaluation.model_names
    found: list[Column] = []
    if len(names) > 1:
        found += _of_concepts(evaluation, controls, disagreement)
    with np.errstate(invalid="ignore", divide="ignore"):
        firing = evaluation.firing_counts / evaluation.n_tokens
        share = evaluation.firing_counts / evaluation.firing_counts.sum(0)
    by_model: list[tuple[str, str, str, np.ndarray, int]] = [
        ("firing", "Firing", "Share of the tokens in which the concept fires.", firing, 4),
        (
            "energy",
            "Energy",
            "Squared norm of what the concept adds on average: how much it matters in the model.",
            evaluation.energy,
            4,
        ),
        ("max", "Largest code", "Largest code in the evaluated tokens.", evaluation.max_activation, 2),
    ]
    if len(names) > 1:
        by_model += [
            ("share", "Share of firing", "The model's share of all firing of the concept.", share, 2),
            ("cofire", "Co-fire proportion", "Share of its firing here in which it co-fires.", evaluation.cofire_proportion, 2),
        ]
    if coherence is not None and area is not None:
        by_model += [
            ("coherence", "Coherence", "Moran's I of the heat maps of its own examples: 1 is one smooth patch.", coherence, 2),
            ("area", "Area", "Share of its own example images in which it fires.", area, 2),
        ]
    for key, title, words, values, digits in by_model:
        found += [Column(f"{key}:{i}", title, words, values[i], (i,), digits) for i in range(len(names))]
    for i, j in itertools.combinations(range(len(names)), 2):
        iou, correlation = evaluation.pair_cofire_iou[i, j], evaluation.correlation[i, j]
        found += [
            Column(f"iou:{i}:{j}", "IoU", "Of the tokens in which it fires in either model, share with both.", iou, (i, j)),
            Column(f"correlation:{i}:{j}", "Correlation", "Pearson's r of the two models' codes.", correlation, (i, j)),
        ]
    for number, (name, values) in enumerate(measures.items()):
        if values.ndim == 1:
            found.append(Column(f"given:{number}", name, "Given by the maker of this explorer.", values, digits=3))
        else:
            words = "Given by the maker of this explorer."
            found += [Column(f"given:{number}:{i}", name, words, values[i], (i,), 3) for i in range(len(names))]
    return found


def _of_concepts(evaluation: Evaluation, controls: Controls | None, disagreement: np.ndarray) -> list[Column]:
    m = len(evaluation.cofire_counts)
    off = list(itertools.combinations(range(len(evaluation.model_names)), 2))
    correlation, null = evaluation.correlation, _null(controls)
    lowest = _lowest([correlation[i, j] for i, j in off])
    with np.errstate(invalid="ignore"):
        surprise = -log_cofire_p_values(evaluation.firing_counts, evaluation.cofire_counts, evaluation.n_tokens) / np.log(10)
    found = [
        Column("universal", "Universal", "1 for a universal concept: alive everywhere, even, co-firing above its null.",
               universality.mask(evaluation)[0].astype(float), digits=0),
        Column("entropy", "Firing entropy", "How evenly it fires over the models: 1 is equally often in all, 0 in one alone.",
               evaluation.firing_entropy),
        Column("iou", "Co-fire IoU", "Of the tokens in which it fires in any model, share in which it fires in all.",
               evaluation.cofire_iou),
        Column("correlation", "Lowest correlation", "Smallest Pearson's r of any two models' codes.", lowest),
        Column("cofires", "Co-fires", "Tokens in which it fires in every model.", evaluation.cofire_counts.astype(float),
               digits=0),
        Column("surprise", "-log10 p of co-firing", "From the bound of its p-value if models fired independently.",
               np.minimum(surprise, 999), digits=1),
        Column("apart", "Disagreement", "How far models differ on each other's strongest images: 1 if the others fire on none.",
               disagreement),
    ]  # fmt: skip
    if controls is not None and controls.agreement is not None:
        share = controls.agreement.share
        of_ceiling = _lowest([_length(share[i, j], m) for pair in off for i, j in (pair, pair[::-1])])
        words = "Correlation as a share of its ceiling, what one model can predict of the other's code: the lowest of any two."
        found.append(Column("ofCeiling", "Agreement / ceiling", words, of_ceiling))
    if null is not None:
        words = f"Standard deviations by which its co-fires exceed those with {null.permuted} permuted."
        found.append(Column("z", "z against the null", words, np.clip(_length(null.z, m), -999, 999), digits=1))
    return found


def _lowest(of_pairs: list[np.ndarray]) -> np.ndarray:
    """Smallest number of each concept, of those that are known; NaN where none is."""
    pairs = np.stack(of_pairs)
    known = ~np.isnan(pairs)
    return np.where(known.any(0), np.where(known, pairs, np.inf).min(0), np.nan)


def _null(controls: Controls | None) -> CofireNull | None:
    """The null whose z is shown: of whole images if there is one."""
    return None if controls is None else controls.images or controls.tokens


def _length(values: np.ndarray, m: int) -> np.ndarray:
    if values.shape != (m,):
        raise InvalidInputError(f"controls must be of the same autoencoder, with {m} concepts, got {len(values)}")
    return values


def presets(evaluation: Evaluation, found: list[Column]) -> list[dict[str, Any]]:
    """Return the selections: a name, an explanation, ranges of columns, and the column to sort by, the largest first."""
    keys = {column.key for column in found}
    names = evaluation.model_names
    if len(names) < 2:
        alive = {"firing:0": [1 / evaluation.n_tokens, None]}
        return [_preset("Most important", "Alive, by energy.", alive, "energy:0")]
    least = float(np.log10(max(1, int((~evaluation.dead).all(0).sum())) / ERROR_RATE))
    above: dict[str, list[float | None]] = {"z": [3, None]} if "z" in keys else {"surprise": [least, None]}
    agree = [
        _preset("Same effect", "Ablating it changes the same images in all networks.", {"effects": [0.3, None]}, "effects")
    ]
    result = [
        _preset("Universal", "Alive in every model, even, and co-firing above chance.", {"universal": [1, None]}, "energy:0"),
        *(
            _preset(f"Private to {name}", "At least nine tenths of its firing is in this model.",
                    {f"share:{i}": [0.9, None]}, f"energy:{i}")
            for i, name in enumerate(names)
        ),
        _preset("Co-fires, uncorrelated", "Fires at the same places in all models, but not with the same strength.",
                {"iou": [0.15, None], "correlation": [None, 0.4]}, "iou"),
        _preset("Above its null", "Co-fires more often than chance explains.", above, next(iter(above))),
        _preset("Even, at other places", "Fires equally often in all models, and hardly at the same places.",
                {"entropy": [UNIVERSAL_ENTROPY, None], "iou": [None, 0.05]}, "entropy"),
        _preset("Models disagree", "Fires in every model, but hardly on the images that fire it most in the others.",
                {f"share:{i}": [0.3 / len(names), None] for i in range(len(names))} | {"apart": [0.4, None]},
                "energy:0"),  # by disagreement, chance would be first: concepts that fire in a few tokens
        *(agree if "effects" in keys else []),
    ]  # fmt: skip
    return result


def _preset(name: str, words: str, filters: Mapping[str, list[float | None]], sort: str) -> dict[str, Any]:
    return {"name": name, "help": words, "filters": dict(filters), "sort": sort}


def as_measures(measures: object, n_models: int, n_concepts: int) -> dict[str, np.ndarray]:
    """Check the argument `measures`."""
    if measures is None:
        return {}
    expected = f"a mapping of at most {MOST_MEASURES} names to numbers [{n_concepts}] or [{n_models}, {n_concepts}]"
    if not isinstance(measures, Mapping) or len(measures) > MOST_MEASURES:
        raise InvalidInputError(f"measures must be {expected}, got {checks.shown(measures)}")
    found = {}
    for name, values in measures.items():
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if not isinstance(name, str) or array.shape not in ((n_concepts,), (n_models, n_concepts)):
            raise InvalidInputError(f"measures must be {expected}, got {checks.shown(name)}: {checks.array_shown(values)}")
        found[name] = array
    return found
