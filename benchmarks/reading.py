"""Compares the speed of reading a store with that of training: python benchmarks/reading.py [--quick].

There are stores of two sizes in a temporary folder, which needs 16 GB, with three models of width 768, 384 and 768 in float16.
Each store is read in shuffled batches, first after its files were dropped from the page cache, and again from the cache. Then
`fit` trains from the store, and from the same rows in memory. Each measurement is in a separate process, so that its peak
memory can be measured. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from own_process import in_own_process  # noqa: E402
from report import Report  # noqa: E402

WIDTHS = {"a": 768, "b": 384, "c": 768}
SHARD = 16_384
BATCH = 6272
N_CONCEPTS, K = 6144, 32


def make(folder: Path, n_tokens: int) -> None:
    """Make a store of normal numbers. Their values change neither the speed of reading nor that of training."""
    random = np.random.default_rng(0)
    shard = {name: random.standard_normal((SHARD, width), np.float32).astype(np.float16) for name, width in WIDTHS.items()}
    with usae.ActivationStore.create(folder) as store:
        for _ in range(n_tokens // SHARD):
            store.append(shard)


def drop_from_cache(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: Path, is_cold: bool) -> dict[str, float]:
    if is_cold:
        drop_from_cache(folder)
    store = usae.ActivationStore(folder)
    start, n_tokens = time.perf_counter(), 0
    for batch in store.batches(BATCH):
        n_tokens += len(batch["a"])
        if n_tokens + BATCH > store.n_tokens:  # the next batch would begin a new epoch
            break
    return {"tokens/s": n_tokens / (time.perf_counter() - start)}


def train(folder: Path, steps: int, in_memory: bool) -> dict[str, float]:
    store = usae.ActivationStore(folder)
    if in_memory:
        acts: Any = {name: np.concatenate([store[name][i : i + SHARD] for i in range(0, 4 * SHARD, SHARD)]) for name in WIDTHS}
    else:
        acts = store
    times: list[float] = []
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=usae.recipes.default(batch_size=BATCH))
    if not in_memory:
        store.verify()  # `fit` does this before its first step; here it comes before the files are dropped from the cache
        drop_from_cache(folder)
    sae.fit(acts, steps=steps, callbacks=[lambda report: times.append(time.perf_counter())], progress=False)
    waits = np.diff(times)
    return {"tokens/s": BATCH / float(waits.mean()), "median of a step / s": float(np.median(waits))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small stores, to check that it works")
    parser.add_argument("--folder", type=Path, help="folder for the stores; default: a temporary folder")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    sizes = (4 * SHARD, 8 * SHARD) if arguments.quick else (16 * SHARD, 64 * SHARD)
    steps = 3 if arguments.quick else 40

    report = Report("reading", "Reading stores", os.cpu_count() or 1, arguments.quick)
    report.data["command"] = f"python benchmarks/reading.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {name: {"version": module.__version__} for name, module in (("usae", usae), ("numpy", np))}
    rows = []
    for n_tokens in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder, "acts")
            make(path, n_tokens)
            size = sum(file.stat().st_size for file in path.iterdir()) / 1e9
            found = {
                "read, not in the page cache": in_own_process(read, path, True),
                "read, from the page cache": in_own_process(read, path, False),
                "train from the store, not in the page cache": in_own_process(train, path, steps, False),
                "train from 65,536 rows in memory": in_own_process(train, path, steps, True),
            }
        for what, figures in found.items():
            rows.append([f"{n_tokens:,} tokens, {size:.1f} GB: {what}", figures["tokens/s"], figures["peak MB"]])
            print(json.dumps({"tokens": n_tokens, "what": what} | figures), file=sys.stderr, flush=True)
        report.data.setdefault("readings", []).append({"tokens": n_tokens, "gigabytes": size} | found)
    report.words(
        f"Three models of width 768, 384 and 768 in float16 (3,840 bytes a token), batches of {BATCH:,} tokens, {N_CONCEPTS} "
        "concepts. Dropped from this machine's page cache; what is behind a virtual disk may have a cache of its own."
    )
    report.rows(["", "tokens/s", "peak MB"], rows)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
