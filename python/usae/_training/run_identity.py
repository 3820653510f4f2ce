"""What decides the bits of a training run, in words, so that only the same run is gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from usae._core.fitted import Fitted
from usae._data.activations import Activations
from usae._data.stored_array import StoredArray
from usae._files import disk
from usae.errors import InvalidInputError

SAMPLE_ROWS = 1024
"""Rows of an array that tell it from another of the same shape; all rows would take as long as reading the file."""

Run = dict[str, Any]
"""Names and JSON values, in the order in which they are compared."""


def described(
    method: str, fitted: Fitted, data: Mapping[str, Mapping[str, Activations] | None], buffer_tokens: int | None = None
) -> Run:
    """A run of `fit` or `fit_stream`. `data` are the activations that it looks at, by argument; None: not given."""
    run: Run = {"method": method, "models": list(fitted.names)}
    for argument, acts in data.items():
        run[argument] = "not given" if acts is None else "given"
        for x in (acts or {}).values():
            run |= _described_activations(x, method)
    run |= {"n_concepts": fitted.n_concepts, "k": fitted.k, "seed": fitted.seed}
    run |= {} if buffer_tokens is None else {"buffer_tokens": buffer_tokens}
    recipe = fitted.recipe.to_dict()
    run["steps"] = recipe.pop("total_steps")  # before warm-up and others that may follow from it
    run |= {f"recipe.{name}": value for name, value in recipe.items()}
    return json.loads(json.dumps(run))  # as it will be read again


def check_same(begun: Run, now: Run, place: str) -> None:
    """InvalidInputError with the first difference between the run that lies at `place` and the one that is asked for."""
    for name, wanted, was in differences(now, begun):
        raise InvalidInputError(
            f"resume: the run in {place!r} was begun with {name} {was}, but this call has {wanted}; give what it was begun "
            f"with, or choose another folder"
        )


def differences(one: Run, other: Run) -> Iterator[tuple[str, str, str]]:
    """Name, value in one and value in the other, as words, of what is not the same."""
    for name in one | other:
        first, second = one.get(name, "nothing"), other.get(name, "nothing")
        if first != second:
            yield name, disk.shortened(first), disk.shortened(second)


def _described_activations(x: Activations, method: str) -> Run:
    run: Run = {f"{x.label}: columns": x.width, f"{x.label}: elements": "bfloat16" if x.bfloat16 else str(x.array.dtype)}
    if isinstance(x.array, StoredArray):
        sums = "\n".join(x.array.checksums())
        return run | {f"{x.label}: rows": x.n_tokens, f"{x.label}: files": hashlib.sha256(sums.encode()).hexdigest()}
    first = "first " if method == "fit_stream" and not x.label.startswith("validation") else ""
    values = np.ascontiguousarray(x.thinned(SAMPLE_ROWS).array)
    digest = hashlib.sha256(values).hexdigest()  # type: ignore[arg-type]  # any buffer
    return run | {f"{x.label}: {first}rows": x.n_tokens, f"{x.label}: values of {first}rows": digest}
