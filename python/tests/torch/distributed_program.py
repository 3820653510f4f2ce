"""What test_distributed.py starts in several processes: ``distributed_program.py FOLDER SCENARIO``.

Each process leaves what it saw in ``FOLDER/rank.json``.
"""

import functools
import hashlib
import json
import os
import pathlib
import signal
import sys

import numpy as np
import torch
import torch.distributed

import usae
import usae.torch
from support.autoencoders import planted
from usae.torch import DistributedTrainer, fit_distributed

torch.set_num_threads(1)
FOLDER, SCENARIO = pathlib.Path(sys.argv[1]), sys.argv[2]
CONCEPTS, K, SEED, STEPS, BATCH = 60, 4, 3, 50, 120
RECIPES = {
    "default": usae.recipes.default(
        batch_size=BATCH, learning_rate=1e-2, merge_cosine=0.4, merge_every=7, dead_tokens=400, encoded_models="one"
    ),
    "published": usae.recipes.published(total_steps=STEPS).replace(batch_size=BATCH, warmup_steps=5, learning_rate=5e-3),
    "two": usae.recipes.default(
        batch_size=BATCH, learning_rate=1e-2, encoded_models="two", agreement=0.1, dead_tokens=400, selection="batchtopk"
    ),
}


def new(recipe):
    return usae.UniversalSAE(CONCEPTS, K, recipe=recipe, seed=SEED, n_threads=1)


def digest(sae):
    """Of the whole state of training."""
    autoencoder, sums = sae._autoencoder, hashlib.sha256()
    for model in range(len(autoencoder.names)):
        for name in (*autoencoder.parameter_names(), *autoencoder.training_state_names()):
            sums.update(autoencoder.read(model, name).tobytes())
    return f"{sums.hexdigest()} {sae.n_steps_}"


def part(batch, rank, sizes):
    first = sum(sizes[:rank])
    return {name: x[first : first + sizes[rank]] for name, x in batch.items()}


def one_step(name, rank, size):
    """Gradients that cross in a step, against those of one process with all rows; ranks have different numbers of them."""
    sae, batch = new(RECIPES[name]), planted(300, seed=50)
    for step in range(3):
        sae.partial_fit(planted(300, seed=40 + step))
    errors = {}
    trainer = DistributedTrainer(sae)
    sizes = [300 - 50 * (size - 1)] + [20, 80, 50][: size - 1]
    sizes[0] = 300 - sum(sizes[1:])
    for encoder in sae.model_names_:
        report, gradients = sae.gradients(batch, encoder=encoder)
        done = trainer.partial_fit(part(batch, rank, sizes), encoder=encoder)
        errors[f"{encoder}: loss"] = abs(done.loss - report.loss) / report.loss
        sums = trainer._buffers.arrays([count // 4 for count in trainer.exchanged_.bytes])
        for what, total in zip(trainer.exchanged_.names, sums, strict=True):
            if what.startswith("gradient"):
                tensor, model = what.removeprefix("gradient of ").split(" of ")
                wanted = gradients[model][tensor].ravel()
                errors[f"{encoder}: {what}"] = float(np.linalg.norm(total - wanted) / np.linalg.norm(wanted))
        # Behind three losses of each encoder, the auxiliary one, L0, whether numbers are finite, and perhaps the agreement.
        summary = sums[-1][3 * len(report.encoders) + 3 + (report.agreement > 0) :]
        for one in report.encoders:
            for vector in (name for name in ("encoder_bias", "bn_weight", "bn_bias") if name in gradients[one]):
                wanted, total = gradients[one][vector], summary[:CONCEPTS]
                apart = np.linalg.norm(total - wanted) / max(np.linalg.norm(wanted), 1e-30)
                errors[f"{encoder}, {one}: {vector}"] = float(apart)
                summary = summary[CONCEPTS:]
            summary = summary[CONCEPTS:]  # the concepts that fired
    return {"errors": errors, "digest": digest(sae)}


def whole_run(name, **options):
    acts = planted(600, seed=0)
    sae = fit_distributed(new(RECIPES[name]), acts, steps=STEPS, progress=False, **options)
    return sae, acts


def correctness(rank, size):
    seen = {}
    for name in RECIPES:
        seen[f"step {name}"] = one_step(name, rank, size)
        sae, acts = whole_run(name, validation=planted(100, seed=1))
        alone = new(RECIPES[name]).fit(acts, steps=STEPS, progress=False)
        losses = [[entry["loss"] for entry in one.history_] for one in (sae, alone)]
        seen[f"run {name}"] = {
            "losses": losses,
            "dead": [entry["dead"] for entry in sae.history_],
            "validated": [entry["step"] for entry in sae.history_ if "validation" in entry],
            "digest": digest(sae),
        }
    return seen


def weakly_paired(rank, size):
    """A run on parts that have different models."""
    acts, seen = planted(600, seed=0), {}
    weak = usae.WeaklyPaired(
        {name: x[:200] for name, x in acts.items()}, {"vit": acts["vit"][200:]}, {"siglip": acts["siglip"][200:500]}
    )
    for name in ("default", "two"):
        sae = fit_distributed(new(RECIPES[name]), weak, steps=STEPS, progress=False, validation=planted(100, seed=1))
        alone = new(RECIPES[name]).fit(weak, steps=STEPS, progress=False)
        seen[name] = {
            "losses": [[entry["loss"] for entry in one.history_] for one in (sae, alone)],
            "present": [
                [[name for name, loss in entry["losses"].items() if loss == loss] for entry in one.history_]
                for one in (sae, alone)
            ],
            "digest": digest(sae),
        }
    return seen


def keep_error(errors, call):
    """Add what the call raises to the list, or "nothing"."""
    try:
        call()
        errors.append("nothing")
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")


def user_loop(rank, size):
    """`DistributedTrainer` from nothing, with what goes wrong on the way."""
    batches = [planted(200, seed=60 + step) for step in range(4)]
    sizes = [200 // size] * size
    trainer = DistributedTrainer(new(None))
    seen = {"errors": []}
    attempt = functools.partial(keep_error, seen["errors"])
    first = trainer.partial_fit(part(batches[0], rank, sizes))
    seen["first"] = [first.step, first.loss]
    bad = part(batches[1], rank, sizes)
    if rank == size - 1:
        bad = bad | {"vit": np.full_like(bad["vit"], np.inf)}
    attempt(lambda: trainer.partial_fit(bad))
    attempt(lambda: trainer.partial_fit(part(batches[1], rank, sizes), encoder="vit" if rank else "siglip"))
    attempt(lambda: trainer.partial_fit(part(batches[1], rank, sizes), encoder="gpt"))
    if rank == 1:
        trainer.sae.partial_fit(batches[2])
    attempt(lambda: trainer.partial_fit(part(batches[1], rank, sizes)))
    trainer.synchronize()
    seen["losses"] = [trainer.partial_fit(part(batch, rank, sizes)).loss for batch in batches]
    other = new(None) if rank == 0 else usae.UniversalSAE(CONCEPTS + 1, K, seed=SEED, n_threads=1)
    attempt(DistributedTrainer(other).synchronize)
    attempt(lambda: fit_distributed(new(usae.recipes.default(batch_size=size - 1)), batches[0], steps=2))

    def stop(report):
        if rank == 1 and report.step == 3:
            raise ValueError("rank 1 has had enough")

    attempt(lambda: fit_distributed(new(None), batches[0], steps=5, callbacks=[stop]))
    attempt(lambda: fit_distributed(new(None), batches[0], steps=3, callbacks=[stop]))
    acts = batches[0] if rank else {name: x[:150] for name, x in batches[0].items()}
    attempt(lambda: fit_distributed(new(None), acts, steps=3))
    return seen | {"digest": digest(trainer.sae), "steps": trainer.sae.n_steps_}


def resume(rank, size):
    seen = {"whole": digest(whole_run("default")[0])}
    folder = FOLDER / "checkpoints"
    stopped, _ = whole_run("default", checkpoint=folder, callbacks=[lambda report: rank == 1 and report.step == 20])
    seen["stopped"] = stopped.n_steps_
    seen["resumed"] = digest(whole_run("default", checkpoint=folder, resume=True)[0])
    seen["again"] = digest(whole_run("default", checkpoint=folder, resume=True)[0])
    try:
        whole_run("default", checkpoint=folder)
    except usae.UsaeError as error:
        seen["refused"] = f"{type(error).__name__}: {error}"

    def interrupt(report):
        if rank == 1 and report.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        whole_run("default", checkpoint=FOLDER / "interrupted", callbacks=[interrupt])
    except BaseException as error:
        seen["interrupted"] = f"{type(error).__name__}: {error}"
    seen["then"] = digest(whole_run("default", checkpoint=FOLDER / "interrupted", resume=True)[0])
    seen["left"] = sorted(path.name for path in (FOLDER / "interrupted").glob("step-*"))
    store = FOLDER / "store"
    if rank == 0:
        with usae.ActivationStore.create(store, dtype="float32") as made:
            made.append(planted(600, seed=0))
    torch.distributed.barrier()
    sae = fit_distributed(new(RECIPES["default"]), usae.ActivationStore(store), steps=STEPS, progress=False)
    return seen | {"store": digest(sae)}


def out_of_step(rank, size):
    """Processes that are not at the same place, or have not the same number of batches."""
    batches = [planted(100, seed=70 + i) for i in range(5)]
    seen = {"errors": []}
    attempt = functools.partial(keep_error, seen["errors"])
    trainer = DistributedTrainer(new(None))
    trainer.partial_fit(batches[0])
    if rank == 1:
        trainer = DistributedTrainer(trainer.sae)
    attempt(lambda: trainer.partial_fit(batches[1]))
    seen["after"] = trainer.partial_fit(batches[1]).step
    attempt(trainer.synchronize if rank else lambda: trainer.partial_fit(batches[2]))
    seen["uneven"] = [report.step for report in trainer.steps(batches[: 4 - rank])]
    seen["left"] = []
    for report in trainer.steps(batches):
        seen["left"].append(report.step)
        if rank == 0 and len(seen["left"]) == 2:
            break

    def failing():
        yield batches[0]
        if rank == 1:
            raise OSError("no such disk")
        yield batches[1]

    attempt(lambda: list(trainer.steps(failing())))
    numbers = {"n_concepts": np.int64(CONCEPTS), "k": np.int64(K), "seed": np.int64(SEED)}
    other = usae.UniversalSAE(**numbers, recipe=usae.recipes.default() if rank else None, n_threads=1)
    seen["numpy"] = DistributedTrainer(other).partial_fit(batches[0]).step
    attempt(lambda: fit_distributed(new(None), batches[0], steps=2, checkpoint=FOLDER / "runs" if rank else None))
    return seen | {"digest": digest(trainer.sae), "steps": trainer.sae.n_steps_}


def loss_of_a_peer(rank, size):
    """Rank 1 ends without a word in the middle of training."""
    trainer, batch = DistributedTrainer(new(RECIPES["published"])), planted(200, seed=60)
    trainer.partial_fit(part(batch, rank, [100] * size))
    before = digest(trainer.sae)
    if rank == 1:
        (FOLDER / "1.json").write_text("{}")
        os._exit(0)
    try:
        trainer.partial_fit(part(batch, rank, [100] * size))
        return {"error": "nothing"}
    except RuntimeError as error:
        after = digest(trainer.sae)
        trainer.sae.partial_fit(batch)  # no step is left open
        return {"error": str(error), "before": before, "after": after, "steps": trainer.sae.n_steps_}


def masked(rank, size):
    """Rows that do not count, beside the same without them."""
    acts = planted(600, seed=0)
    mask = np.random.default_rng(5).random(600) < 0.7
    kept = {name: x[mask] for name, x in acts.items()}
    with_nan = {name: np.where(mask[:, None], x, np.nan).astype(x.dtype) for name, x in acts.items()}
    options = {"steps": 8, "progress": False}
    runs = [
        fit_distributed(new(RECIPES["default"]), with_nan, mask=mask, **options),
        fit_distributed(new(RECIPES["default"]), usae.MaskedActivations(with_nan, mask), **options),
        fit_distributed(new(RECIPES["default"]), kept, **options),
    ]
    sizes, trainers = [600 // size] * size, [DistributedTrainer(new(None)) for _ in range(3)]
    own, own_mask = part(with_nan, rank, sizes), part({"": mask}, rank, sizes)[""]
    for _ in range(2):
        trainers[0].partial_fit(own, mask=own_mask)
        trainers[1].partial_fit({name: x[own_mask] for name, x in own.items()})
    list(trainers[2].steps([usae.MaskedActivations(own, own_mask)] * 2))
    seen = {"runs": [digest(sae) for sae in runs], "loops": [digest(trainer.sae) for trainer in trainers], "errors": []}
    keep_error(seen["errors"], lambda: trainers[0].partial_fit(own, mask=own_mask & (rank == 0)))
    other = mask if rank == 0 else np.roll(mask, 1)
    keep_error(seen["errors"], lambda: fit_distributed(new(RECIPES["default"]), acts, mask=other, **options))
    return seen


SCENARIOS = {one.__name__: one for one in (correctness, weakly_paired, user_loop, out_of_step, resume, loss_of_a_peer, masked)}


def main():
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    seen = SCENARIOS[SCENARIO](rank, size)
    (FOLDER / f"{rank}.json").write_text(json.dumps(seen))
    # Always: without it the interpreter may end below threads that still want it, and torch then aborts the process.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
