"""What the study of the frontier compares: recipes, weights of the agreement term, rivals and nulls, and their figures."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import usae
from study import figures, linear_ceiling, plain_topk
from study.variants import SEPARATE
from study.worlds import Arrays, World, rows
from usae._core import resolved_recipe

BATCH = 2048
WEIGHTS = (0.0, 0.1, 0.3, 1.0)
"""Weights of the agreement term that make the frontier, beside the default's."""

SHARED = (
    "R2 same", "R2 other", "agreement", "linear ceiling", "of linear ceiling", "worst pair", "co-fire", "universal", "dead",
    "largest firing share",
)  # fmt: skip
"""Figures of an autoencoder of several models. The linear ceiling and the shares of it, on average and least, are of seed 0."""

CEILING = ("agreement", "ceiling", "of ceiling", "worst pair of ceiling")
"""Figures of `AgreementCeiling`, which has supervised encoders too."""

KNOWN = ("found in all", "private found", "AUROC")
"""Those of known concepts."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An autoencoder with the processor seconds of its training, whether an index is one concept in all models, and facts."""

    sae: usae.UniversalSAE
    seconds: float
    shared: bool = True
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    train : callable
        Function of a world, a seed, a number of steps and a number of threads; None stands for what would be another line.
    timed : bool
        Whether it is also trained for as many seconds as the default.
    """

    train: Callable[[World, int, int, int], Run | None]
    timed: bool = False


def _recipe(make: Callable[[World, int], usae.Recipe | None]) -> Row:
    """Return the line of a recipe, which may depend on the world and the number of steps."""

    def train(world: World, seed: int, steps: int, threads: int) -> Run | None:
        recipe = make(world, steps)
        if recipe is None:
            return None
        sae = usae.UniversalSAE(world.n_concepts, world.k, recipe=recipe, seed=seed, n_threads=threads)
        start = time.process_time()
        sae.fit(world.train, steps=steps, progress=False)
        return Run(sae, time.process_time() - start, facts={"input noise": sae.recipe_.input_noise})

    return Row(train, timed=True)


def _changed(**changes: Any) -> Row:
    return _recipe(lambda world, steps: default(**changes))


def default(**changes: Any) -> usae.Recipe:
    return usae.recipes.default(**{"batch_size": BATCH} | changes)


@functools.lru_cache(1)
def _derived_noise(world: World) -> float:
    """Return the noise that `fit` derives from the world's activations, or that the default has."""
    sae = usae.UniversalSAE(world.n_concepts, world.k, recipe=default(), n_threads=1)
    return sae.fit(world.train, steps=1, progress=False).recipe_.input_noise or 0.0


def _with_noise(factor: float) -> Callable[[World, int], usae.Recipe | None]:
    """Return the default with a multiple of its noise, or None if that is none."""

    def make(world: World, steps: int) -> usae.Recipe | None:
        noise = _derived_noise(world)
        return default(input_noise=factor * noise) if noise > 0 else None

    return make


def _with_rate(factor: float) -> Callable[[World, int], usae.Recipe]:
    return lambda world, steps: resolved_recipe.with_derived_rate(default(), factor)


def _alone(world: World, seed: int, steps: int, threads: int) -> Run:
    """Train the default on each model alone: as many steps, each of which encodes a whole batch of that model."""
    parameters, start = {}, time.process_time()
    for name, x in world.train.items():
        sae = usae.UniversalSAE(world.n_concepts, world.k, recipe=default(), seed=seed, n_threads=threads)
        parameters[name] = sae.fit({name: x}, steps=steps, progress=False).parameters(name)
    seconds = time.process_time() - start
    together = plain_topk.beside_each_other(parameters, world.n_concepts, world.k, threads, default())
    return Run(together, seconds, shared=False)


def _plain(world: World, seed: int, steps: int, threads: int) -> Run:
    """Train PyTorch's on each model alone, at the rate that is best for held-out rows with seed 0."""
    rates = {name: _best_rate(world, name, steps, threads) for name in world.train}
    start = time.process_time()
    parameters = {
        name: plain_topk.train(x, world.n_concepts, world.k, rates[name], steps, seed) for name, x in rows(world.train).items()
    }
    seconds = time.process_time() - start
    together = plain_topk.beside_each_other(parameters, world.n_concepts, world.k, threads)
    return Run(together, seconds, shared=False, facts={"rates": rates})


@functools.lru_cache(4)
def _best_rate(world: World, name: str, steps: int, threads: int) -> float:
    def r2(rate: float) -> float:
        found = plain_topk.train(rows(world.train)[name], world.n_concepts, world.k, rate, steps, 0)
        sae = plain_topk.beside_each_other({name: found}, world.n_concepts, world.k, threads)
        return float(sae.evaluate({name: world.held_out[name]}).r2[0, 0])

    return max(plain_topk.RATES, key=r2)


def _shuffled(world: World, seed: int, steps: int, threads: int) -> Run:
    """Train the default on rows that are paired at random; figures are of real pairs."""
    sae = usae.UniversalSAE(world.n_concepts, world.k, recipe=default(), seed=seed, n_threads=threads)
    sae.initialize({name: x.shape[-1] for name, x in world.train.items()})
    start = time.process_time()
    controls = usae.controls(
        sae, world.held_out, train=world.train, include=["shuffled"], steps=steps, seed=seed, progress=False
    )
    assert controls.shuffled is not None
    return Run(controls.shuffled.sae, time.process_time() - start)


RIDGE = "ridge regression"

ROWS: dict[str, Row] = {
    "default": _recipe(lambda world, steps: default()),
    "agreeing": _recipe(lambda world, steps: _named(usae.recipes.agreeing)),
    "matryoshka": _recipe(lambda world, steps: _named(usae.recipes.matryoshka)),
    "published": _recipe(lambda world, steps: usae.recipes.published(total_steps=steps).replace(batch_size=BATCH)),
    "one encoder, unit rows": _changed(**SEPARATE),
    "without noise": _recipe(_with_noise(0.0)),
    "noise doubled": _recipe(_with_noise(2.0)),
    "rate halved": _recipe(_with_rate(0.5)),
    "rate doubled": _recipe(_with_rate(2.0)),
    "no merging": _changed(merge_cosine=None),
    "no prefixes": _changed(prefixes=None),
    "same model twice": _changed(same_model_weight=2.0),
    "same model four times": _changed(same_model_weight=4.0),
    "one model alone": Row(_alone),
    "plain TopK, PyTorch": Row(_plain),
    "shuffled pairs": Row(_shuffled),
}
"""The table of recipes. Ridge regression, which trains no autoencoder, comes after it."""


def _named(recipe: Callable[..., usae.Recipe]) -> usae.Recipe:
    return recipe(batch_size=BATCH)


def _point(weight: float) -> str:
    """Return the name of the line that has this weight of the agreement term and is otherwise the default."""
    known = {default().agreement: "default", usae.recipes.agreeing().agreement: "agreeing"}
    return known.get(weight, f"agreement {weight:g}")


FRONTIER = {weight: _point(weight) for weight in sorted({*WEIGHTS, default().agreement})}
"""Lines of the frontier by weight."""

ROWS |= {
    name: dataclasses.replace(_changed(agreement=weight), timed=False) for weight, name in FRONTIER.items() if name not in ROWS
}


CEILINGS = ("default", "agreeing", "one encoder, unit rows")
"""Lines of which `AgreementCeiling` is computed, with seed 0. It takes some minutes, longer than a training."""


def measured(run: Run, world: World, with_ceiling: bool) -> dict[str, Any]:
    """Return the figures of a run on held-out rows, and matrices over pairs of models."""
    evaluation = run.sae.evaluate(world.held_out)
    of_all = figures.of_evaluation(evaluation)
    found: dict[str, Any] = {"seconds": run.seconds, **run.facts, "R2 same": of_all["R2 same"], "dead": of_all["dead"]}
    found["largest firing share"] = float(evaluation.firing_counts.max() / evaluation.n_tokens)
    if not run.shared:
        return found | {"R2 of each": dict(zip(evaluation.model_names, np.diag(evaluation.r2).tolist(), strict=True))}
    agreement = evaluation.mean_agreement()
    found |= {"R2 other": of_all["R2 other"], "agreement": _other(agreement), "co-fire": of_all["cofire"]}
    found |= {"universal": int(evaluation.universal().sum()), "R2 of pairs": evaluation.r2.tolist()}
    found |= {"agreement of pairs": agreement.tolist()}
    if world.truth is not None:
        score = usae.synthetic.score(run.sae, world.truth, world.tokens)
        private = float(score.recovered[score.private].mean())
        found |= {"found in all": score.universally_recovered, "private found": private, "AUROC": score.entropy_auroc}
    return found | (_linear_ceiling(run.sae, world) if with_ceiling else {})


def _linear_ceiling(sae: usae.UniversalSAE, world: World) -> dict[str, Any]:
    start = time.process_time()
    linear = linear_ceiling.linear_ceiling(sae, *_for_ceilings(world))
    agreement, ceiling = _other(linear.agreement), _other(linear.ceiling)
    return {
        "linear ceiling": ceiling,
        "of linear ceiling": agreement / ceiling,
        "worst pair": float(np.nanmin(linear.agreement / linear.ceiling)),
        "linear ceiling of pairs": linear.ceiling.tolist(),
        "seconds of the linear ceiling": time.process_time() - start,
    }


def ceiling_of(sae: usae.UniversalSAE, world: World) -> dict[str, Any]:
    """Return how well another model's activations can predict a code, and the share of that in which the codes agree."""
    start = time.process_time()
    held_out, train = _for_ceilings(world)
    ceiling = usae.controls(sae, held_out, train=train, include=["agreement"], progress=False).agreement
    assert ceiling is not None
    return {
        "agreement": _other(ceiling.mean()),
        "ceiling": _other(ceiling.mean("ceiling")),
        "of ceiling": ceiling.mean_share,
        "worst pair of ceiling": float(np.nanmin(ceiling.mean("share"))),
        "ceiling of pairs": ceiling.mean("ceiling").tolist(),
        "linear ceiling of the controls": _other(ceiling.mean("ridge")),
        "seconds": time.process_time() - start,
    }


def _for_ceilings(world: World) -> tuple[Arrays, Arrays]:
    """Return held-out rows and rows of training, as many as are used for ceilings."""
    return bounded(world.held_out, 16_384), bounded(world.train, 100_000)


def bounded(acts: Arrays, n_tokens: int) -> Arrays:
    """Return the first images or rows, at most so many tokens."""
    first = next(iter(acts.values()))
    return {name: x[: max(1, n_tokens // int(np.prod(first.shape[1:-1])))] for name, x in acts.items()}


def ridge(world: World) -> dict[str, Any]:
    """Return R2 of ridge regression from model to model, with the penalty that is best for each pair."""
    sae = usae.UniversalSAE(2, 1).initialize({name: x.shape[-1] for name, x in world.train.items()})
    start = time.process_time()
    linear = usae.controls(sae, world.held_out, train=world.train, include=["linear"], progress=False).linear
    assert linear is not None
    seconds = time.process_time() - start
    pairs = {"R2 of pairs": linear.r2.tolist(), "penalties": linear.penalty.tolist()}
    return {"seconds": seconds, "R2 other": _other(linear.r2), **pairs}


def _other(values: np.ndarray) -> float:
    """Return the mean over pairs of different models."""
    return float(np.nanmean(values[~np.eye(len(values), dtype=bool)]))
