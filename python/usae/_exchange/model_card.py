"""The model card of a repository on the Hugging Face Hub: ``README.md`` with what is known of an autoencoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._base import checks
from usae._core.autoencoder import Autoencoder
from usae.errors import InvalidInputError

_TAGS = ("sparse-autoencoder", "interpretability")


def text(
    autoencoder: Autoencoder,
    repo: str,
    *,
    license: str,
    networks: Mapping[str, str],
    described: Mapping[str, Mapping[str, Any]],
    data: str | None,
    evaluation: Any,
    folders: Mapping[str, str],
) -> str:
    """Return the card. `described` is what a store says of the models, `folders` where models lie for SAELens."""
    header = {"license": license, "library_name": "usae", "tags": [*_TAGS, *(("saelens",) if folders else ())]}
    if networks:
        header["base_model"] = sorted(set(networks.values()))
    # Strings and lists of JSON are such of YAML too.
    front = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items())
    parts = [f"---\n{front}\n---", f"# {repo.partition('/')[2]}", _introduction(autoencoder), _use(autoencoder, repo, folders)]
    parts.append("## Models\n\n" + _models(autoencoder, networks, described))
    parts.append("## Training\n\n" + _training(autoencoder, data))
    parts.append("## Evaluation\n\n" + (_evaluation(evaluation) if evaluation is not None else "Not given."))
    return "\n\n".join(parts) + "\n"


def checked_line(value: object, name: str, example: str) -> str:
    """Return text of one line. InvalidInputError for anything else."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or not checks.is_unicode(value):
        raise InvalidInputError(f"{name} must be a line of text, such as {example!r}, got {checks.shown(value)}")
    return value


def check_evaluation(evaluation: Any, autoencoder: Autoencoder) -> None:
    """Refuse what is neither an `Evaluation` nor a `Controls` of such an autoencoder."""
    try:
        measured = getattr(evaluation, "evaluation", evaluation)
        m = len(autoencoder.names)
        fits = tuple(measured.model_names) == autoencoder.names and np.shape(measured.r2) == (m, m)
        fits = fits and len(measured.firing_counts[0]) == autoencoder.n_concepts and callable(evaluation.summary)
    except Exception:  # of the value's own methods
        fits = False
    if not fits:
        raise InvalidInputError(
            f"evaluation must be the Evaluation or the Controls of this autoencoder, got {checks.shown(evaluation)}"
        )


def _introduction(autoencoder: Autoencoder) -> str:
    names = ", ".join(autoencoder.names)
    m = len(autoencoder.names)
    kind = f"universal sparse autoencoder: one sparse code for the activations of {names}" if m > 1 else (
        f"sparse autoencoder of the activations of {names}"
    )  # fmt: skip
    return f"A {kind}, made with usae {_usae.version()}."


def _use(autoencoder: Autoencoder, repo: str, folders: Mapping[str, str]) -> str:
    first, last = autoencoder.names[0], autoencoder.names[-1]
    lines = [
        "import usae",
        "",
        f'sae = usae.load("hf://{repo}")',
        f"codes = sae.encode(activations, {first!r})  # [n_tokens, {autoencoder.widths[first]}], as the model computes them",
        f"predicted = sae.decode(codes, {last!r})",
    ]
    if folders:
        lines += [
            "",
            "from sae_lens import SAE  # each model by itself",
            "",
            f'sae = SAE.from_pretrained("{repo}", "{folders[first]}")',
        ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _models(autoencoder: Autoencoder, networks: Mapping[str, str], described: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with a row for each model, and the details of each as a store keeps them."""
    rows = ["| model | network | layer | width | preprocessing |", "|---|---|---|---:|---|"]
    for name, width in autoencoder.widths.items():
        of = dict(described.get(name, {}))
        network = networks.get(name) or of.get("source") or "not given"
        details = {key: value for key, value in of.items() if key not in ("width", "source", "layer") and value is not None}
        told = "; ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in details.items())
        cells = [name, network, of.get("layer") or "not given", f"{width:,}", told or "not given"]
        rows.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return "\n".join(rows)


def _training(autoencoder: Autoencoder, data: str | None) -> str:
    recipe = autoencoder.recipe
    limit = f", at most {autoencoder.core.slots} in a token" if recipe.selection == "batchtopk" else ""
    lines = [
        f"* Data: {data or 'not given'}",
        f"* {autoencoder.n_concepts:,} concepts; k = {autoencoder.k} ({recipe.selection}{limit}); {recipe.encoder} encoder",
        f"* Recipe {recipe.name!r}, {autoencoder.core.step_count:,} steps of {recipe.batch_size:,} tokens",
        "",
        "<details><summary>The whole recipe</summary>",
        "",
        "```json",
        json.dumps(recipe.to_dict(), indent=1),
        "```",
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _evaluation(evaluation: Any) -> str:
    """Return the R2 matrix, and the summary, which has nulls beside the numbers if it is that of controls."""
    measured = getattr(evaluation, "evaluation", evaluation)
    names = [_cell(name) for name in measured.model_names]
    lines = [
        f"R2 of {measured.n_tokens:,} tokens, encoded from the model of the row and decoded to that of the column:",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
        *(
            "| " + " | ".join([name, *(f"{value:.3f}" for value in row)]) + " |"
            for name, row in zip(names, measured.r2, strict=True)
        ),
        "",
    ]
    texts = [measured.summary()] + ([evaluation.summary()] if measured is not evaluation else [])
    for each in texts:
        lines += ["```text", each.replace("```", "'''"), "```", ""]
    return "\n".join(lines).rstrip()


def _cell(words: str) -> str:
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
