"""How busy networks are while pictures are read: python benchmarks/extraction.py [--pictures FOLDER] [--quick].

Extracts JPEG pictures through networks of several sizes with 0, 1 and 2 workers, on the CPU and, if there is one, on a GPU.
Prints how many pictures a second come, the share of time in which the network computes ("busy"), and the speed as a share of
that of the network alone on pictures in memory. On a CPU the last is lower, because decoding takes cores away from the network.
Activations have to be the same to the bit, whatever the workers; then times are printed: medians of several runs in turn.

Without --pictures they are made up, of the size of usual photographs (500 x 375, and with --large 4000 x 3000).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import usae
import usae.torch

SIDE = 224
WORKERS = (0, 1, 2)
RUNS = 3


class Timed(nn.Module):
    """A network, with the seconds that it computes. On a GPU they are those until the result is there."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        result: Tensor = self.network(images)
        if result.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start
        return result


class Transformer(nn.Module):
    """A vision transformer with patches of 16 x 16."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.patches(images).flatten(2).transpose(1, 2))


def convolutions() -> nn.Module:
    """A network of the size of those of `usae demo`."""
    parts: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 96), (96, 128)):
        parts += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*parts)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "four convolutions": convolutions,
    "ViT-Ti/16": lambda: Transformer(192, 12),
    "ViT-S/16": lambda: Transformer(384, 12),
    "ViT-B/16": lambda: Transformer(768, 12),
}


def written_pictures(folder: Path, n: int, size: tuple[int, int]) -> Path:
    """Write smooth noise with some grain, which takes about as long to decode as photographs."""
    rng = np.random.default_rng(0)
    for number in range(n):
        smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = rng.integers(-12, 13, (size[1], size[0], 3))
        Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number:04}.jpg", quality=90
        )
    return folder


def rows(model: usae.torch.Model, timed: Timed, pictures: Path, n: int, options: argparse.Namespace) -> Iterator[str]:
    images = model.preprocess(sorted(pictures.iterdir())[: options.batch_size])
    model(images)  # the first pass allocates
    alone = statistics.median(_seconds(lambda: model(images)) for _ in range(options.runs)) * n / len(images)
    walls: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    shares: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    first: np.ndarray | None = None
    for _ in range(options.runs):
        for workers in WORKERS:
            timed.seconds = 0.0
            start = time.perf_counter()
            acts = usae.torch.extract(
                {"network": model},
                pictures,
                num_workers=workers,
                batch_size=options.batch_size,
                reduce=options.reduce,
                progress=False,
            )["network"]
            walls[workers].append(time.perf_counter() - start)
            shares[workers].append(timed.seconds / walls[workers][-1])
            first = acts if first is None else first
            assert np.array_equal(acts, first), f"activations differ with {workers} workers"
    for workers in WORKERS:
        wall = statistics.median(walls[workers])
        yield f"{workers:9}{n / wall:12.1f}{statistics.median(shares[workers]):10.0%}{alone / wall:10.0%}"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of JPEG files; default: made up")
    parser.add_argument("--large", action="store_true", help="make up pictures of 12 megapixels")
    parser.add_argument("--reduce", action="store_true", help="decode large pictures at a part of their size")
    parser.add_argument("--n", type=int, default=256, help="number of pictures that are made up")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, help="PyTorch's threads; default: its own")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--quick", action="store_true", help="few pictures, to check that it works; the numbers mean nothing")
    options = parser.parse_args()
    if options.quick:
        options.n, options.batch_size, options.runs, options.networks = 6, 2, 1, ["four convolutions"]
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        size = (4000, 3000) if options.large else (500, 375)
        pictures = options.pictures or written_pictures(Path(folder), options.n, size)
        n = len(list(pictures.iterdir()))
        threads, cores, load = torch.get_num_threads(), usae.show_config()["n_threads"], os.getloadavg()[0]
        print(f"{n} pictures, {threads} threads of PyTorch, {cores} cores, load {load:.1f}")
        print(f"{'':32}{'workers':>9}{'pictures/s':>12}{'busy':>10}{'of alone':>10}")
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for name in options.networks:
                timed = Timed(NETWORKS[name]()).eval()
                model = usae.torch.Model(timed, "", size=SIDE, mean=0.5, std=0.25, device=device)
                for row in rows(model, timed, pictures, n, options):
                    print(f"{f'{name}, {device}':32}{row}", flush=True)


if __name__ == "__main__":
    main()
