"""Ablation of coordinated activation maximization: python benchmarks/maximization.py [--quick].

Images are optimised for fifty evenly shared concepts in each network of the demonstration. The concepts are chosen by rank,
without looking at images. Rows are the default objective, other objectives, and MACO as its reference implementations have it.
Rows that are in the results are not run again. docs/maximization.md discusses the results.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import usae
from usae.demo import networks, photographs
from usae.maximization.scores import score_image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report, replace_file  # noqa: E402
from study import maco  # noqa: E402

STEPS, VIEWS = 96, 8
LEAST_FIRING = 100  # smallest number of held-out tokens in which a concept fires in each network

OURS: dict[str, dict[str, Any]] = {
    "ours: alignment, cosine squared": {},
    "the start, nothing optimised": {"steps": 1, "learning_rate": 0.0},
    "pre-activation, mean": {"kind": "preactivation"},
    "pre-activation, soft maximum": {"kind": "logsumexp"},
    "code, mean": {"kind": "code"},
    "code after 16 steps of pre-activation": {"kind": "code", "warmup": 16},
    "Fourier, magnitudes free": {"parametrization": "fourier"},
    "pixels": {"parametrization": "pixels"},
    "crops from half to a tenth": {"crops": (0.5, 0.1)},
}
REFERENCE = {"MACO as in references, alignment": "alignment", "MACO as in references, code": "code"}


class Subject:
    """The networks, an autoencoder of them, and the concepts."""

    def __init__(self, quick: bool):
        self.models = networks.load_models()
        train, held_out = (
            networks.activations(networks.load_networks(), photographs.crops(photographs.load(), split, n, seed).images)
            for split, n, seed in (("train", 200 if quick else 3000, 0), ("held_out", 100 if quick else 1000, 1))
        )
        # The recipe has no prefixes, because the records in results/ are of such an autoencoder.
        recipe = usae.recipes.default(prefixes=None, learning_rate=3e-3)
        self.sae = usae.UniversalSAE(256, 12, recipe=recipe, seed=0)
        self.sae.fit(train, steps=100 if quick else 2000, progress=False)
        self.evaluation = self.sae.evaluate(held_out)
        ev = self.evaluation
        alive = (ev.firing_entropy >= 0.9) & (ev.firing_counts.min(0) >= LEAST_FIRING)
        even = np.flatnonzero(alive)[np.argsort(-ev.energy[:, alive].min(0), kind="stable")]
        n = min(2 if quick else 50, len(even))
        self.concepts = [int(c) for c in even[np.linspace(0, len(even) - 1, n).round().astype(int)]]
        self.n_even = len(even)
        self.steps = 8 if quick else STEPS

    def ours(self, concept: int, options: dict[str, Any]) -> list[np.ndarray]:
        options = {"steps": self.steps, "views": VIEWS} | options
        found = usae.maximize(self.sae, concept, self.models, progress=False, **options)
        return [image if started else None for image, started in zip(found.images, found.started, strict=True)]

    def reference(self, concept: int, kind: usae.Objective) -> list[np.ndarray]:
        maximizer = usae.Maximizer(self.models)
        images = []
        for name, model in self.models.items():

            def slope(views: np.ndarray, name: str = name, model: Any = model) -> np.ndarray:
                activations, pull = model.vjp(views)
                return pull(usae.objective(self.sae, activations, name, concept, kind=kind)[1])

            images.append(
                maco.maximize(
                    slope,
                    canvas=maximizer.shape[0],
                    size=64,
                    steps=self.steps,
                    views=VIEWS,
                    crops=maximizer.crops,
                    noise=0.05,
                    seed=0,
                )  # fmt: skip
            )
        return images

    def scores(self, images: dict[int, list[np.ndarray]]) -> dict[str, float]:
        """Return means over concepts and networks of the scores of whole images. An image that did not start is None."""
        rows: list[dict[str, float]] = []
        others = dict(zip(images, [*list(images)[1:], *list(images)[:1]], strict=True))
        names = list(self.models)
        for concept, own in images.items():
            peaks, other_peaks = (self.evaluation.max_activation[:, c] for c in (concept, others[concept]))
            for i, image in enumerate(own):
                if image is None:
                    rows.append({"started": 0.0, "fires": 0.0})
                    continue
                scores = [score_image(self.sae, concept, self.models[name], name, image) for name in names]
                foreign = [score_image(self.sae, others[concept], self.models[name], name, image) for name in names]
                elsewhere = [j for j in range(len(names)) if j != i]
                rows.append(
                    {
                        "started": 1.0,
                        "fires": float(scores[i].peak > 0),
                        "share of tokens": scores[i].share,
                        "of dataset's peak": scores[i].peak / peaks[i],
                        "super-stimulus": float(scores[i].peak > 1.5 * peaks[i]),
                        "of code": scores[i].of_code,
                        "R2": scores[i].r2,
                        "fires in others": float(np.mean([scores[j].peak > 0 for j in elsewhere])),
                        "of their peak": float(np.mean([scores[j].peak / peaks[j] for j in elsewhere])),
                        "another concept, of its peak": float(np.mean([score.peak for score in foreign] / other_peaks)),
                        "corners": corner_contrast(image),
                    }
                )
        return {key: float(np.mean([row[key] for row in rows if key in row])) for key in max(rows, key=len)}


def corner_contrast(image: np.ndarray) -> float:
    """Return the variance in the four corners, an eighth of the side each, divided by that of the whole image."""
    side = max(2, image.shape[1] // 8)
    corners = [image[:, :side, :side], image[:, :side, -side:], image[:, -side:, :side], image[:, -side:, -side:]]
    mean = image.mean((1, 2), keepdims=True)
    return float(np.mean([np.square(corner - mean).mean() for corner in corners]) / np.square(image - mean).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two concepts and few steps, to check that it works")
    parser.add_argument("--rows", nargs="*", choices=[*OURS, *REFERENCE], help="rows to run; default: all")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch and usae")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    usae.set_num_threads(arguments.threads)
    subject = Subject(arguments.quick)
    path = arguments.output / f"maximization{'-quick' if arguments.quick else ''}-records.json"
    records: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.rows or [*OURS, *REFERENCE]:
        if name in records:
            continue
        start = time.process_time()
        if name in OURS:
            images = {concept: subject.ours(concept, OURS[name]) for concept in subject.concepts}
        else:
            images = {concept: subject.reference(concept, REFERENCE[name]) for concept in subject.concepts}
        seconds = (time.process_time() - start) / (3 * len(images))
        records[name] = subject.scores(images) | {"CPU seconds an image": seconds}
        replace_file(path, json.dumps(records, indent=1) + "\n")
        print(time.strftime("%H:%M:%S"), name, {k: round(v, 3) for k, v in records[name].items()}, file=sys.stderr, flush=True)
    report = Report("maximization", "Coordinated activation maximization", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/maximization.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "torch": {"version": torch.__version__}}
    report.data["records"] = records
    report.words(
        f"{len(subject.concepts)} of the {subject.n_even} evenly shared concepts (firing entropy .9 or more, {LEAST_FIRING} "
        f"firings or more in each network) of the demonstration's networks, evenly spaced by energy; {subject.steps} steps of "
        f"{VIEWS} views. Of whole images, means over concepts and networks."
    )
    columns = list(next(iter(records.values())))
    report.rows(
        ["", *columns], [[name, *(f"{records[name].get(column, float('nan')):.3f}" for column in columns)] for name in records]
    )
    mine = next(iter(OURS))
    if mine in records:
        report.target("share that fire in their own network", records[mine]["fires"], at_least=0.95)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
