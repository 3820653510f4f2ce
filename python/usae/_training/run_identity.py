"""A description of everything that determines the result of a training run, so that only the same run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations
from usae._data.stored_array import StoredArray
from usae._files import disk
from usae._saved.header import Header
from usae.errors import CheckpointError, InvalidInputError

SAMPLE_ROWS = 1024
"""Rows of an array that identify it among arrays of the same shape. Reading all rows would take too long."""

Run = dict[str, Any]
"""Names and JSON values, in the order in which they are compared."""


def describe_run(
    method: str,
    autoencoder: Autoencoder,
    data: Mapping[str, Mapping[str, Activations] | None],
    buffer_tokens: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Run:
    """Describe a run of `fit` or `fit_stream`.

    `data` has the activations of each argument, or None if it is not given; `more` is what else there is, by name.
    """
    run: Run = {"method": method, "models": list(autoencoder.names)}
    for argument, acts in data.items():
        run[argument] = "not given" if acts is None else "given"
        for x in (acts or {}).values():
            run |= _describe_activations(x, method)
    run |= {"n_concepts": autoencoder.n_concepts, "k": autoencoder.k, "seed": autoencoder.seed}
    run |= {} if buffer_tokens is None else {"buffer_tokens": buffer_tokens}
    run |= more or {}
    run |= _of_recipe(autoencoder.recipe.to_dict())
    return json.loads(json.dumps(run))  # as it will be read from the file


def check_same(begun: Run, now: Run, place: str) -> None:
    """Raise InvalidInputError with the first difference between the run in the folder `place` and this one."""
    for name, wanted, was in differences(now, begun):
        raise InvalidInputError(
            f"resume: {name} must be {was}, as when the run in {place!r} was started, got {wanted}; use that value, or another "
            f"folder"
        )


def check_checkpoint(header: Header, run: Run, widths: Mapping[str, int] | None = None) -> None:
    """Raise a CheckpointError with the first difference between a checkpoint and the run in whose folder it is.

    `run` may be without fields, which are not compared then. `widths` are those of the models. Default: None, which compares
    only what `run` has.
    """
    own: Run = {"models": [model["name"] for model in header["models"]]}
    own |= {name: header[name] for name in ("n_concepts", "k", "seed")} | _of_recipe(header["resolved_recipe"])
    wanted = {name: run[name] for name in own if name in run}
    if widths is not None:
        wanted["models"] = [{"name": name, "width": width} for name, width in widths.items()]
        own["models"] = header["models"]
    for name, must, got in differences(wanted, {name: own[name] for name in wanted}):
        raise CheckpointError(f"{name} must be {must}, as in the run, got {got}; move what is of another run out of this one")


def differences(one: Run, other: Run) -> Iterator[tuple[str, str, str]]:
    """Yield the name and both values, as text, of everything that differs."""
    for name in one | other:
        first, second = one.get(name, "nothing"), other.get(name, "nothing")
        if first != second:
            yield name, disk.shortened(first), disk.shortened(second)


def _of_recipe(recipe: Mapping[str, Any]) -> Run:
    rest = dict(recipe)
    steps = {"steps": rest.pop("total_steps")}  # compared before the warm-up and other fields that may depend on it
    return steps | {f"recipe.{name}": value for name, value in rest.items()}


def _describe_activations(x: Activations, method: str) -> Run:
    run: Run = {f"{x.label}: columns": x.width, f"{x.label}: elements": "bfloat16" if x.bfloat16 else str(x.array.dtype)}
    if x.rows is not None:  # not an entry of "nothing", so that runs that were begun before there were masks can go on
        run[f"{x.label}: mask"] = hashlib.sha256(x.rows.astype("<i8")).hexdigest()  # type: ignore[arg-type]  # any buffer
    if isinstance(x.array, StoredArray):
        sums = "\n".join(x.array.checksums())
        return run | {f"{x.label}: rows": x.n_tokens, f"{x.label}: files": hashlib.sha256(sums.encode()).hexdigest()}
    first = "first " if method == "fit_stream" and not x.label.startswith("validation") else ""
    values = np.ascontiguousarray(x.thinned(SAMPLE_ROWS).array)
    digest = hashlib.sha256(values).hexdigest()  # type: ignore[arg-type]  # any buffer
    return run | {f"{x.label}: {first}rows": x.n_tokens, f"{x.label}: values of {first}rows": digest}
