"""What a format's module gives to be written, and what it is told."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from usae._exchange.foreign_sae import ForeignSAE, has_unit_rows
from usae.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of the model that is encoded, of the one that is decoded, and of all models whose dictionaries are in it."""

    model: str
    target: str
    decoded: tuple[str, ...]

    @property
    def is_pair(self) -> bool:
        return self.target != self.model


@dataclasses.dataclass(frozen=True)
class Content:
    """Files of an export, by name."""

    architecture: str
    """What the other library calls it."""
    json: dict[str, dict[str, Any]]
    weights: str
    """Name of the file of `tensors`."""
    tensors: dict[str, np.ndarray]
    loading: str
    """Code with which the other library loads {path}."""
    lost: dict[str, str] = dataclasses.field(default_factory=dict)
    """What only this format loses."""


def as_float32(values: np.ndarray, what: str) -> np.ndarray:
    """Round to float32 once. InvalidInputError for what it cannot hold."""
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(result).all():
        raise InvalidInputError(
            f"model must have parameters that float32 holds in own units, got an {what} that is too large; its scale is tiny"
        )
    return result


def whole_k(foreign: ForeignSAE) -> int:
    """Return k for files that hold an integer. Beside thresholds, which decide what is active, it says what training did."""
    return round(foreign.k or 0)


def lost_k(foreign: ForeignSAE) -> dict[str, str]:
    """Return what `whole_k` loses."""
    if foreign.k is None or foreign.k == whole_k(foreign):
        return {}
    return {"k": f"the mean number of concepts that training kept, {foreign.k:g}, is an integer there: {whole_k(foreign)}"}


def refuse_threshold(foreign: ForeignSAE, library: str, remedy: str) -> None:
    if foreign.thresholds is not None:
        raise InvalidInputError(
            f'format must be one with thresholds for selection="batchtopk", got {library!r}, which has TopK alone; {remedy}'
        )


def refuse_short_rows(foreign: ForeignSAE, library: str) -> None:
    if not has_unit_rows(foreign):
        raise InvalidInputError(
            f'format must be one whose dictionary rows have any norm for dictionary_norm="bounded", got {library!r}, which '
            f"divides rows by their norms; the other formats do not"
        )


def refuse_pair(names: Names, library: str, remedy: str) -> None:
    if names.is_pair:
        raise InvalidInputError(
            f"target must be None or {names.model!r}, the model itself, for {library!r}, got {names.target!r}; {remedy}"
        )
