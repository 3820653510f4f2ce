"""``usae extract``: activations of networks over a folder of pictures, into a store."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import usae
from usae.cli import networks
from usae.cli.options import Parser, print_json
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "extract",
        help="run networks over a folder of pictures and keep their activations in a store",
        description="Activations of several networks over the same pictures, row t of each the same place. An interrupted "
        "extraction is continued by the same command.",
    )
    parser.configurable()
    parser.option("--images", required=True, metavar="FOLDER", help="of picture files, taken in the order of their names")
    parser.option("--network", required=True, nargs="+", action="extend", metavar="NAME=SPEC", help=networks.HELP)
    parser.option(
        "--layer", default=[], nargs="+", action="extend", metavar="NAME=LAYER", help="dotted name of the network's layer"
    )
    parser.option("--output", required=True, metavar="FOLDER", help="the store, new or interrupted")
    parser.option(
        "--grid", metavar="ROWSxCOLUMNS", type=_grid, help="tokens of a picture in all networks; left out: the smallest grid"
    )
    parser.option("--crop", default=False, help="take the centre of each picture instead of squeezing it to the input's shape")
    parser.option(
        "--dtype",
        choices=("float16", "float32", "bfloat16"),
        help="of the numbers in the store; left out: float16, or what the interrupted store has",
    )
    parser.option("--batch-size", type=int, default=32, metavar="N", help="pictures that a network sees at a time")
    parser.option("--device", metavar="DEVICE", help="of PyTorch, such as cuda or cuda:1; left out: cpu")
    parser.option(
        "--shard-images", type=int, default=256, metavar="N", help="pictures in a file; as many are done again if interrupted"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    if not Path(options.images).is_dir():
        raise InvalidInputError(f"--images must be a folder with picture files, got {options.images!r}, which is no folder")
    models = networks.load_networks(options.network, networks.pairs(options.layer, "--layer"), options.device)
    from usae.torch import extract  # imports torch, so after what can be checked without

    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    store = extract(
        models,
        options.images,
        batch_size=options.batch_size,
        grid=options.grid,
        crop=options.crop,
        dtype=options.dtype,
        store=options.output,
        shard_images=options.shard_images,
    )
    if options.json:
        print_json(_report(store))
        return
    grid = "no grid" if store.grid is None else f"{store.grid[0]} x {store.grid[1]} tokens each"
    for name, model in store.models.items():
        print(f"{name}: {model['network']}, layer {model['layer']!r}, width {model['width']}")
    print(f"\nWritten to {store.path}: {len(store.images):,} pictures, {grid}, {store.dtype}")


def _report(store: usae.ActivationStore) -> dict[str, Any]:
    return {
        "store": str(store.path),
        "models": store.models,
        "n_images": len(store.images),
        "n_tokens": store.n_tokens,
        "grid": store.grid,
        "dtype": store.dtype,
    }


def _grid(text: str) -> tuple[int, int]:
    numbers = re.fullmatch(r"([1-9]\d*)[x,]([1-9]\d*)", text)  # a list of a TOML file comes with a comma
    if numbers is None:
        raise argparse.ArgumentTypeError(f"must be ROWSxCOLUMNS, such as 16x16, got {text!r}")
    return int(numbers[1]), int(numbers[2])
