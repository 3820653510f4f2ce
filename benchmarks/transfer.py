"""Do images that are made for a concept in one network fire it in the others? python benchmarks/transfer.py small|pretrained

`small` takes the networks, crops and sizes of `usae demo --networks small`, `pretrained` those of `usae demo`. An autoencoder
is trained with each of three recipes. Its most energetic universal concepts get an image for each network, and one for all
networks at once (`usae.maximize`, also with `joint=True`). Every network reads every image, and the largest code of the concept
is held against those in held-out crops. Beside it are two nulls: images that were made for the other concepts, and more
held-out crops.

Results are written after each recipe, and what is in them is not measured again. docs/maximization.md has what came of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import usae
from usae._base.json import plain
from usae.demo import demonstration, networks, photographs, results, side_by_side
from usae.demo.concepts import universal_concepts
from usae.demo.pretrained import demonstration as of_pretrained
from usae.demo.pretrained import networks as pretrained_networks
from usae.demo.pretrained import pictures
from usae.torch import Model

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report, replace_file  # noqa: E402
from study import image_transfer  # noqa: E402
from study.image_transfer import QUANTILE, SUMMARY, largest, matrix_rows, read, summary_row  # noqa: E402
from study.variants import SEPARATE  # noqa: E402

FURTHER = 2**32
"""Added to the seed of held-out crops, for more of them."""

RECIPES = {
    "before": usae.recipes.default(**SEPARATE),
    "default": usae.recipes.default(),
    "agreeing": usae.recipes.agreeing(),
}

Acts = Mapping[str, np.ndarray]


class World(NamedTuple):
    """Networks and their crops. `making` are for images to be made with, `reading` take what the autoencoder is trained on."""

    size: results.Size
    views: int
    making: Callable[..., Mapping[str, Model]]
    reading: Mapping[str, Model]
    acts: Callable[[int], dict[str, Acts]]
    """Function from the seed to activations of crops, "train", "held out" and "further", [n_crops, tokens, width]."""


def small(quick: bool) -> World:
    """Return the demonstration's small networks."""
    size = demonstration.SMALL if quick else demonstration.FULL

    def acts(seed: int) -> dict[str, Acts]:
        found, nets = photographs.load(), networks.load_networks()
        return {
            name: networks.activations(nets, photographs.varied_crops(found, split, n, of_crops).images)
            for name, (split, n, of_crops) in _crops(size, seed).items()
        }

    return World(size, demonstration.VIEWS, networks.load_models, networks.load_models(threads=1), acts)


def pretrained(quick: bool) -> World:
    """Return the networks whose weights are in packages of the index."""
    size = of_pretrained.SMALL if quick else of_pretrained.FULL
    reading = pretrained_networks.load_models(threads=1)

    def acts(seed: int) -> dict[str, Acts]:
        found = pictures.load()
        return {
            name: pretrained_networks.activations(reading, pictures.crops(found, split, n, of_crops).images)
            for name, (split, n, of_crops) in _crops(size, seed).items()
        }

    making = functools.partial(pretrained_networks.load_models, side=of_pretrained.MAXIMIZED_SIDE)
    return World(size, of_pretrained.VIEWS, making, reading, acts)


def _crops(size: results.Size, seed: int) -> dict[str, tuple[photographs.Split, int, int]]:
    """Return the split, number and seed of crops. The first two are the demonstration's."""
    return {
        "train": ("train", size.training_crops, 2 * seed),
        "held out": ("held_out", size.held_out_crops, 2 * seed + 1),
        "further": ("held_out", size.held_out_crops, FURTHER + seed),
    }


WORLDS = {"small": small, "pretrained": pretrained}


def measured(
    world: World, recipe: usae.Recipe, acts: Mapping[str, Acts], n: int, quick: bool, seed: int
) -> tuple[dict[str, Any], list[list[usae.Maximization]]]:
    """Train with a recipe, make images for its concepts and let every model read them. Returns a record and the images."""
    clock = [time.process_time()]
    sae = usae.UniversalSAE(world.size.n_concepts, world.size.k, recipe=recipe, seed=seed)
    sae.fit(acts["train"], steps=world.size.steps, progress=False)
    clock.append(time.process_time())
    evaluation = sae.evaluate(acts["held out"])
    concepts = universal_concepts(evaluation, n)
    if quick:  # after so few steps hardly a concept is universal
        concepts = [int(concept) for concept in np.argsort(-evaluation.energy.min(0), kind="stable")[:n]]
    if not concepts:
        raise SystemExit("no concept is universal: train for more steps")
    natural = {
        split: np.stack([largest(sae.encode(x, name), concepts, len(x)) for name, x in acts[split].items()])
        for split in ("held out", "further")
    }
    clock.append(time.process_time())
    options = {"steps": world.size.ascent_steps, "views": world.views, "dataset": evaluation, "seed": seed}
    single = side_by_side.maximized(sae, concepts, world.making, **options)
    joint = side_by_side.maximized(sae, concepts, world.making, joint=True, **options)
    clock.append(time.process_time())
    names = evaluation.model_names
    makers = [[found.images[i] for found in single] for i in range(len(names))] + [[found.images[0] for found in joint]]
    codes = np.stack([[read(sae, name, world.reading[name], images, concepts) for name in names] for images in makers])
    clock.append(time.process_time())
    off = ~np.eye(len(names), dtype=bool)
    seconds = dict(zip(("training", "natural codes", "images", "reading"), np.diff(clock).tolist(), strict=True))
    record = {
        "models": list(names),
        "concepts": concepts,
        "input noise": float(sae.recipe_.input_noise),
        "universal": int(evaluation.universal().sum()),
        "R2 same": float(np.diag(evaluation.r2).mean()),
        "R2 other": float(evaluation.r2[off].mean()),
        "agreement": float(np.nanmean(evaluation.mean_agreement()[off])),
        "compared": {
            of: {what: plain(values.round(4)) for what, values in found.items()}
            for of, found in image_transfer.compared(codes, natural["held out"], natural["further"]).items()
        },
        "processor seconds": seconds,
    }
    return record, [single, joint]


def written(report: Report, records: Sequence[Mapping[str, Any]], size: results.Size) -> None:
    """Add the tables."""
    by_recipe = {name: [record for record in records if record["recipe"] == name] for name in RECIPES}
    by_recipe = {name: found for name, found in by_recipe.items() if found}
    counts = ", ".join(f"{sum(len(record['concepts']) for record in found)} ({name})" for name, found in by_recipe.items())
    seeds = sorted({record["key"]["seed"] for record in records})
    report.words(
        f"Seeds {', '.join(map(str, seeds))}. Most energetic universal concepts of each autoencoder: {counts}. "
        f"{size.ascent_steps} steps, {size.held_out_crops:,} held-out crops. Each pair is the share of images in which the "
        f"concept's largest code exceeds the {QUANTILE} quantile of held-out crops, and the median of that code as a share of "
        f"the largest in held-out crops; ±: standard error over concepts. *of their own image*: median of the code as a share "
        f"of that in the image that was made for the reader. *another concept*: the images that were made for the others of "
        f"these concepts. *natural*: more held-out crops."
    )
    report.rows(SUMMARY, [summary_row(name, found) for name, found in by_recipe.items()])
    for name, found in by_recipe.items():
        report.words(f"**{name}**: the image made for a row, read by a column")
        report.rows(["", *found[0]["models"]], matrix_rows(found))
    parts = list(records[0]["processor seconds"])
    report.words("Processor seconds, a mean over seeds")
    report.rows(
        ["", *parts, "for an image"],
        [
            [name, *(float(np.mean([record["processor seconds"][part] for record in found])) for part in parts), _each(found)]
            for name, found in by_recipe.items()
        ],
    )


def _each(records: Sequence[Mapping[str, Any]]) -> float:
    """Return the processor seconds that one image took. An image for all takes as long as one for each."""
    images = sum(2 * len(record["models"]) * len(record["concepts"]) for record in records)
    return float(sum(record["processor seconds"]["images"] for record in records) / images)


def save_figures(folder: Path, name: str, found: Sequence[Sequence[usae.Maximization]], n: int = 6) -> None:
    """Draw the images of the first concepts: those for one network, and those for all."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, each in zip(("single", "joint"), found, strict=True):
        usae.plot.maximization(list(each[:n])).savefig(folder / f"transfer-{name}-{kind}.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=list(WORLDS))
    parser.add_argument("--quick", action="store_true", help="few concepts and steps, to check that it works")
    parser.add_argument("--concepts", type=int, help="number of concepts of each autoencoder; default: 24, or 2 with --quick")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0 on")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="recipes to measure")
    parser.add_argument("--threads", type=int, default=1, help="threads of training, and images that are made at once")
    parser.add_argument("--images", type=Path, help="folder for figures of the first concepts' images; default: none")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    usae.set_num_threads(arguments.threads)
    n = arguments.concepts or (2 if arguments.quick else 24)
    table = f"transfer-{arguments.world}"
    report = Report(table, f"Images made in one network, read by others: {arguments.world}", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/transfer.py {shlex.join(sys.argv[1:])}"
    report.data["versions"] = {"usae": {"version": usae.__version__}, "torch": {"version": torch.__version__}}
    path = arguments.output / f"{table}{'-quick' if arguments.quick else ''}.json"
    world = WORLDS[arguments.world](arguments.quick)
    earlier = json.loads(path.read_text(encoding="utf-8"))["records"] if path.exists() and not arguments.quick else []
    records: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        acts: dict[str, Acts] = {}
        for name, recipe in RECIPES.items():
            # All that decides what is measured, as JSON has it.
            key = {"recipe": recipe.to_dict(), "seed": seed, "concepts": n, "views": world.views}
            key = json.loads(json.dumps(key | {"size": dataclasses.asdict(world.size)}))
            record = next((each for each in earlier if each["key"] == key), None)
            if record is None and name in arguments.recipes:
                acts = acts or world.acts(seed)
                found, images = measured(world, recipe, acts, n, arguments.quick, seed)
                record = {"recipe": name, "revision": report.data["revision"], "key": key} | found
                if arguments.images:
                    save_figures(arguments.images, f"{arguments.world}-{name}-{seed}", images)
            if record is not None:
                records.append(record)
                rest = [each for each in earlier if each["key"] not in [each["key"] for each in records]]
                replace_file(path, json.dumps({"records": records + rest}) + "\n")
                print(time.strftime("%H:%M:%S"), *summary_row(name, [record]), sep="  ", file=sys.stderr, flush=True)
    report.data["records"] = records
    written(report, records, world.size)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
