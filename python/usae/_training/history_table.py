"""The history of a training run as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from usae._base.frames import pandas_for
from usae._files import disk

if TYPE_CHECKING:
    import pandas


def rows(history: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Flatten the entries of `UniversalSAE.history_`: the loss of model "vit" in "losses" becomes "losses.vit" and so on."""
    return [_flat(entry, names) for entry in history]


def _flat(entry: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    flat = {key: value for key, value in entry.items() if key not in ("losses", "encoders", "own_losses", "validation")}
    flat |= {f"losses.{name}": entry["losses"][name] for name in names}
    flat |= {f"own_losses.{name}": loss for name, loss in entry.get("own_losses", {}).items()}  # of the encoded models alone
    if "validation" in entry:
        validation = entry["validation"]
        flat["validation.n_tokens"] = validation["n_tokens"]
        flat |= {f"validation.l0.{name}": value for name, value in zip(names, validation["l0"], strict=True)}
        for source, of_source in zip(names, validation["r2"], strict=True):
            for target, value in zip(names, of_source, strict=True):
                flat[f"validation.r2.{source}->{target}"] = value
    return flat


def frame(history: Sequence[dict[str, Any]], names: Sequence[str]) -> pandas.DataFrame:
    """Return the table as a DataFrame; see `UniversalSAE.history_frame`."""
    pandas = pandas_for("UniversalSAE.history_frame")
    table = rows(history, names)
    if not table:
        return pandas.DataFrame(index=pandas.Index([], name="step"))
    return pandas.DataFrame(table).set_index("step")


def save_csv(history: Sequence[dict[str, Any]], names: Sequence[str], path: object) -> None:
    """Write the history as a CSV file; see `UniversalSAE.save_history`."""
    file = disk.path_of(path, "a file")
    table = rows(history, names)
    columns = list(dict.fromkeys(column for row in table for column in row))
    with disk.io_errors(file, "write", "the history"):
        disk.make_parents(file)
        with disk.replacing(file) as beside, open(beside, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(table)
            stream.flush()
            os.fsync(stream.fileno())
