"""The tables of benchmarks/independent.py."""

from __future__ import annotations

import math
from typing import Any

LABELS = ("photographs", "classes", "kinds")

COLUMNS = ("FVU", "1 - R2", "preservation", "localisation", "class probing", "kind probing", "monosemanticity", "absorption")

TRAINED = ("usae, all networks", "usae, one network", "usae, plain TopK", "SAELens", "dictionary_learning", "overcomplete")
OTHERS = (
    "random encoder",
    "neurons, k largest",
    "neurons, all",
    "k principal components",
    "mean token",
    "class and kind, told",
    "half of the grid",
    "3 x 3 tokens",
)

Records = list[dict[str, Any]]


def page(data: dict[str, Any]) -> str:
    """Return the whole page of results."""
    training = data["training"]
    tokens = f"{training['steps']} steps of {training['batch']} rows, {data['seeds']} seeds"
    sections = [
        "# Metrics of others",
        f"Made by `{data['command']}` with usae {data['usae']}: {tokens}. A cell has the mean over seeds ± half "
        "their range, and after the stroke the null: the same with labels, positions or images shuffled. docs/yardstick.md "
        "says what the columns and lines are.",
        summaries(data),
        *(section(f"{title}: {name}", records) for title, name, records in _networks(data)),
        "## Imports\n\n" + imports(data),
        "## Labels\n\n" + "\n\n".join(labels(title, world) for title, world in data["worlds"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def summaries(data: dict[str, Any]) -> str:
    """Return a table for each world, of means over its networks. This is what docs/yardstick.md has."""
    parts = []
    for title, world in data["worlds"].items():
        size, networks = world["size"], world["networks"]
        heading = f"**{title}** ({', '.join(networks)}), {size['n_concepts']} concepts, k = {size['k']}:"
        parts.append(f"{heading}\n\n{table(list(networks.values()))}")
    return "\n\n".join(parts)


def section(title: str, records: Records) -> str:
    rates = {record["method"]: f"{record['rate']:g}" for record in records if record["rate"] is not None}
    chosen = ", ".join(f"{rate} for {method}" for method, rate in rates.items())
    return f"## {title}\n\n{table([records], facts=True)}\n\nLearning rates: {chosen}."


def table(networks: list[Records], *, facts: bool = False) -> str:
    """Return a table of means over networks and seeds."""
    known = [("never fire", "never fire"), ("localised concepts", "scored")] if facts else [("never fire", "never fire")]
    lines = ["| | " + " | ".join([*COLUMNS, *(word for _, word in known)]) + " |"]
    lines.append("|---" + "|---:" * (len(COLUMNS) + len(known)) + "|")
    for method in TRAINED + OTHERS:
        chosen = [[record for record in records if record["method"] == method] for records in networks]
        if all(chosen):
            cells = [cell(chosen, column) for column in COLUMNS]
            cells += [_fact(chosen, key) for key, _ in known]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(networks: list[Records], column: str) -> str:
    """Return the mean, half the range over seeds of the means over networks, and the null."""
    seeds = sorted({record["seed"] for record in networks[0]})
    values = [_mean([_value(record, column, 0) for n in networks for record in n if record["seed"] == seed]) for seed in seeds]
    nulls = [_value(record, column, 1) for records in networks for record in records]
    if not any(math.isfinite(value) for value in values):
        return ""
    finite = [value for value in values if math.isfinite(value)]
    spread = (max(finite) - min(finite)) / 2
    text = f"{_mean(finite):.3f}" + (f" ± {spread:.3f}" if spread >= 0.0005 else "")
    null = _mean(nulls)
    return text + (f" / {null:.3f}" if math.isfinite(null) else "")


def imports(data: dict[str, Any]) -> str:
    """Return a table of how imported autoencoders compute beside the libraries that trained them."""
    lines = [
        "| library | activations | autoencoders | same concepts | codes | reconstructions |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for key, found in data["imports"].items():
        library, world = key.split("/")
        lines.append(
            f"| {library} {found['version']}, torch {found['torch']} | {world} | {found['autoencoders']} "
            f"| {found['same concepts']:.4f} | {found['codes']:.0e} | {found['reconstructions']:.0e} |"
        )
    return "\n".join(lines)


def labels(title: str, world: dict[str, Any]) -> str:
    counts = {
        what: ", ".join(f"{name} {number}" for name, number in world["labels"][what].items()) for what in ("kinds", "classes")
    }
    return f"**{title}**, held-out images of each kind: {counts['kinds']}; of each class: {counts['classes']}."


def _networks(data: dict[str, Any]) -> list[tuple[str, str, Records]]:
    return [(title, name, records) for title, world in data["worlds"].items() for name, records in world["networks"].items()]


def _value(record: dict[str, Any], column: str, which: int) -> float:
    value = record["metrics"].get(column, (None, None))[which]
    return float("nan") if value is None else float(value)


def _fact(networks: list[Records], key: str) -> str:
    value = _mean([record["facts"][key] for records in networks for record in records if key in record["facts"]])
    if not math.isfinite(value):
        return ""
    return f"{value:.3f}" if key == "never fire" else f"{value:.0f}"


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")
