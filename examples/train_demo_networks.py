"""Trains the demonstration's three networks on the training regions of the photographs and writes their weights.

    python examples/train_demo_networks.py [--output FOLDER] [--only NAME] [--threads N]

It takes five to ten minutes on two cores. All steps, batches and seeds are fixed, so a second run on the same machine with the
same version of torch and the same number of threads gives the same weights to the bit. It prints each network's performance on
held-out crops.
"""

from __future__ import annotations

import argparse
import collections
import logging
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from usae.demo import measures, networks, photographs

log = logging.getLogger("train_demo_networks")

N_CROPS = 16384  # five to eight passes for a network; further crops of these photographs would hardly differ
N_NEIGHBOURS = 200  # of about 820 crops of a photograph; views of the same crop could be matched by brightness alone
SEED = 0
WEIGHTS = pathlib.Path(networks.__file__).parent / "weights"


def train_classifier(crops: photographs.Crops, generator: torch.Generator) -> nn.Module:
    network = networks.Classifier(n_classes=int(crops.photograph.max()) + 1)
    labels = torch.from_numpy(crops.photograph)

    def loss(batch: Tensor) -> Tensor:
        # Labels are smoothed, because the photograph of a plain crop cannot be recognised and should not be memorised.
        logits = network(view(crops, batch, 64, 0.7, generator))
        return F.cross_entropy(logits, labels[batch], label_smoothing=0.1)

    return train(network, loss, len(labels), generator, steps=600, batch_size=128, learning_rate=3e-3)


def train_masked(crops: photographs.Crops, generator: torch.Generator) -> nn.Module:
    network = networks.MaskedAutoencoder()

    def loss(batch: Tensor) -> Tensor:
        order = torch.rand(len(batch), network.n_patches, generator=generator).argsort(1)
        guess, truth = network(view(crops, batch, 64, 0.7, generator), order)
        return (guess - truth).square().mean()

    return train(network, loss, len(crops.images), generator, steps=500, batch_size=256, learning_rate=2e-3)


def train_contrastive(crops: photographs.Crops, generator: torch.Generator) -> nn.Module:
    network = networks.Contrastive()
    neighbours = nearest_crops(crops, N_NEIGHBOURS)

    def loss(batch: Tensor) -> Tensor:
        beside = neighbours[batch, torch.randint(N_NEIGHBOURS, (len(batch),), generator=generator)]
        pair = [view(crops, those, network.input_side, 0.6, generator, light=0.25) for those in (batch, beside)]
        return info_nce(network(torch.cat(pair)), temperature=0.2)

    return train(network, loss, len(crops.images), generator, steps=300, batch_size=128, learning_rate=2e-3)


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n_crops: int,
    generator: torch.Generator,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> nn.Module:
    """Do `steps` steps of AdamW on ``loss(batch)``, where `batch` holds the indices of randomly drawn crops."""
    network = network.to(memory_format=torch.channels_last)  # convolutions are twice as fast on CPUs
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.15)
    recent = collections.deque(maxlen=50)
    for step in range(1, steps + 1):
        value = loss(torch.randint(n_crops, (batch_size,), generator=generator))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(value.item())
        if step % 50 == 0:
            log.info("  step %4d of %d   loss %.3f", step, steps, sum(recent) / len(recent))
    return network.eval().requires_grad_(False)


def view(
    crops: photographs.Crops, batch: Tensor, side: int, smallest: float, generator: torch.Generator, light: float = 0.1
) -> Tensor:
    """Augment the crops `batch`, [n]: zoom, mirror, and change the light. Returns [n, 3, side, side] in 0..1.

    Sides of windows are from `smallest` to 1 of the crop's side. Brightness and contrast change by at most `light`. Hue does
    not change, because a network that ignores hue cannot represent sky.
    """
    images = networks.to_tensor(crops.images[batch.numpy()])
    n = len(images)
    zoom = smallest + (1 - smallest) * torch.rand(n, generator=generator)
    centre = (2 * torch.rand(n, 2, generator=generator) - 1) * (1 - zoom[:, None])
    mirror = 1 - 2 * torch.randint(2, (n,), generator=generator)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = zoom * mirror, zoom, centre
    grid = F.affine_grid(affine, [n, 3, side, side], align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = light * (2 * torch.rand(2, n, 1, 1, 1, generator=generator) - 1)
    views = ((views - 0.5) * (1 + contrast) + 0.5 + brightness).clamp(0, 1)
    return views.contiguous(memory_format=torch.channels_last)


def nearest_crops(crops: photographs.Crops, n_nearest: int) -> Tensor:
    """Return for each crop those of the same photograph with the nearest centres, including itself, int64 [n, n_nearest]."""
    nearest = np.empty((len(crops.boxes), n_nearest), np.int64)
    for index in range(crops.photograph.max() + 1):
        (members,) = np.nonzero(crops.photograph == index)
        centres = (crops.boxes[members, :2] + crops.boxes[members, 2:]) / 2
        distances = np.square(centres[:, None] - centres).sum(-1)
        nearest[members] = members[distances.argsort(1, kind="stable")[:, :n_nearest]]
    return torch.from_numpy(nearest)


def info_nce(embeddings: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss. Rows i and i + n of `embeddings`, [2 n, d], are a crop and its neighbour."""
    n = len(embeddings) // 2
    similarity = (embeddings @ embeddings.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))


def write(network: nn.Module, path: pathlib.Path) -> None:
    """Write weights as float16 to a temporary file and rename it, so that no reader sees an incomplete file."""
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in network.state_dict().items()
    }
    temporary = path.with_suffix(".partial")
    safetensors.torch.save_file(weights, temporary)
    temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    os.replace(temporary, path)


TRAINERS = {"classifier": train_classifier, "masked": train_masked, "contrastive": train_contrastive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=WEIGHTS, help="folder for the weights (%(default)s)")
    parser.add_argument("--only", choices=TRAINERS, help="train only this network, and keep the weights of the others")
    parser.add_argument("--threads", type=int, default=2, help="threads for torch (%(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)  # otherwise gradients of indexed rows are summed in the order of threads
    options.output.mkdir(parents=True, exist_ok=True)

    pictures, start = photographs.load(), time.perf_counter()
    crops = photographs.crops(pictures, "train", N_CROPS, SEED)
    for name in [options.only] if options.only else TRAINERS:
        log.info("%s", name)
        torch.manual_seed(SEED)  # initial weights
        network = TRAINERS[name](crops, torch.Generator().manual_seed(SEED))
        write(network, options.output / f"{name}.safetensors")
        log.info("  %.0f s since the start", time.perf_counter() - start)

    trained = networks.load_networks(options.output)
    for name, measure in measures.held_out_measures(trained, pictures).items():
        log.info("%-12s %.3f on held-out crops", name, measure)


if __name__ == "__main__":
    main()
