"""Measures whether the thread pools of one process slow each other down.

It times our calls alone and right after a product of NumPy or PyTorch, and these products alone and right after our calls, in
turns. Results are medians in milliseconds. Run it with OPENBLAS_CORETYPE unset.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import problems
import settings
import torch

import usae

Call = Callable[[], object]


def milliseconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def our_calls(batch: dict[str, np.ndarray], threads: int) -> dict[str, Call]:
    published = usae.recipes.published(total_steps=1000, warmup_steps=10)
    saes = {}
    for name, recipe in {"default": usae.recipes.default(), "published": published}.items():
        saes[name] = usae.UniversalSAE(6144, 32, recipe=recipe, seed=0, n_threads=threads)
        for _ in range(3):
            saes[name].partial_fit(batch, encoder="vit")
    return {
        "encode": lambda: saes["default"].encode(batch["vit"], "vit"),
        "default step": lambda: saes["default"].partial_fit(batch, encoder="vit"),
        "published step": lambda: saes["published"].partial_fit(batch, encoder="vit"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = problems.activations(Path(folder), settings.WIDTHS, 6272)
        batch = {name: np.load(file) for name, file in files.items()}
    ours = our_calls(batch, arguments.threads)
    square = np.random.default_rng(0).standard_normal((1500, 1500), dtype=np.float32)
    tensor = torch.from_numpy(square)
    products: dict[str, Call] = {"numpy": lambda: square @ square, "PyTorch": lambda: tensor @ tensor}

    print("| | alone | after numpy | after PyTorch | numpy alone | numpy after it | PyTorch alone | PyTorch after it |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, call in ours.items():
        alone = statistics.median(milliseconds(call) for _ in range(arguments.repeats))
        after, theirs = [], []
        for product in products.values():
            theirs.append(statistics.median(milliseconds(product) for _ in range(arguments.repeats)))
            pairs = [(milliseconds(product), milliseconds(call)) for _ in range(arguments.repeats)]
            theirs.append(statistics.median(pair[0] for pair in pairs[1:]))
            after.append(statistics.median(pair[1] for pair in pairs))
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in [alone, *after, *theirs]) + " |")


if __name__ == "__main__":
    main()
