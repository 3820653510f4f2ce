"""Train in several processes, each on its part of every batch:

    torchrun --nproc-per-node 2 examples/distributed.py

On several computers, start it on each with torchrun's --nnodes and --rdzv-endpoint. docs/scaling.md says when that helps.
"""

from __future__ import annotations

import os

import torch
import torch.distributed

import usae
import usae.torch


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    # The same activations in every process. Yours are memory maps, or an ActivationStore that all processes see.
    world = usae.synthetic.universal({"dinov2": 48, "siglip": 64, "vit": 64}, n_tokens=20_000, seed=0)
    threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    sae = usae.UniversalSAE(n_concepts=256, k=8, seed=0, n_threads=threads)

    usae.torch.fit_distributed(sae, world.acts, steps=200)

    # All processes have the same autoencoder, so one of them can go on alone.
    if rank == 0:
        print(f"{size} processes, {sae.n_steps_} steps")
        print(sae.evaluate(world.sample(2000, seed=1).acts).summary())
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
