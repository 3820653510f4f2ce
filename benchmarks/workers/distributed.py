"""One process of data-parallel training, which tables/distributed.py starts several times.

    distributed.py SETTINGS.json

Settings are "files" {model: activations}, "recipe", "n_concepts", "k", "batch", "steps", "warmup" and "output" (a folder).
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed

import usae
import usae.torch


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    acts = {name: np.load(file, mmap_mode="r") for name, file in settings["files"].items()}
    batch = settings["batch"]
    mine = {name: np.array(x[batch * rank // size : batch * (rank + 1) // size]) for name, x in acts.items()}
    recipes = {"default": usae.recipes.default, "published": usae.recipes.published}
    recipe = recipes[settings["recipe"]]()

    def new() -> usae.UniversalSAE:
        sae = usae.UniversalSAE(settings["n_concepts"], settings["k"], recipe=recipe, seed=0, n_threads=1)
        return sae.initialize({name: x.shape[1] for name, x in acts.items()})

    trainer = usae.torch.DistributedTrainer(new())
    losses, steps = [], []
    for step in range(settings["warmup"] + settings["steps"]):
        torch.distributed.barrier()
        start = time.perf_counter()
        report = trainer.partial_fit(mine)
        seconds = time.perf_counter() - start
        losses.append(report.loss)
        crossed = trainer.exchanged_
        assert crossed is not None
        if step >= settings["warmup"]:
            steps.append(
                {
                    "seconds": seconds,
                    "encoder": report.encoder,
                    "names": crossed.names,
                    "bytes": crossed.bytes,
                    "computing": crossed.computing,
                    "waiting": crossed.waiting,
                    "updating": crossed.updating,
                    "alone": [_sum_alone(n // 4) for n in crossed.bytes],
                }
            )
    result = {"losses": losses, "steps": steps, "digest": _digest(trainer.sae)}
    if size == 1:
        result |= _ordinary(new(), mine, settings)
    (Path(settings["output"]) / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def _sum_alone(count: int) -> float:
    """Return the seconds of a sum over the processes without other work, the smaller of two measurements."""
    numbers = torch.zeros(count)
    times = []
    for _ in range(2):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(numbers)
        times.append(time.perf_counter() - start)
    return min(times)


def _ordinary(sae: usae.UniversalSAE, batch: dict[str, np.ndarray], settings: dict) -> dict:
    """Do the same steps in one process."""
    losses, times = [], []
    for _ in range(settings["warmup"] + settings["steps"]):
        start = time.perf_counter()
        losses.append(sae.partial_fit(batch).loss)
        times.append(time.perf_counter() - start)
    return {"ordinary_losses": losses, "ordinary_seconds": statistics.median(times[settings["warmup"] :])}


def _digest(sae: usae.UniversalSAE) -> str:
    sums = hashlib.sha256()
    for name in sae.model_names_:
        for values in sae.parameters(name).values():
            sums.update(values.tobytes())
    return sums.hexdigest()


if __name__ == "__main__":
    main()
