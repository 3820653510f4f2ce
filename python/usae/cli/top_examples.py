"""``usae top-examples``: the tokens that fire concepts of a saved autoencoder most."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae.cli import activations
from usae.cli.options import Parser, add_model, add_threads, as_grid, load_model, make_folder, print_json, use_threads
from usae.errors import InvalidInputError


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "top-examples",
        help="find the tokens that fire concepts of a saved autoencoder most",
        description="Prints the tokens with the largest codes of concepts (--concept), and writes those of all concepts "
        "(--output). Of a store with a grid, tokens are places in pictures.",
    )
    add_model(parser)
    activations.add_to(parser)
    parser.option(
        "--concept",
        type=int,
        default=[],
        action="append",
        metavar="K",
        help="number of a concept to print the examples of; may be repeated",
    )
    parser.option("--n", type=int, default=16, metavar="N", help="examples of each concept and model")
    parser.option(
        "--grid", metavar="ROWSxCOLUMNS", type=as_grid, help="tokens of an image; default: those of the store, or none"
    )
    parser.option("--one-per-image", default=False, help="take at most one token of an image, the strongest")
    parser.option("--one-per-text", default=False, help="take at most one token of a text, the strongest")
    parser.option("--output", metavar="FILE", help=".npz file for the examples of all concepts; default: none is written")
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    if not options.concept and options.output is None:
        raise InvalidInputError("--concept must be given, or --output for all concepts, got neither")
    if options.output is not None:
        if not options.output.endswith(".npz"):
            raise InvalidInputError(f"--output must be a file that ends in .npz, got {options.output!r}")
        make_folder(Path(options.output).parent, "the parent of --output")
    sae = load_model(options)
    concepts = list(dict.fromkeys(options.concept))
    for concept in concepts:
        if not 0 <= concept < sae.n_concepts:
            raise InvalidInputError(f"--concept must be from 0 to {sae.n_concepts - 1}, got {concept}")
    acts = activations.load_activations(options.acts, "--acts")
    names = acts.images if isinstance(acts, usae.ActivationStore) else None
    top = usae.top_examples(
        sae,
        acts,
        options.n,
        grid=options.grid or getattr(acts, "grid", None),
        one_per_image=options.one_per_image,
        one_per_text=options.one_per_text,
        mask=activations.load_mask(options.mask, "--mask") if options.mask else None,
    )
    if options.output is not None:
        _write(top, Path(options.output))
    if options.json:
        report = {str(concept): _described(top, concept, names) for concept in concepts}
        print_json({"n_tokens": top.n_tokens, "n_left_out": top.n_left_out, "concepts": report, "file": options.output})
        return
    for concept in concepts:
        print(_table(top, concept, names), end="\n\n")
    if options.output is not None:
        print(f"Written to {options.output}")


def _write(top: usae.TopExamples, file: Path) -> None:
    """Write the arrays of all concepts, each [models, concepts, examples]."""
    arrays: dict[str, Any] = {"models": np.array(top.model_names), "tokens": top.tokens, "values": top.values}
    if top.grid is not None:
        arrays |= {"grid": np.array(top.grid), "images": top.images, "rows": top.rows, "columns": top.columns}
    np.savez_compressed(file, **arrays)


def _described(top: usae.TopExamples, concept: int, names: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the examples of a concept by model, the strongest first."""
    places = (top.images, top.rows, top.columns) if top.grid is not None else None
    found: dict[str, list[dict[str, Any]]] = {}
    for i, model in enumerate(top.model_names):
        contexts = top.contexts(model, concept) if top.text_rows is not None else []
        found[model] = []
        for q in np.flatnonzero(top.tokens[i, concept] >= 0).tolist():
            example: dict[str, Any] = {"token": int(top.tokens[i, concept, q]), "code": float(top.values[i, concept, q])}
            if places is not None:
                image, row, column = (int(each[i, concept, q]) for each in places)
                example |= {"image": names[image] if names else image, "row": row, "column": column}
            if contexts:
                example["text"] = str(contexts[q])
            found[model].append(example)
    return found


def _table(top: usae.TopExamples, concept: int, names: Any) -> str:
    lines = []
    for model, examples in _described(top, concept, names).items():
        lines.append(f"concept {concept} in {model}" + ("" if examples else ": does not fire"))
        lines += [f"{example['code']:8.2f}  {_place(example)}" for example in examples]
    return "\n".join(lines)


def _place(example: Mapping[str, Any]) -> str:
    if "text" in example:
        return str(example["text"])
    if "image" in example:
        of = example["image"] if isinstance(example["image"], str) else f"image {example['image']}"
        return f"{of}, row {example['row']}, column {example['column']}"
    return f"token {example['token']}"
