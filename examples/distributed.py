"""Trains in several processes, each of which has a part of every batch:

    torchrun --nproc-per-node 2 examples/distributed.py

On several computers, start it on each with torchrun's options --nnodes and --rdzv-endpoint. docs/scaling.md describes when
several processes are faster.
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

    # All processes have the same activations. Use memory maps, or an ActivationStore that all processes can read.
    world = usae.synthetic.universal({"dinov2": 48, "siglip": 64, "vit": 64}, n_tokens=20_000, seed=0)
    threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    sae = usae.UniversalSAE(n_concepts=256, k=8, seed=0, n_threads=threads)

    usae.torch.fit_distributed(sae, world.acts, steps=200)

    # All processes have the same autoencoder, so one of them can continue alone.
    if rank == 0:
        print(f"{size} processes, {sae.n_steps_} steps")
        print(sae.evaluate(world.sample(2000, seed=1).acts).summary())
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
