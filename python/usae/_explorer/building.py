"""The passes over an explorer's images, and what comes out of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from usae import _usae
from usae._base.json import plain
from usae._base.progress import progress_bar
from usae._core.autoencoder import Autoencoder
from usae._core.dictionary_rows import unit_rows
from usae._data.activations import Activations
from usae._estimator.universal_sae import UniversalSAE
from usae._explorer import content, effects, overview, packing, proposals
from usae._explorer.coordinates import placed
from usae._explorer.labels import Label
from usae._explorer.maps import PER_TOKEN, Maps, Pairs
from usae._explorer.measures import columns, presets
from usae._explorer.pictures import Pictures, size_of, webp_of
from usae._explorer.search import Search
from usae.analysis import neighbours
from usae.analysis.controls import Controls
from usae.analysis.effects import ConceptEffects
from usae.analysis.evaluation import Evaluation
from usae.analysis.image_codes import Pool
from usae.analysis.image_samples import probes
from usae.maximization.result import Maximization

EVALUATED_TOKENS = 2**20
"""Tokens that are evaluated, at most, where no evaluation is given: more do not change what a page shows."""

APART = 2
"""Images for each model on which it disagrees with the others."""

SILENT = 4
"""Images of neighbouring concepts on which a concept does not fire."""

GALLERY = 200
GALLERY_BYTES = 2**21
"""Limits of the images whose single patches can be looked at."""

MADE_SIDE = 256
"""Largest side of maximised images, in pixels."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Checked arguments of `usae.explorer`."""

    sae: UniversalSAE
    acts: Mapping[str, Activations]
    pool: Pool
    pictures: Pictures | None
    title: str
    n: int
    bands: int
    side: int
    crop: bool
    evaluation: Evaluation | None
    controls: Controls | None
    effects: ConceptEffects | None
    measures: Mapping[str, np.ndarray]
    labels: Mapping[int, Label]
    embedded: tuple[np.ndarray, list[str], np.ndarray] | None
    made: Sequence[Maximization]
    coordinates: str | np.ndarray
    seed: int
    progress: bool | None


def built(plan: Plan) -> tuple[Search, Iterator[tuple[str, str]]]:
    """Return what was found, and data files as they are needed: their pictures are read then."""
    autoencoder, pool = plan.sae._initialized(), plan.pool
    names, m = autoencoder.names, autoencoder.n_concepts
    evaluation = plan.evaluation or _evaluation(plan)
    n_tokens = len(pool) * pool.places
    search = Search(evaluation.max_activation, len(pool), n_tokens, n=plan.n, bands=plan.bands, apart=APART, seed=plan.seed)
    with progress_bar(2 * len(pool), plan.progress, "exploring", "image") as bar:
        for codes in pool.chunks():
            search.add(codes)
            bar.update(len(codes.numbers))
        scale = np.stack([ranked.scores[:, 0] for ranked in search.top])
        units = [unit_rows(plan.sae.dictionary(name)) for name in names]
        near = [neighbours.by_dictionary(units), neighbours.by_firing(search.tokens, m)]
        pairs = Pairs(search, len(pool))
        gallery = _gallery(pool, pairs, len(names), min(PER_TOKEN, m))
        strongest = np.stack([ranked.images[:, 0] for ranked in search.top], 1)
        maps = Maps(pool, pairs, scale, gallery, probes(strongest, [concepts for concepts, _ in near]))
        for codes in pool.chunks(maps.wanted):
            maps.add(codes)
            bar.update(len(codes.numbers))
        bar.update(len(pool) - len(maps.wanted))

    table = columns(
        evaluation,
        plan.controls,
        coherence=maps.coherence if pool.grid else None,
        area=maps.area if pool.grid else None,
        disagreement=maps.disagreement(),
        measures=plan.measures,
    )
    if plan.effects is not None:
        table += effects.columns(plan.effects, names)
    size = size_of(plan.pictures, plan.side, pool.grid) if plan.pictures is not None else (0, 0)
    header: dict[str, Any] = {
        "title": plan.title,
        "package": _usae.version(),
        "tensors": _digest(autoencoder),
        "models": [{"name": name, "width": width} for name, width in autoencoder.widths.items()],
        "nConcepts": m,
        "nImages": len(pool),
        "nAllImages": pool.n_all,
        "imageStep": pool.step,
        "nTokens": n_tokens,
        "grid": list(pool.grid) if pool.grid else None,
        "places": pool.places,
        "examples": plan.n,
        "bands": plan.bands,
        "size": list(size) if plan.pictures is not None else None,
        "columns": [
            {"key": one.key, "title": one.title, "help": one.help, "models": list(one.models), "digits": one.digits}
            for one in table
        ],
        "presets": presets(evaluation, table),
        "labels": {str(concept): {"text": label.text, "starred": label.starred} for concept, label in plan.labels.items()},
        "proposals": _proposals(plan, search),
        "map": plan.coordinates if isinstance(plan.coordinates, str) else "given",
        "effects": None if plan.effects is None else effects.described(plan.effects, names),
        "overview": overview.described(plan.sae, evaluation, plan.controls),
    }
    found = content.Findings(
        header=plain(header),
        columns=np.stack([one.values for one in table]).astype(np.float32),
        places=placed(plan.coordinates, units, plan.seed),
        scale=scale,
        pool=pool,
        search=search,
        pairs=pairs,
        maps=maps,
        silent=maps.silent(SILENT),
        neighbours=near,
        gallery=gallery,
        pictures=plan.pictures,
        size=size,
        crop=plan.crop,
        made=[(one.concept, _made(one, names)) for one in plan.made],
    )
    return search, content.scripts(found)


def _evaluation(plan: Plan) -> Evaluation:
    """The evaluation of `controls`, or a new one of evenly spaced images."""
    if plan.controls is not None:
        return plan.controls.evaluation
    pool = plan.pool
    images = pool.images[:: max(1, -(-len(pool) * pool.places // EVALUATED_TOKENS))]
    if len(images) == pool.n_all:
        acts = dict(plan.acts)
    else:
        rows = (images[:, None] * pool.places + np.arange(pool.places)).ravel()
        first = next(iter(plan.acts.values()))
        rows = rows if first.rows is None else rows[np.isin(rows, first.rows, assume_unique=True)]
        acts = {name: dataclasses.replace(x, rows=rows) for name, x in plan.acts.items()}
    return plan.sae._evaluated(acts, 0.0, plan.progress)


def _gallery(pool: Pool, pairs: Pairs, n_models: int, per_token: int) -> np.ndarray:
    """Return the images that concepts show most, as many as the codes of their patches leave small enough, in order."""
    of_image = n_models * pool.places * per_token * 3
    n = min(GALLERY, len(pool), max(1, GALLERY_BYTES // of_image))
    shown = np.bincount(pairs.images, minlength=len(pool))
    return np.sort(np.argsort(-shown, kind="stable")[:n])


def _proposals(plan: Plan, search: Search) -> list[list[list[object]]] | None:
    if plan.embedded is None:
        return None
    images, words, of_words = plan.embedded
    return proposals.proposed(search.top, images[plan.pool.images], words, of_words)


def _digest(autoencoder: Autoencoder) -> str:
    """SHA-256 of the parameters of all models, whatever file they are saved in."""
    parts = [
        autoencoder.read(i, name).tobytes() for i in range(len(autoencoder.names)) for name in autoencoder.parameter_names()
    ]
    return packing.digest("\n".join(autoencoder.names).encode(), *parts)


def _made(one: Maximization, names: Sequence[str]) -> dict[str, Any]:
    """Return maximised images as the page takes them, with the strength of each model's own."""
    images = {}
    for i, name in enumerate(one.model_names):
        if one.started[i]:
            picture = packing.text_of(webp_of(one.images[i].transpose(1, 2, 0), MADE_SIDE))
            strength = one.strength[i, i]
            images[str(names.index(name))] = {"picture": picture, "strength": plain(float(strength))}
    return images
