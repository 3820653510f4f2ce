"""``usae export`` and ``usae import``: files of other libraries."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import usae
from usae._exchange.exporting import FORMATS
from usae.cli import activations
from usae.cli.options import Parser, add_model, add_threads, as_mean, load_model, print_json, use_threads
from usae.interop.importing import TOLERANCE


def add_to(commands: Any) -> None:
    _add_export(commands)
    _add_import(commands)


def _add_export(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "export",
        help="write a model of a saved autoencoder in the files of another library",
        description="Writes one model of a saved autoencoder, or a pair, in the files of another library, and says what these "
        "cannot hold. docs/exchange.md has the formats.",
    )
    add_model(parser)
    parser.option("--format", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.option("--encoder", metavar="NAME", help="model that is encoded; default: the only one")
    parser.option("--target", metavar="NAME", help="model that is decoded, for a transcoder; default: the one that is encoded")
    parser.option("--unit-rows", default=False, help="dictionary rows of norm 1 in the model's own units")
    parser.option(
        "--acts",
        default=[],
        nargs="+",
        action="extend",
        metavar="ACTS",
        help=f"of which share of these the cap k_max shortens the codes: {activations.HELP}; default: it is not measured",
    )
    parser.option("--output", required=True, metavar="FOLDER", help="folder for the files")
    add_threads(parser)
    parser.set_defaults(run=_export)


def _add_import(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "import",
        help="make an autoencoder of usae from one that another library saved",
        description="Reads an autoencoder that another library saved, or a folder of the Hugging Face Hub, and saves it as one "
        "of usae. docs/exchange.md says what can be represented.",
    )
    parser.configurable()
    parser.option(
        "--input", required=True, metavar="FOLDER", help="folder or file of the other library, or hf://user/repo/folder"
    )
    parser.option(
        "--format", choices=FORMATS, metavar="FORMAT", help=f"{', '.join(FORMATS)}; default: what the files look like"
    )
    parser.option("--names", default=[], nargs="+", action="extend", metavar="NAME", help="names for the models")
    parser.option(
        "--k",
        type=as_mean,
        metavar="K",
        help="active concepts of a token, where the files do not say; with thresholds a mean, which may be fractional",
    )
    parser.option("--k-max", type=int, metavar="K", help="the most concepts of a token, with thresholds; default: any number")
    parser.option(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="SHARE",
        help="share up to which norms of rows are made equal",
    )
    parser.option("--output", required=True, metavar="FOLDER", help="folder for the saved autoencoder")
    parser.set_defaults(run=_import)


def _export(options: argparse.Namespace) -> None:
    use_threads(options)
    sae = load_model(options)
    acts = activations.load_activations(options.acts, "--acts") if options.acts else None
    written = sae.export(
        options.output, options.format, model=options.encoder, target=options.target, unit_rows=options.unit_rows, acts=acts
    )
    if options.json:
        print_json(dataclasses.asdict(written))
    else:
        print(written.summary())


def _import(options: argparse.Namespace) -> None:
    sae = usae.import_sae(
        options.input,
        options.format,
        names=options.names or None,
        k=options.k,
        k_max=options.k_max,
        tolerance=options.tolerance,
    )
    sae.save(options.output)
    if options.json:
        recipe, autoencoder = sae.recipe_, sae._initialized()
        print_json(
            {
                "path": options.output,
                "widths": sae.n_features_in_,
                "n_concepts": sae.n_concepts,
                "k": sae.k,
                "selection": recipe.selection,
                "k_max": autoencoder.core.slots,
            }
        )
    else:
        print(f"{sae!r}\nsaved in {options.output}")
