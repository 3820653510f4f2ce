"""Measures a model that joins later: python benchmarks/joining.py [--quick].

Each model of three in turn is left out of a training and joins it afterwards, by `UniversalSAE.add_model` with its defaults
(a third of the steps), and is compared on held-out rows with training all three from the start. Two data sets: the
demonstration's networks (1,500 crops, m = 512, k = 16), and 128 known concepts that three models share with 24 private ones of
each (20,000 rows, m = 384, k = 8). "Best linear map" is the R2 of the new model from the others' codes by least squares: what
no dictionary can exceed whose codes were made without the new model. See docs/training.md, "Add a model".
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

import usae
from usae._training import freezing

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report  # noqa: E402

COLUMNS = ("own R2", "R2 to the others", "agreement", "R2 from the others")
LEAST_SQUARES = "R2 from the others, best linear map"


def demonstration(seed: int, quick: bool) -> tuple[Any, Any, Any]:
    from usae.demo import networks, photographs

    found, nets = photographs.load(), networks.load_networks()
    n_train, n_held_out = (60, 30) if quick else (1500, 500)
    crops = photographs.crops(found, "train", n_train, seed=0), photographs.crops(found, "held_out", n_held_out, seed=1)
    train, held_out = (networks.activations(nets, each.images) for each in crops)
    return train, held_out, None


def known(seed: int, quick: bool) -> tuple[Any, Any, Any]:
    n_tokens = 4_000 if quick else 20_000
    truth = usae.synthetic.universal({"a": 32, "b": 48, "c": 64}, n_shared=128, n_private=24, n_tokens=n_tokens, seed=seed)
    held_out = truth.sample(2_000 if quick else 10_000)
    return truth.acts, held_out.acts, lambda sae: float(usae.synthetic.score(sae, truth, held_out).universally_recovered)


WORLDS = {"demonstration": (demonstration, 512, 16), "known concepts": (known, 384, 8)}


def figures(evaluation: usae.Evaluation, name: str) -> dict[str, float]:
    """The numbers of one model: its own R2, that to and from the others, and its agreement with them."""
    i = evaluation.model_names.index(name)
    others = [j for j in range(len(evaluation.model_names)) if j != i]
    agreement = evaluation.mean_agreement()
    values = (
        evaluation.r2[i, i],
        evaluation.r2[i, others].mean(),
        (agreement[i, others].mean() + agreement[others, i].mean()) / 2,
        evaluation.r2[others, i].mean(),
    )
    return dict(zip(COLUMNS, map(float, values), strict=True))


def least_squares(sae: usae.UniversalSAE, train: Any, held_out: Any, name: str) -> float:
    """R2 of a model from the others' codes by the best linear map, a mean over the others."""
    found = []
    for other in sae.model_names_:
        if other != name:
            codes = [np.asarray(sae.encode(acts[other], other)).reshape(-1, sae.n_concepts) for acts in (train, held_out)]
            x, y = (np.c_[code, np.ones(len(code))].astype(float) for code in codes)
            known, truth = (
                acts[name].reshape(len(code), -1).astype(float) for acts, code in zip((train, held_out), (x, y), strict=True)
            )
            gram = x.T @ x
            weights = np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ known)
            found.append(1 - ((truth - y @ weights) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())
    return float(np.mean(found))


def measured(world: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train all from the start, and let each join the others; a record for each."""
    make, n_concepts, k = WORLDS[world]
    train, held_out, recovered = make(seed, arguments.quick)
    steps = 60 if arguments.quick else arguments.steps

    def new() -> usae.UniversalSAE:
        return usae.UniversalSAE(n_concepts, k, seed=seed, n_threads=arguments.threads)

    start = time.process_time()
    whole = new().fit(train, steps=steps, progress=False)
    seconds, evaluation = time.process_time() - start, whole.evaluate(held_out)
    records = []
    for name in train:
        sae = new().fit({each: x for each, x in train.items() if each != name}, steps=steps, progress=False)
        recipe = freezing.joining_recipe(sae._initialized()).replace(**arguments.tried) if arguments.tried else None
        start = time.process_time()
        sae.add_model(name, train, recipe=recipe, progress=False)
        record = {
            "world": world,
            "seed": seed,
            "joins": name,
            "share of processor time": (time.process_time() - start) / seconds,
        }
        record |= {"from the start": figures(evaluation, name), "joined": figures(sae.evaluate(held_out), name)}
        if not arguments.tried:
            record["joined"][LEAST_SQUARES] = least_squares(sae, train, held_out, name)
        if recovered is not None:
            record |= {"recovered from the start": recovered(whole), "recovered, joined": recovered(sae)}
        records.append(record)
        print(json.dumps(record), file=sys.stderr, flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to check that it works")
    parser.add_argument("--threads", type=int, default=1, help="threads of training")
    parser.add_argument("--steps", type=int, default=1500, help="steps of the training from the start")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 on")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="data sets, separated by commas")
    parser.add_argument("--tried", type=json.loads, default={}, help="fields of the joining recipe to change, as JSON")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    report = Report("joining", "A model that joins later", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/joining.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "numpy": {"version": np.__version__}}
    records = report.data["results"] = []
    for world in arguments.worlds.split(","):
        found = [record for seed in range(arguments.seeds) for record in measured(world, seed, arguments)]
        records += found
        names = list(dict.fromkeys(record["joins"] for record in found))
        known = sorted({key for record in found for key in record if key.startswith("recovered")}, reverse=True)
        rows = []
        for name in [*names, "mean"]:
            own = [record for record in found if name in (record["joins"], "mean")]
            row: list[Any] = [name]
            for column in COLUMNS:
                pairs = [(record["from the start"][column], record["joined"][column]) for record in own]
                row += [f"{np.mean(pairs, 0)[0]:.3f}", f"{np.mean(pairs, 0)[1] - np.mean(pairs, 0)[0]:+.3f}"]
            maps = [record["joined"].get(LEAST_SQUARES, np.nan) for record in own]
            row += [f"{np.mean(maps):.3f}", f"{np.mean([record['share of processor time'] for record in own]):.2f}"]
            rows.append(row + [f"{np.mean([record[key] for record in own]):.3f}" for key in known])
        heading = ["joins", *(head for column in COLUMNS for head in (column, "joined"))]
        report.words(f"**{world}**, means over {arguments.seeds} seeds")
        report.rows([*heading, LEAST_SQUARES, "share of processor time", *known], rows)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
