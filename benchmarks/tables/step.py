"""A training step of three models: usae compared with the published recipe in PyTorch."""

from __future__ import annotations

import contextlib
import os
import sys
from statistics import median

import agreement
import problems
import settings
import yardsticks
from client import Worker
from report import Report
from settings import Run
from yardsticks import Limits

TITLE = "A training step of three models"

N_BATCHES = 3
# The planned run is long and has no warm-up, because the first step, which is compared, must change parameters.
PLAN = {"total_steps": 100_000, "warmup_steps": 0}

RIVALS = [(variant, aux) for aux in (True, False) for variant in ("plain", "tuned")]
AUX = "default, a tenth of the concepts dead"
WHOLE = "default, whole code"
WHOLE_AUX = "default, whole code, a tenth of the concepts dead"
ONE = "default with one encoder"
NO_TERM = "default without agreement"
NO_NOISE = "default without noise"
MOST_OF_TWO = 1.1  # how much longer a step of as many encodings may take with two encoders that agree
MOST_OF_AUX = 1.25  # how much longer a step of the whole code may take with a tenth of the concepts dead
NO_AUX = {"aux": "none"}
NOISE = {"input_noise": 0.1}  # `fit` derives it, and steps alone have none; it takes as long whatever its size is


def measure(run: Run, report: Report) -> None:
    limits = yardsticks.measured(run, report, run.n_tokens, run.widths["siglip"], run.n_concepts)
    with contextlib.ExitStack() as stack:
        mine = {name: stack.enter_context(w) for name, w in settings.ours_with_and_without_screening(run).items()}
        torch = stack.enter_context(Worker("torch_published.py", sys.executable, run.threads))
        torch.call("set_threads", threads=run.threads)
        report.data["versions"] = {name: worker.call("info") for name, worker in mine.items()} | {"PyTorch": torch.call("info")}
        _check(run, report, mine, torch)
        _time(run, report, mine, torch, limits)


# --- Agreement --------------------------------------------------------------------------------------------------------


def _check(run: Run, report: Report, mine: dict[str, Worker], torch: Worker) -> None:
    """Compare one step from the same parameters on the same batch, with a small size and with the size that is timed."""
    sizes = [("small", {"siglip": 48, "dinov2": 32, "vit": 64}, 384, 8, 512)]
    sizes += [("as timed", run.widths, run.n_concepts, run.k, run.n_tokens)]
    rows, data = [], []
    measures = ("loss", "median_row", "rows_apart", "moved_otherwise")
    for size, widths, n_concepts, k, n_tokens in sizes:
        files = problems.activations(run.folder, widths, n_tokens, seed=7)
        parameters = problems.published_parameters(run.folder, widths, n_concepts)
        torch.call("load_batch", name="check", files=files)
        for worker in mine.values():
            worker.call("load_batch", name="check", files=files)
        for aux in (True, False):
            theirs = {}
            for variant in ("plain", "tuned"):
                file = os.fspath(run.folder / f"{variant}.npz")
                torch.call("make", name="check", variant=variant, widths=widths, n_concepts=n_concepts, k=k, aux=aux)
                torch.call("set_parameters", name="check", files=parameters)
                loss = torch.call("step_and_save", name="check", batch="check", encoder="siglip", file=file)
                theirs[variant] = file, loss
            torch.call("drop", name="check")
            for name, worker in mine.items():
                file = os.fspath(run.folder / "ours.npz")
                worker.call(
                    "make", name="check", base="published", n_concepts=n_concepts, k=k, threads=run.threads,
                    arguments=PLAN, changes=None if aux else NO_AUX, widths=widths,
                )  # fmt: skip
                worker.call("set_parameters", name="check", files=parameters)
                loss = worker.call("step_and_save", name="check", batch="check", encoder="siglip", file=file)
                worker.call("drop", name="check")
                for variant, (other, other_loss) in theirs.items():
                    found = agreement.steps_agree(file, other, loss, other_loss, rate=3e-4)
                    data.append({"size": size, "side": name, "rival": variant, "aux": aux, "loss_value": loss} | found)
                    label = f"{size}, {'with' if aux else 'without'} AuxK, {name} and PyTorch {variant}"
                    rows.append([label, *(f"{found[key]:.1e}" for key in measures)])
    report.data["agreement"] = data
    report.words(
        "Agreement after one step from the same parameters on the same batch, before anything is timed. A token whose last "
        "place is a near-tie may be encoded otherwise, by rounding; it sets the gradients of its k + 1 concepts apart."
    )
    heading = ["", "loss", "gradient rows, median", "gradient rows apart", "parameters that moved otherwise"]
    report.rows(heading, rows)


# --- Time -------------------------------------------------------------------------------------------------------------


def _time(run: Run, report: Report, mine: dict[str, Worker], torch: Worker, limits: Limits) -> None:
    names = [str(number) for number in range(N_BATCHES)]
    files = problems.activations(run.folder, run.widths, N_BATCHES * run.n_tokens)
    for number, name in enumerate(names):
        rows = {"start": number * run.n_tokens, "stop": (number + 1) * run.n_tokens}
        for worker in (torch, *mine.values()):
            worker.call("load_batch", name=name, files=files, **rows)
        half = {"start": rows["start"], "stop": rows["start"] + run.n_tokens // 2}
        for worker in mine.values():
            worker.call("load_batch", name=_half(name), files=files, **half)
    # The steps that are timed: worker, name of its autoencoder and steps in a turn, by label.
    timed = {}
    recipes = {
        "default": ("default", {}, NOISE),
        AUX: ("default", {}, NOISE | {"dead_tokens": 1, "learning_rate": 0}),  # rate 0: dead concepts stay dead
        WHOLE: ("default", {}, NOISE | {"prefixes": None, "learning_rate": 0}),
        WHOLE_AUX: ("default", {}, NOISE | {"prefixes": None, "dead_tokens": 1, "learning_rate": 0}),
        NO_NOISE: ("default", {}, {"input_noise": 0.0}),
        NO_TERM: ("default", {}, NOISE | {"agreement": 0.0}),
        ONE: ("default", {}, NOISE | {"agreement": 0.0, "encoded_models": "one"}),
        "published": ("published", PLAN, {}),
        "published without AuxK": ("published", PLAN, NO_AUX),
    }
    for side, worker in mine.items():
        for recipe, (base, arguments, changes) in recipes.items():
            worker.call(
                "make", name=recipe, base=base, n_concepts=run.n_concepts, k=run.k, threads=run.threads,
                arguments=arguments, changes=changes,
            )  # fmt: skip
            if recipe in (AUX, WHOLE_AUX):
                report.data["dead"] = worker.call("silence", name=recipe, batch=_batch(recipe, names[0]), one_in=10)
            timed[f"{recipe}, {side}"] = worker, recipe, 1 if recipe == "published" else 4
    for variant, aux in RIVALS:
        name = f"published{'' if aux else ' without AuxK'}, PyTorch {variant}"
        torch.call("make", name=name, variant=variant, widths=run.widths, n_concepts=run.n_concepts, k=run.k, aux=aux)
        timed[name] = torch, name, 1

    seconds: dict[str, dict[str, list[float]]] = {label: {model: [] for model in run.widths} for label in timed}
    for worker, name, _ in timed.values():
        warm_up = [_batch(name, batch) for batch in (names if worker is not torch else names[:1])]
        for model in run.widths if worker is not torch else list(run.widths)[:1]:
            worker.call("step", name=name, batch=warm_up, encoder=model, count=len(warm_up))
    for turn in range(run.repeats(3)):
        batch = names[turn % N_BATCHES]
        for model in run.widths:
            for label, (worker, name, count) in timed.items():
                given = _batch(name, batch)
                seconds[label][model] += worker.call("step", name=name, batch=given, encoder=model, count=count)["seconds"]
    report.data["seconds"] = seconds

    # The mean over the models, which are encoded equally often.
    mix = {label: sum(median(of) for of in by_model.values()) / len(run.widths) for label, by_model in seconds.items()}
    product = limits.product_seconds(run.n_tokens, sum(run.widths.values()) / len(run.widths), run.n_concepts)
    rows = [
        [label, *(1e3 * median(of) for of in seconds[label].values()), 1e3 * mean, run.n_tokens / mean, mean / product]
        for label, mean in mix.items()
    ]
    widths = ", ".join(f"{name} {width}" for name, width in run.widths.items())
    report.words(
        f"{run.n_tokens} encodings, {run.n_concepts} concepts, k = {run.k}, {widths}; medians, all in turn. The columns say "
        f"which model is encoded; all are decoded. The default recipe encodes half as many tokens, from the column's model "
        f"and from another that is drawn; *with one encoder* and the published recipe encode all of them from one. *plain* is "
        f"written as the published code is, *tuned* computes the same with AuxK's code once a step, no unused gradients and "
        f"PyTorch's fused AdamW. Activations are made up (sparse factors and noise). With *a tenth of the concepts dead* "
        f"({report.data['dead']} were), our default recipe's AuxK is at work; otherwise none is dead so early. Half of the "
        f"default recipe's steps reconstruct from a part of the concepts, without AuxK; *whole code* is without such steps."
    )
    report.rows(["milliseconds", *run.widths, "mean of the three", "encodings/s", "times encoder product"], rows)

    for side in mine:
        ratio = mix[f"{WHOLE_AUX}, {side}"] / mix[f"{WHOLE}, {side}"]
        report.target(f"a step of the whole code, a tenth of the concepts dead vs none ({side})", ratio, at_most=MOST_OF_AUX)
        ratio = mix[f"default, {side}"] / mix[f"{ONE}, {side}"]
        report.target(f"two encoders that agree, over half the tokens, vs one over all ({side})", ratio, at_most=MOST_OF_TWO)
        for variant in ("plain", "tuned"):
            with_aux, without = (f"published{aux}, PyTorch {variant}" for aux in ("", " without AuxK"))
            for target, ours, theirs, at_least in [
                ("default recipe's step vs the published recipe in PyTorch", "default", with_aux, 35),
                ("published with AuxK", "published", with_aux, 7),
                ("published without AuxK on both sides", "published without AuxK", without, 24),
            ]:
                ratio = mix[theirs] / mix[f"{ours}, {side}"]
                report.target(f"{target} ({side}; PyTorch {variant})", ratio, at_least=at_least)


def _half(batch: str) -> str:
    """Return the name of the first half of a batch."""
    return f"half of {batch}"


def _batch(recipe: str, batch: str) -> str:
    """Return the name of what a recipe is timed on: as many encodings in all."""
    return _half(batch) if recipe.startswith("default") and recipe != ONE else batch
