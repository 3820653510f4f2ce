"""The recipes that are compared: the four of the package, and variants of the default without merging and prefixes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans

import usae
from study.worlds import Arrays, World, rows

BATCH = 2048

SEPARATE: dict[str, Any] = {"encoded_models": "one", "agreement": 0.0, "dictionary_norm": "unit", "input_noise": 0.0}
"""What all variants have in common but two: one encoder in a step, dictionary rows of norm 1, and no input noise."""
PLAIN: dict[str, Any] = {"merge_cosine": None, "prefixes": None, "prefix_loss": "mean", "learning_rate": 3e-3}
"""The default recipe without merging and prefixes. Each variant changes one thing in it."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """Fields that differ from `PLAIN`, or changes that are made outside the recipe."""

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: bool = False
    every_encoder: bool = False  # each batch is encoded from every model in turn
    k_means: bool = False  # dictionaries start from k-means centroids of the models' concatenated activations
    k_falls: bool = False  # k is 4 times as large in the first tenth of the steps, and twice as large in the second
    size: int = 1  # factor of the data set's number of concepts

    def recipe(self, steps: int) -> usae.Recipe:
        if self.published:
            return usae.recipes.published(total_steps=steps).replace(batch_size=BATCH, **self.fields)
        return usae.recipes.default(**{"batch_size": BATCH} | SEPARATE | PLAIN | self.fields)

    def train(self, world: World, seed: int, steps: int, threads: int) -> usae.UniversalSAE:
        if self.every_encoder or self.k_means:
            return self._train_by_hand(world, seed, steps, threads)
        if self.k_falls:
            return self._train_in_stages(world, seed, steps, threads)
        n_concepts = self.size * world.n_concepts
        sae = usae.UniversalSAE(n_concepts, world.k, recipe=self.recipe(steps), seed=seed, n_threads=threads)
        return sae.fit(world.train, steps=steps, progress=False)

    def _train_in_stages(self, world: World, seed: int, steps: int, threads: int) -> usae.UniversalSAE:
        """Train in stages. Each stage starts from the parameters of the one before, without its moments."""
        before = None
        for factor, share in ((4, 0.1), (2, 0.1), (1, 0.8)):
            n_steps = round(share * steps)
            recipe = self.recipe(steps).replace(total_steps=n_steps, warmup_steps=min(100, n_steps // 10))
            if factor > 1:
                recipe = recipe.replace(schedule="constant")
            sae = usae.UniversalSAE(world.n_concepts, factor * world.k, recipe=recipe, seed=seed, n_threads=threads)
            if before is None:
                before = sae.fit(world.train, steps=n_steps, progress=False)
                continue
            sae.initialize(before.n_features_in_)
            for name in world.train:
                sae.set_parameters(name, before.parameters(name))
            for batch in _batches(world, (seed, factor), n_steps):
                sae.partial_fit(batch)
            before = sae
        assert before is not None
        return before

    def _train_by_hand(self, world: World, seed: int, steps: int, threads: int) -> usae.UniversalSAE:
        """Train like `fit`, but from other initial parameters, or with all encoders in each batch."""
        names = list(world.train)
        encoders = names if self.every_encoder else [None]
        total = steps * len(encoders)
        recipe = self.recipe(steps).replace(total_steps=total, warmup_steps=min(100, total // 10))
        sae = usae.UniversalSAE(world.n_concepts, world.k, recipe=recipe, seed=seed, n_threads=threads)
        started = usae.UniversalSAE(world.n_concepts, world.k, recipe=self.recipe(steps), seed=seed)
        started.fit(world.train, steps=1, progress=False)  # computes mean and scale
        sae.initialize({name: x.shape[-1] for name, x in world.train.items()})
        start = _centroids(world, started, seed) if self.k_means else _data_rows(world, started, seed)
        for name in names:
            space = started.parameters(name)
            dictionary = start[name] / np.linalg.norm(start[name], axis=1, keepdims=True)
            norm = np.linalg.norm(space["encoder_weight"], axis=1).mean()
            sae.set_parameters(
                name,
                {"mean": space["mean"], "scale": space["scale"], "dictionary": dictionary, "encoder_weight": norm * dictionary},
            )
        for batch in _batches(world, seed, steps):
            for encoder in encoders:
                sae.partial_fit(batch, encoder=encoder)
        return sae


_NESTED = (0.25, 0.5, 0.75, 1)
DEFAULT = {field: getattr(usae.recipes.default(), field) for field in PLAIN}
MATRYOSHKA = {field: getattr(usae.recipes.matryoshka(), field) for field in PLAIN}
TOGETHER = {field: getattr(usae.recipes.default(), field) for field in (*PLAIN, *SEPARATE)}
AGREEING = {field: getattr(usae.recipes.agreeing(), field) for field in (*PLAIN, *SEPARATE)}

VARIANTS: dict[str, Variant] = {
    "default": Variant(DEFAULT),
    "matryoshka": Variant(MATRYOSHKA),
    "two encoders, agreement, bounded rows": Variant(TOGETHER),
    "agreeing": Variant(AGREEING),
    "published": Variant(published=True),
    # From here on, each variant changes one thing.
    "plain": Variant(),
    "merging": Variant({"merge_cosine": 0.8}),
    "start: random": Variant({"initialization": "random"}),
    "start: tied": Variant({"initialization": "tied"}),
    "start: k-means": Variant(k_means=True),
    "absolute loss": Variant({"loss": "l1"}),
    "step the encoder's pair only": Variant({"update": "encoder"}),
    "every model encodes each batch": Variant(every_encoder=True),
    "learning rate 1e-3": Variant({"learning_rate": 1e-3}),
    "learning rate 5e-3": Variant({"learning_rate": 5e-3}),
    "learning rate 1e-2": Variant({"learning_rate": 1e-2}),
    "scale per dimension": Variant({"scale": "dimension"}),
    "BatchNorm encoder": Variant({"encoder": "batchnorm"}),
    "no AuxK": Variant({"aux": "none"}),
    "published AuxK": Variant({"aux": "unchosen"}),
    "BatchTopK": Variant({"selection": "batchtopk"}),
    "prefixes": Variant({"prefixes": _NESTED}),
    # These combine merging with other recipes.
    "prefixes, merging": Variant({"prefixes": _NESTED, "merge_cosine": 0.8}),
    "merging, rate 5e-3": Variant({"merge_cosine": 0.8, "learning_rate": 5e-3}),
    "half prefix, merging, rate 5e-3": Variant({"prefixes": (0.5, 1), "merge_cosine": 0.8, "learning_rate": 5e-3}),
    # These have more concepts, with several learning rates.
    "four times the concepts": Variant(DEFAULT, size=4),
    "four times the concepts, rate 3.5e-3": Variant(DEFAULT | {"learning_rate": 3.5e-3}, size=4),
    "four times the concepts, rate 1.4e-2": Variant(DEFAULT | {"learning_rate": 1.4e-2}, size=4),
    "default, k falls from 4 k": Variant(DEFAULT, k_falls=True),
    "default, rate 3.5e-3": Variant(DEFAULT | {"learning_rate": 3.5e-3}),
    "default, rate 1.4e-2": Variant(DEFAULT | {"learning_rate": 1.4e-2}),
}


def _batches(world: World, seed: int | tuple[int, int], steps: int) -> Iterator[Arrays]:
    train = rows(world.train)
    order = np.random.default_rng(seed).permutation(len(next(iter(train.values()))))
    for step in range(steps):
        chosen = np.take(order, np.arange(step * BATCH, (step + 1) * BATCH), mode="wrap")
        yield {name: x[chosen] for name, x in train.items()}


def _standardized(world: World, sae: usae.UniversalSAE, chosen: np.ndarray) -> Arrays:
    spaces = {name: sae.parameters(name) for name in world.train}
    return {name: (x[chosen] - spaces[name]["mean"]) / spaces[name]["scale"] for name, x in rows(world.train).items()}


def _data_rows(world: World, sae: usae.UniversalSAE, seed: int) -> Arrays:
    """Return dictionary rows from random tokens, which are the same in every model."""
    n_tokens = len(next(iter(rows(world.train).values())))
    return _standardized(world, sae, np.random.default_rng((seed, 1)).choice(n_tokens, world.n_concepts, replace=False))


def _centroids(world: World, sae: usae.UniversalSAE, seed: int) -> Arrays:
    """Return k-means centroids of the models' concatenated, standardised activations. Models have equal total variance."""
    n_tokens = len(next(iter(rows(world.train).values())))
    chosen = np.random.default_rng((seed, 2)).choice(n_tokens, min(n_tokens, 40_000), replace=False)
    standard = _standardized(world, sae, chosen)
    weights = {name: 1 / np.sqrt(x.var(0).sum()) for name, x in standard.items()}
    beside = np.concatenate([weights[name] * x for name, x in standard.items()], axis=1)
    k_means = MiniBatchKMeans(world.n_concepts, batch_size=4096, n_init=1, max_iter=20, random_state=seed).fit(beside)
    widths = np.cumsum([x.shape[1] for x in standard.values()])[:-1]
    parts = np.split(k_means.cluster_centers_, widths, axis=1)
    return {name: part.astype(np.float32) for name, part in zip(standard, parts, strict=True)}
