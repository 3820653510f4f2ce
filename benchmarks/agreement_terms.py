"""Compares terms that make codes of two models agree: python benchmarks/agreement_terms.py [--quick].

The default recipe's agreement term is the squared difference of pre-activations at the concepts that one of two encoders
selected (docs/method.md). Here it and the other terms of study/agreement_terms.py are trained in plain PyTorch on one thread,
each with several weights, and otherwise as the default recipe has it: two encoders in a step, rows of norm 1 at most, weights
that rise in the course of the run; but without nested prefixes, merging and AuxK, and at one learning rate. What was trained is
evaluated as every autoencoder is.

More agreement costs R2, so single points cannot be compared. "At equal agreement" is what a term has beyond the squared
difference of that weight, between those that were trained, which gives the same agreement. What is in the results is not
trained again, so a study that was stopped continues where it was. docs/recipes.md says what came of it.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report, replace_file  # noqa: E402
from study.agreement_terms import REFERENCE, TERMS, Encoded, Term  # noqa: E402
from study.figures import of_evaluation  # noqa: E402
from study.worlds import World, narrow  # noqa: E402
from study.worlds import rows as as_rows  # noqa: E402

RECIPE = usae.recipes.default()
LEARNING_RATE = 5e-3


def small(quick: bool) -> World:
    """The demonstration's three networks, the activations that the package has."""
    train, held_out = map(as_rows, usae.demo.activations())
    return World(train, held_out, n_concepts=512, k=12, steps=600)


WORLDS = {"small": small, "narrow": narrow}


class Training:
    """Encoders and dictionaries of one seed, with their optimiser. A copy is taken for each term when weights start to rise."""

    def __init__(self, world: World, seed: int, steps: int):
        self.seed, self.steps, self.step, self.k = seed, steps, 0, world.k
        self.rng = np.random.default_rng(seed)
        rows = self.rng.choice(len(next(iter(world.train.values()))), world.n_concepts, replace=False)  # the same in all models
        self.w, self.b, self.d = ({} for _ in range(3))
        for name, x in standardized(world).items():
            self.d[name] = functional.normalize(x[rows])
            x_hat = Encoded.of(x[:4096] @ self.d[name].T, world.k).code @ self.d[name]
            self.w[name] = (x[:4096] * x_hat).sum() / x_hat.square().sum() * self.d[name]
            self.b[name] = torch.zeros(world.n_concepts)
        tensors = [one.requires_grad_() for group in (self.w, self.b, self.d) for one in group.values()]
        self.adam = torch.optim.Adam(tensors, LEARNING_RATE, (RECIPE.beta1, RECIPE.beta2), RECIPE.epsilon, fused=True)

    def encoded(self, batch: dict[str, torch.Tensor], name: str) -> Encoded:
        return Encoded.of(batch[name] @ self.w[name].T + self.b[name], self.k)

    def advance(self, x: dict[str, torch.Tensor], until: int, term: Term, weight: float) -> None:
        """Train on standardised activations, 2,048 encodings a step, until so many steps are done."""
        names, n = list(x), RECIPE.batch_size // 2
        per_element = torch.cat([torch.full((one.shape[1],), 1 / one.shape[1]) for one in x.values()])
        while self.step < until:
            passed = self.step / self.steps
            warm = (self.step + 1) / min(RECIPE.warmup_steps, max(1, self.steps // 10))
            self.adam.param_groups[0]["lr"] = LEARNING_RATE * min(1, warm, (1 - passed) / RECIPE.decay_share)
            share = min(max((passed - RECIPE.agreement_start) / (RECIPE.agreement_full - RECIPE.agreement_start), 0), 1)
            drawn = torch.from_numpy(self.rng.integers(0, len(x[names[0]]), n))
            order = [names[i] for i in self.rng.permutation(len(names))]
            batch = {name: x[name][drawn] for name in names}
            taught = [self.encoded(batch, name) for name in order[:2]]
            x_hat = functional.embedding_bag(
                torch.cat([one.columns for one in taught]),
                torch.cat([self.d[name] for name in names], dim=1),
                per_sample_weights=torch.cat([one.values for one in taught]),
                mode="sum",
            )
            residual = torch.cat([batch[name] for name in names], dim=1).repeat(2, 1) - x_hat
            loss = (residual.square() @ per_element).mean()
            if weight * share > 0:
                with torch.no_grad():
                    watched = [self.encoded(batch, name) for name in order[2:]] if term.everyone else []
                loss = loss + weight * share * term.loss(taught, taught + watched) / n
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            with torch.no_grad():
                for rows in self.d.values():
                    rows /= rows.norm(dim=1, keepdim=True).clamp_min(1)
            self.step += 1

    def autoencoder(self, world: World) -> usae.UniversalSAE:
        """Return what was trained as an autoencoder that can be evaluated."""
        sae = usae.UniversalSAE(len(next(iter(self.b.values()))), self.k, recipe=RECIPE, seed=self.seed, n_threads=1)
        sae.initialize({name: one.shape[1] for name, one in self.d.items()})
        for name, (centre, scale) in standardization(world).items():
            found = {"encoder_weight": self.w[name], "encoder_bias": self.b[name], "dictionary": self.d[name]}
            arrays = {key: one.detach().numpy() for key, one in found.items()}
            sae.set_parameters(name, arrays | {"mean": centre, "scale": np.full(len(centre), scale, np.float32)})
        return sae


def standardization(world: World) -> dict[str, tuple[np.ndarray, float]]:
    """Return each model's centre, one number for each dimension, and its scale."""
    return {name: (rows.mean(0), float(np.sqrt(rows.var(0).mean()))) for name, rows in world.train.items()}


def standardized(world: World) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy((world.train[name] - c) / s) for name, (c, s) in standardization(world).items()}


def measure(sae: usae.UniversalSAE, world: World) -> dict[str, float]:
    evaluation = sae.evaluate(world.held_out)
    apart = ~np.eye(len(evaluation.model_names), dtype=bool)
    found = of_evaluation(evaluation) | {"agreement": float(evaluation.mean_agreement()[apart].mean())}
    if world.truth is not None:
        score = usae.synthetic.score(sae, world.truth, world.tokens)
        found |= {"universal": score.universally_recovered, "private": float(score.recovered[score.private].mean())}
        found["AUROC"] = score.entropy_auroc
    return found


def beyond(found: dict[str, float], reference: list[dict[str, float]], column: str) -> float | None:
    """Return what there is more in a column than the reference has at the same agreement; None outside its range."""
    line = sorted((one["agreement"], one[column]) for one in reference)
    if not line or not line[0][0] <= found["agreement"] <= line[-1][0]:
        return None
    return found[column] - float(np.interp(found["agreement"], *zip(*line, strict=True)))


COLUMNS = ("R2 same", "R2 other", "agreement", "cofire", "dead", "universal", "private", "AUROC")
COMPARED = ("R2 same", "R2 other", "cofire", "universal", "private")


def tell(records: list[dict[str, Any]], world: str, report: Report) -> None:
    """Add a data set's table: means over seeds, each compared with the reference of the same seed."""
    references: dict[int, list[dict[str, float]]] = {one["seed"]: [] for one in records}
    for one in records:
        if one["term"] == REFERENCE:
            references[one["seed"]].append(one["figures"])
    columns = [column for column in COLUMNS if any(column in one["figures"] for one in records)]
    compared = [column for column in COMPARED if column in columns]
    rows = []
    for term, weight in dict.fromkeys((one["term"], one["weight"]) for one in records):
        found = [one for one in records if (one["term"], one["weight"]) == (term, weight)]
        cells = [f"{np.mean([one['figures'][column] for one in found]):.3f}" for column in columns]
        for column in compared:
            more = [beyond(one["figures"], references[one["seed"]], column) for one in found if term != REFERENCE]
            known = [value for value in more if value is not None]
            cells.append(f"{np.mean(known):+.3f}" if known and len(known) == len(more) else "")
        rows.append([term if weight else "none", f"{weight:g}" if weight else "", len(found), *cells])
    report.words(f"**{world}**: {WORLDS[world].__doc__}")
    report.rows(["term", "weight", "seeds", *columns, *(f"{column} at equal agreement" for column in compared)], rows)


def cases(terms: list[str], arguments: argparse.Namespace) -> list[tuple[str, float]]:
    few = 2 if arguments.quick else None
    return [(term, weight) for term in terms for weight in arguments.weights or TERMS[term].weights[:few]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", default=";".join(TERMS), help="terms, separated by semicolons")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="data sets, separated by commas")
    parser.add_argument("--weights", type=float, nargs="+", help="weights of every term, in place of its own")
    parser.add_argument("--steps", type=int, help="steps of each training, in place of the data set's")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0 on")
    parser.add_argument("--table", action="store_true", help="train nothing, and write the tables of what is in the results")
    parser.add_argument("--quick", action="store_true", help="few tokens, steps and weights, to check that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    terms, worlds = arguments.terms.split(";"), arguments.worlds.split(",")
    for option, chosen, known in (("terms", terms, TERMS), ("worlds", worlds, WORLDS)):
        for name in chosen:
            if name not in known:
                parser.error(f"--{option}: unknown {name!r}; there are {'; '.join(known)}")
    torch.set_num_threads(1)

    report = Report("agreement_terms", "Terms that make codes agree", 1, arguments.quick)
    report.data["command"] = f"python benchmarks/agreement_terms.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "torch": {"version": torch.__version__}}
    path = arguments.output / f"agreement_terms{'-quick' if arguments.quick else ''}.json"
    records = report.data["results"] = json.loads(path.read_text())["results"] if path.exists() else []
    report.words("Held-out rows; means over seeds. What is at equal agreement is beyond that of the squared difference.")
    for name in worlds:
        world = WORLDS[name](arguments.quick)
        steps = arguments.steps or (20 if arguments.quick else world.steps)
        x = standardized(world)
        for seed in range(0 if arguments.table else arguments.seeds):
            started = None
            for term, weight in cases(terms, arguments):
                key = {"world": name, "term": term, "weight": weight, "seed": seed, "steps": steps}
                if any(key.items() <= record.items() for record in records):
                    continue
                if started is None:
                    started = Training(world, seed, steps)
                    started.advance(x, int(RECIPE.agreement_start * steps), TERMS[REFERENCE], 0.0)
                training = copy.deepcopy(started)
                training.advance(x, steps, TERMS[term], weight)
                found = measure(training.autoencoder(world), world)
                records.append(key | {"figures": found})
                replace_file(path, json.dumps(report.data, indent=1) + "\n")
                line = " ".join(f"{column} {value:.3f}" for column, value in found.items())
                print(name, term, weight, f"seed {seed}:", line, file=sys.stderr, flush=True)
        shown = [one for one in records if (one["world"], one["steps"]) == (name, steps) and one["seed"] < arguments.seeds]
        tell(shown, name, report)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
