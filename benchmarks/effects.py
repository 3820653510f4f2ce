"""What ablating concepts does in several networks: python benchmarks/effects.py small|pretrained [--quick].

`small` takes the demonstration's small networks (an autoencoder of 256 concepts, k = 12, 600 steps on 800 crops at 8 x 8
tokens), `pretrained` those whose weights are in packages of the index (512 concepts, k = 24, 300 steps on 864 crops; held-out
ones are of other photographs). The fifty most energetic universal concepts are ablated in held-out crops. Three of them are
told with pictures; which, a rule says that was there before: the one on whose effects all networks agree most, the one of the
others that changes the outputs most, and the one that agrees least though its codes agree. docs/effects.md has what came of it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import torch
from faithfulness import models_of
from torch.nn import functional as F

import usae
import usae.torch
from usae.demo import networks, photographs
from usae.demo.pretrained import pictures, whole
from usae.torch import ConceptEffects, Edit, Model

HERE = pathlib.Path(__file__).parent
CROPS, OF_ONE = 6, 2
"""Crops in a story, and at most of one photograph."""


class World(NamedTuple):
    """Networks, crops, the names of photographs and of the classes of logits, and the autoencoder's size."""

    models: dict[str, Model]
    outputs: dict[str, Any]
    grid: int
    train: np.ndarray
    held_out: np.ndarray
    photographs: list[str]
    classes: list[str]
    n_concepts: int
    k: int
    steps: int


def small(quick: bool) -> World:
    """The demonstration's small networks."""
    found = photographs.load()
    n_train, n_held_out = (100, 40) if quick else (800, 300)
    held_out = photographs.crops(found, "held_out", n_held_out, seed=1)
    return World(
        models_of(networks.load_networks()),
        {"classifier": "logits", "masked": "embedding", "contrastive": "embedding"},
        8,
        photographs.crops(found, "train", n_train, seed=0).images,
        held_out.images,
        [found[number].name for number in held_out.photograph],
        [photograph.name for photograph in found],
        256,
        12,
        20 if quick else 600,
    )


def pretrained(quick: bool) -> World:
    """The networks whose weights are in packages of the index."""
    found = pictures.load()
    n_train, n_held_out = (16, 12) if quick else (864, 160)
    held_out = pictures.crops(found, "held_out", n_held_out, seed=1)
    return World(
        whole.load_models(threads=1),
        dict(whole.OUTPUTS),
        10,
        pictures.crops(found, "train", n_train, seed=0).images,
        held_out.images,
        [found[number].name for number in held_out.photograph],
        imagenet_classes(),
        512,
        24,
        20 if quick else 300,
    )


def imagenet_classes() -> list[str]:
    """Return the first word of each class of ImageNet, from the lists that timm brings."""
    files = {file.name: file for file in importlib.metadata.files("timm") or [] if file.parent.name == "_info"}
    synsets, lemmas = (files[f"imagenet_{name}.txt"].read_text().splitlines() for name in ("synsets", "synset_to_lemma"))
    names = dict(line.split("\t", 1) for line in lemmas)
    return [names[synset].split(",")[0] for synset in synsets]


WORLDS = {"small": small, "pretrained": pretrained}


def chosen_by_rule(effects: ConceptEffects, correlation: np.ndarray) -> dict[str, int]:
    """Return the concepts of the stories. `correlation` is that of codes, [M, M, m]."""
    pairs = list(itertools.combinations(range(len(effects.model_names)), 2))
    n = effects.n_chosen
    agreement = np.stack([effects.agreement.value[i, j, :n] for i, j in pairs]).min(0)
    codes = np.stack([correlation[i, j, effects.chosen] for i, j in pairs]).min(0)
    size = (effects.size[:, :n] / np.nanmean(effects.size[:, :n], 1, keepdims=True)).mean(0)
    best = int(np.nanargmax(agreement))
    large = int(np.nanargmax(np.where(np.arange(n) == best, np.nan, size)))
    alike = codes >= np.nanmedian(codes)
    worst = int(np.nanargmin(np.where(alike & ~np.isin(np.arange(n), (best, large)), agreement, np.nan)))
    places = {"agrees most": best, "changes most": large, "agrees least, codes alike": worst}
    return {why: int(effects.concepts[place]) for why, place in places.items()}


def outputs_of(world: World, name: str, images: np.ndarray, sae: usae.UniversalSAE, edits: Any = ()) -> torch.Tensor:
    """Outputs of a network, of norm 1 so that products are cosines; logits without their mean."""
    model, parts = world.models[name], []
    for start in range(0, len(images), 16):
        given = torch.from_numpy(model.preprocess(images[start : start + 16]))
        with torch.no_grad(), usae.torch.intervene({name: model}, sae, edits):
            parts.append(model.module(given).flatten(1))
    found = torch.cat(parts)
    return F.normalize(found - found.mean(1, keepdim=True) if world.outputs[name] == "logits" else found, dim=1)


def nearest(of: torch.Tensor, among: torch.Tensor, images: np.ndarray, photographs: list[str]) -> np.ndarray:
    """Return for some images, by their outputs, the nearest image of another photograph."""
    cosines = of @ among.T
    names = np.array(photographs)
    cosines[torch.from_numpy(names[images][:, None] == names)] = -2
    found: np.ndarray = cosines.argmax(1).numpy()
    return found


def strongest(peaks: np.ndarray, photographs: list[str]) -> np.ndarray:
    """Return the crops with the largest numbers, few of one photograph."""
    taken: list[int] = []
    for image in np.argsort(-peaks, kind="stable"):
        if [photographs[i] for i in taken].count(photographs[image]) < OF_ONE:
            taken.append(int(image))
    return np.array(taken[:CROPS])


def save_small(figure: Any, path: pathlib.Path) -> None:
    """Write a figure with 128 colours, which is a third of the size."""
    from PIL import Image

    content = io.BytesIO()
    figure.savefig(content, dpi=64)
    Image.open(content).convert("RGB").quantize(128).save(path, optimize=True)


def story(
    world: World, sae: usae.UniversalSAE, codes: dict[str, np.ndarray], everything: dict[str, torch.Tensor], concept: int
) -> tuple[Any, dict[str, Any]]:
    """Draw the crops that fire a concept most, and for each network the nearest other crop with and without it."""
    import matplotlib.pyplot as plt

    peaks = sum(
        maps[..., concept].reshape(len(maps), -1).max(1) / max(maps[..., concept].max(), 1e-9) for maps in codes.values()
    )
    images = strongest(peaks, world.photographs)
    names = list(world.models)
    figure, axes = plt.subplots(
        1 + 3 * len(names), CROPS, figsize=(1.2 * CROPS + 1.4, 1.2 * (1 + 3 * len(names))), layout="constrained"
    )
    numbers: dict[str, Any] = {}
    rows = [("crop", world.held_out[images])]
    for name in names:
        maps = codes[name][images][..., concept]
        share = maps / max(maps.max(), 1e-9)
        side = world.held_out.shape[1]
        mask = F.interpolate(torch.from_numpy(share)[:, None], size=(side, side), mode="bilinear")[:, 0, :, :, None].numpy()
        ablated = outputs_of(world, name, world.held_out[images], sae, Edit.ablate(concept))
        before, after = (
            nearest(each, everything[name], images, world.photographs) for each in (everything[name][images], ablated)
        )
        cosines = (everything[name][images] * ablated).sum(1)
        rows += [
            (f"{name}:\nwhere it fires", (world.held_out[images] * (0.25 + 0.75 * mask)).astype(np.uint8)),
            ("nearest,\nas it is", world.held_out[before]),
            ("nearest,\nablated", world.held_out[after]),
        ]
        numbers[name] = {
            "cosine with the original output": cosines.double().numpy().round(4).tolist(),
            "nearest photographs, as it is": [world.photographs[i] for i in before],
            "nearest photographs, ablated": [world.photographs[i] for i in after],
        }
    for line, (title, row) in zip(axes, rows, strict=True):
        line[0].set_ylabel(title, fontsize=8)
        for ax, crop in zip(line, row, strict=True):
            ax.imshow(crop)
            ax.set(xticks=[], yticks=[])
    return figure, {"images": [world.photographs[i] for i in images]} | numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=list(WORLDS))
    parser.add_argument("--quick", action="store_true", help="few crops and steps, to see that it works")
    arguments = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    torch.set_num_threads(1)
    world = WORLDS[arguments.world](arguments.quick)
    train, held_out = (usae.torch.extract(world.models, crops, grid=world.grid) for crops in (world.train, world.held_out))
    sae = usae.UniversalSAE(world.n_concepts, world.k, seed=0, n_threads=1).fit(train, steps=world.steps)
    evaluation = sae.evaluate(held_out)
    # After few steps no concept is universal.
    concepts = np.argsort(-evaluation.energy.min(0), kind="stable")[:12] if arguments.quick else None
    effects = usae.torch.concept_effects(
        world.models,
        sae,
        world.held_out,
        concepts,
        evaluation=evaluation,
        n_controls=1 if arguments.world == "pretrained" else 4,
        outputs=world.outputs,
        batch_size=20,
    )
    name = f"effects-{arguments.world}{'-quick' if arguments.quick else ''}"
    print(evaluation.summary(), effects.summary(), sep="\n\n", flush=True)
    folder = HERE / "results" if arguments.quick else HERE.parent / "docs" / "images"
    usae.plot.effects(effects).figure.savefig(folder / f"{name}.png", dpi=90)

    side = (world.grid, world.grid)
    codes = {each: np.asarray(sae.encode(x, each)).reshape(len(world.held_out), *side, -1) for each, x in held_out.items()}
    everything = {each: outputs_of(world, each, world.held_out, sae) for each in world.models}
    told = {}
    for number, (why, concept) in enumerate(chosen_by_rule(effects, evaluation.correlation).items(), 1):
        figure, told[why] = story(world, sae, codes, everything, concept)
        save_small(figure, folder / f"{name}-{number}.png")
        place = effects.place(concept)
        told[why] |= {
            "concept": concept,
            "change": effects.change[:, place].round(4).tolist(),
            "size": effects.size[:, place].round(4).tolist(),
            "logits lowered most": {
                each: [f"{world.classes[c]} {change:.3f}" for c, change in zip(*effects.classes(concept, each), strict=True)]
                for each in effects.class_changes
            },
            "agreement": {
                f"{a}, {b}": [round(float(x[i, j]), 3) for x in (
                    effects.agreement.value[..., place], effects.agreement.null[..., place],
                    effects.agreement.p_value[..., place], effects.active_agreement.value[..., place],
                    effects.code_agreement.value[..., place], evaluation.correlation[..., concept])]
                for (i, a), (j, b) in itertools.combinations(enumerate(world.models), 2)
            },
        }  # fmt: skip
    stored = effects.to_dict()
    kept = (
        "model_names",
        "n_images",
        "scores",
        "concepts",
        "n_chosen",
        "change",
        "size",
        "agreement",
        "active_agreement",
        "code_agreement",
    )
    record = {key: stored[key] for key in kept} | {"stories": told}
    (HERE / "results" / f"{name}.json").write_text(json.dumps(record, indent=None) + "\n", encoding="utf-8")
    lines = [
        "# What ablating concepts does in several networks", "",
        f"`python benchmarks/effects.py {arguments.world}`, {len(world.held_out)} crops.", "",
        "```", effects.summary(), "```", "", "```json", json.dumps(told, indent=1), "```",
    ]  # fmt: skip
    (HERE / "results" / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
