"""``usae extract``: activations of networks over a folder of pictures, into a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import usae
from usae._base import checks
from usae.cli import networks
from usae.cli.activations import load_mask
from usae.cli.options import Parser, add_threads, as_grid, make_folder, print_json, use_threads
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "extract",
        help="run networks over a folder of pictures and write their activations to a store",
        description="Writes activations of several networks over the same pictures to a store. Row t of every network is the "
        "same place in the same picture. The same command continues an extraction that was interrupted.",
    )
    parser.configurable()
    parser.option("--images", required=True, metavar="FOLDER", help="folder of picture files, taken in the order of names")
    networks.add_to(parser)
    parser.option("--output", required=True, metavar="FOLDER", help="folder of the store, which is new or was interrupted")
    parser.option(
        "--grid",
        metavar="ROWSxCOLUMNS",
        type=as_grid,
        help="token grid of every network; default: the smallest of the networks' grids",
    )
    parser.option(
        "--crop", default=False, help="cut out the centre of each picture instead of stretching it to the input's proportions"
    )
    parser.option(
        "--dtype",
        choices=("float16", "float32", "bfloat16"),
        help="type of the numbers in the store; default: float16, or that of the interrupted store",
    )
    parser.option("--batch-size", type=int, default=32, metavar="N", help="pictures that a network takes at a time")
    parser.option(
        "--num-workers",
        type=int,
        metavar="N",
        help="threads that decode and resize pictures while the networks compute; 0: in between; default: half as many as "
        "cores, as many if a network is on a GPU, at most 16",
    )
    parser.option("--prefetch", type=int, metavar="N", help="batches that are read ahead; default: 2")
    parser.option(
        "--reduce",
        default=False,
        help="decode JPEG files that are much larger than the networks' images at a part of their size, which is faster and "
        "changes pixels a little",
    )
    parser.option(
        "--shard-images",
        type=int,
        default=256,
        metavar="N",
        help="pictures in a file; at most as many are computed again after an interruption",
    )
    parser.option(
        "--mask",
        metavar="FILE",
        help="tokens that count, as a .npy file of truth values [pictures, tokens] or [pictures, rows, columns], which the "
        "store keeps; default: all",
    )
    parser.option(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what happens if a picture cannot be read; with skip it is left out for every network, and listed",
    )
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    if not Path(options.images).is_dir():
        raise InvalidInputError(f"--images must be a folder with picture files, got {options.images!r}, which is no folder")
    for flag, value in (("--num-workers", options.num_workers), ("--prefetch", options.prefetch)):
        if value is not None:
            checks.integer(value, flag, 0, 1024)  # before networks are loaded
    models = networks.load(options)
    from usae.torch import SkippedPicture, extract  # importing torch takes long, so the checks above come first

    mask = None if options.mask is None else load_mask([options.mask], "--mask")
    skipped: list[SkippedPicture] = []
    make_folder(Path(options.output).parent, "the parent of --output")
    store = extract(
        models,
        options.images,
        batch_size=options.batch_size,
        grid=options.grid,
        crop=options.crop,
        dtype=options.dtype,
        store=options.output,
        shard_images=options.shard_images,
        mask=mask,
        on_error=options.on_error,
        skipped=skipped,
        num_workers=options.num_workers,
        prefetch=options.prefetch,
        reduce=options.reduce,
    )
    if options.json:
        print_json(_report(store) | {"skipped": [picture._asdict() for picture in skipped]})
        return
    for picture in skipped:
        print(f"skipped: {picture.reason}")
    grid = "no grid" if store.grid is None else f"{store.grid[0]} x {store.grid[1]} tokens each"
    for name, model in store.models.items():
        print(f"{name}: {model['network']}, layer {model['layer']!r}, width {model['width']}")
    masked = "" if store.mask is None else f", {(~store.mask).sum():,} of {store.n_tokens:,} rows left out"
    print(f"\nWritten to {store.path}: {len(store.images):,} pictures, {grid}, {store.dtype}{masked}")


def _report(store: usae.ActivationStore) -> dict[str, Any]:
    left_out = {} if store.mask is None else {"n_left_out": int((~store.mask).sum())}
    return left_out | {
        "store": str(store.path),
        "models": store.models,
        "n_images": len(store.images),
        "n_tokens": store.n_tokens,
        "grid": store.grid,
        "dtype": store.dtype,
    }
