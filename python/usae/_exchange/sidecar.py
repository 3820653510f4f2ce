"""``usae_export.json``, which lies beside every export: what the other library's files cannot say.

With it an import gives the codes of the original in its units, and the cap of BatchTopK. It names the file of weights with its
SHA-256, so that it is not believed of weights that another library has written since.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from usae import _usae
from usae._base.warning import warn
from usae._exchange.foreign_files import json_of
from usae._files import disk
from usae._saved.tensor_file import is_described
from usae.errors import CheckpointError

FILE = "usae_export.json"
_FORMAT = "usae export"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What an import takes from the file."""

    names: tuple[str, ...]
    """Of the models, of which the first is the one that is encoded."""
    means: dict[str, np.ndarray]
    scales: dict[str, np.ndarray]
    k: float
    k_max: int | None
    has_other_codes: bool
    """Whether norms of dictionary rows were moved into the codes, with ``unit_rows=True``."""


def content(
    library: str,
    names: tuple[str, ...],
    standardization: dict[str, tuple[np.ndarray, np.ndarray]],
    k: float,
    k_max: int | None,
    weights: dict[str, Any],
    lost: dict[str, str],
) -> dict[str, Any]:
    """Return what the file holds."""
    return {
        "format": _FORMAT,
        "format_version": _VERSION,
        "package_version": _usae.version(),
        "library": library,
        "models": [
            {"name": name, "mean": _short(mean), "scale": _short(scale)}
            for name, (mean, scale) in ((name, standardization[name]) for name in names)
        ],
        "k": k,
        "k_max": k_max,
        "lost": lost,
        "weights": weights,
    }


def text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def is_one(value: object) -> bool:
    return isinstance(value, dict) and value.get("format") == _FORMAT


def read(folder: pathlib.Path, weights: pathlib.Path, widths: list[int]) -> Sidecar | None:
    """Return what lies beside an export, or None if nothing does, or something that is about other weights."""
    file = folder / FILE
    if not file.exists():
        return None
    value = json_of(file)
    if not is_one(value):
        return None
    if not is_described(weights, value.get("weights")):
        warn(
            f"{file} is about other weights than {weights.name}, and is not used: names, units and k_max are lost; copy the "
            f"export again, unless another library wrote these weights"
        )
        return None
    if value.get("format_version") != _VERSION:
        raise CheckpointError(f"{file}: format_version must be {_VERSION}, got {value.get('format_version')!r}; update usae")
    models = value.get("models")
    if not isinstance(models, list) or len(models) != len(widths) or not all(isinstance(model, dict) for model in models):
        raise disk.unexpected(str(file), "models", models)
    names = tuple(str(model.get("name")) for model in models)
    if len(set(names)) < len(names) or not all(names):
        raise disk.unexpected(str(file), "models", names)
    means, scales = {}, {}
    for name, model, width in zip(names, models, widths, strict=True):
        means[name] = _array(model.get("mean"), width, file, "mean")
        scales[name] = _array(model.get("scale"), width, file, "scale")
        if not (scales[name] > 0).all():
            raise disk.unexpected(str(file), "scale", model.get("scale"))
    k, k_max = value.get("k"), value.get("k_max")
    if not disk.is_mean_count(k, 1, 2**24):
        raise disk.unexpected(str(file), "k", k)
    if k_max is not None and not disk.is_integer(k_max, 1, 2**24):
        raise disk.unexpected(str(file), "k_max", k_max)
    lost = value.get("lost")
    if not isinstance(lost, dict):
        raise disk.unexpected(str(file), "lost", lost)
    return Sidecar(names, means, scales, k, k_max, "units" in lost)


def _short(values: np.ndarray) -> float | list[float]:
    """Return one number for all dimensions if that is what they have."""
    return float(values[0]) if np.ptp(values) == 0 else [float(value) for value in values]


def _array(value: object, width: int, file: pathlib.Path, key: str) -> np.ndarray:
    numbers = value if isinstance(value, list) else [value] * width
    if len(numbers) != width or not all(isinstance(each, (int, float)) and abs(each) < 1e38 for each in numbers):
        raise disk.unexpected(str(file), key, value)
    return np.array(numbers, np.float64)
