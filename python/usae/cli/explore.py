"""``usae explore``: a page that shows every concept of a saved autoencoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import usae
from usae._base import checks
from usae.cli import activations
from usae.cli.options import Parser, add_model, add_threads, as_grid, load_model, print_json, use_threads
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "explore",
        help="write a page that shows every concept of a saved autoencoder, for a browser",
        description="Writes a folder or one file that any browser opens, without a server or a network. docs/explorer.md shows "
        "how to use it.",
    )
    add_model(parser)
    activations.add_to(parser)
    parser.option(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="pictures that the activations are of; a store finds them by name; default: none, which shows heat maps alone",
    )
    parser.option("--output", default="explorer", metavar="PATH", help="folder to write, or with --one-file the file")
    parser.option("--one-file", default=False, help="write one file, to mail or to upload, in place of a folder")
    parser.option("--serve", default=False, help="serve the page on 127.0.0.1 until Ctrl-C, and print its address")
    parser.option("--port", type=int, default=0, metavar="N", help="port for --serve; 0: one that is free")
    parser.option("--title", metavar="TEXT", help="title of the page; default: the names of the models")
    parser.option(
        "--grid",
        metavar="ROWSxCOLUMNS",
        type=as_grid,
        help="tokens of an image; default: those of the store, or a square",
    )
    parser.option("--examples", type=int, default=8, metavar="N", help="examples of each concept and network")
    parser.option("--bands", type=int, default=4, metavar="N", help="bands of activation, each with an image drawn at random")
    parser.option("--side", type=int, default=112, metavar="PIXELS", help="largest side of a picture")
    parser.option("--most-images", type=int, default=10_000, metavar="N", help="most images to search, evenly spaced")
    parser.option("--crop", default=False, help="show the centre of each picture, as usae extract --crop takes it")
    parser.option("--labels", metavar="FILE", help="labels that were exported from an explorer; default: none")
    parser.option("--coordinates", choices=("pca", "tsne"), default="pca", help="places on the map")
    parser.option("--seed", type=int, default=0, help="seed of the images that are drawn from bands")
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    if options.json and options.serve:
        raise InvalidInputError("--json must be given without --serve, got both; leave one out")
    for flag, value, smallest, largest in (
        ("--examples", options.examples, 1, 64),
        ("--bands", options.bands, 0, 16),
        ("--side", options.side, 8, 1024),
        ("--most-images", options.most_images, 1, 2**24),
        ("--port", options.port, 0, 65535),
        ("--seed", options.seed, 0, 2**62 - 1),
    ):
        checks.integer(value, flag, smallest, largest)
    if options.images is not None and not options.images.is_dir():
        raise InvalidInputError(f"--images must be a folder with pictures, got {str(options.images)!r}, which is no folder")
    page = usae.explorer(
        load_model(options),
        activations.load_masked(options.acts, "--acts", options.mask, "--mask"),
        options.images,
        options.output,
        one_file=options.one_file,
        title=options.title,
        grid=options.grid,
        n=options.examples,
        bands=options.bands,
        side=options.side,
        images=options.most_images,
        crop=options.crop,
        labels=options.labels,
        coordinates=options.coordinates,
        seed=options.seed,
    )
    if options.json:
        print_json({"page": str(page.path), "bytes": page.n_bytes})
        return
    print(f"Written to {page.path}, {page.n_bytes / 2**20:.1f} MB: open it in a browser")
    if options.serve:
        page.serve(options.port, wait=True)
