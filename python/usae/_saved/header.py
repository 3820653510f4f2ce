"""``usae.json``, which holds everything of a saved autoencoder but its tensors: its schema, and that of older versions."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from usae import _usae
from usae._base.float_types import FLOATS
from usae._core.reports import OF_SEVERAL, StepReport
from usae._core.tensors import EFFECTIVE_DIMENSIONS, INTEGERS
from usae._data.columns import are_labels
from usae._files import checksummed_json, disk
from usae.errors import CheckpointError
from usae.recipes import Recipe

FORMAT = "usae"
FORMAT_VERSION = 4
HEADER = "usae.json"
MOST_BYTES = 2**28
"""A history of 100,000 entries has some 70 MB."""

MOST_MODELS = 4096
"""As the core allows."""

_CHECKSUM_SINCE = 3
_REMEDY = "copy it again"
_MOST_VALUES = 2**24

Header = dict[str, Any]


def history_to_json(value: Any) -> Any:
    """Write NaN as null and infinities as "inf" and "-inf", which JSON lacks. (Before version 3, an R2 could be -inf.)"""
    if isinstance(value, dict):
        return {key: history_to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [history_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def history_from_json(value: Any) -> Any:
    """Invert `history_to_json`."""
    if isinstance(value, dict):  # "encoder" and "encoders" are names of models, which may be "inf"
        return {
            key: item if key in ("encoder", "encoders") and isinstance(item, (str, list)) else history_from_json(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [history_from_json(item) for item in value]
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def to_json(header: Header) -> str:
    """Return indented JSON with one line for each step of the history, for people to read."""
    history = ",\n    ".join(json.dumps(entry, allow_nan=False) for entry in header["history"])
    labels: Header = {"column_labels": {}} if "column_labels" in header else {}
    text = json.dumps(header | labels | {"history": []}, indent=2, allow_nan=False, ensure_ascii=False)
    if labels:
        in_one_line = json.dumps(header["column_labels"], ensure_ascii=False)
        text = text.replace('"column_labels": {}', f'"column_labels": {in_one_line}', 1)
    whole = text.replace('"history": []', f'"history": [\n    {history}\n  ]', 1) if history else text
    return checksummed_json.with_checksum(whole + "\n")


def checked_header(raw: bytes) -> Header:
    """Parse the header and check everything that `restored` relies on."""
    header, has_checksum = checksummed_json.parsed(raw, HEADER, _REMEDY, _MOST_VALUES)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f'{HEADER} was not written by usae: its "format" is not "{FORMAT}"; give what save wrote')
    version = _checked_version(header)
    checksummed_json.check_has_checksum(has_checksum, version >= _CHECKSUM_SINCE, HEADER, _REMEDY)
    if version < 3:
        header.setdefault("mean_rest", False)
    if version < 4:
        header.setdefault("effective_dimensions", False)
    header.setdefault("column_labels", {})  # these are there only if they hold something
    header.setdefault("standardized_types", {})
    header.setdefault("threshold_rest", False)
    disk.check_keys(header, _HEADER_KEYS, HEADER)
    for key, is_valid in _HEADER_KEYS.items():
        if not is_valid(header[key]):
            raise disk.unexpected(HEADER, key, header[key])
    names = [model["name"] for model in header["models"]]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{HEADER}: a model's name occurs twice in {names}; copy it again")
    widths = {model["name"]: model["width"] for model in header["models"]}
    for name, labels in header["column_labels"].items():
        if name not in widths or not are_labels(labels, widths[name]):
            raise disk.unexpected(HEADER, f"column_labels[{name!r}]", labels)
    for name in header["standardized_types"]:
        if name not in widths:
            raise disk.unexpected(HEADER, "standardized_types", name)
    for key in ("recipe", "resolved_recipe"):
        if header[key] is not None:
            header[key] = _upgraded_recipe(header[key], version)
            disk.check_keys(header[key], {field.name: None for field in dataclasses.fields(Recipe)}, f"{HEADER}: {key}")
            Recipe.from_dict(header[key])
    for field in ("dead_tokens", "learning_rate", "input_noise"):
        if header["resolved_recipe"][field] is None:
            raise disk.unexpected(HEADER, f"resolved_recipe.{field}", None)
    if not isinstance(header["k"], int) and header["resolved_recipe"]["selection"] != "batchtopk":
        raise disk.unexpected(HEADER, "k", header["k"])
    for i, entry in enumerate(header["history"]):
        if version < 2 and isinstance(entry, dict):
            entry.setdefault("prefix", header["n_concepts"])  # format 1 had no shorter prefixes
        _check_step(entry, f"history[{i}]", len(names))
    return header


def _checked_version(header: Header) -> int:
    version = header.get("format_version")
    if not disk.is_integer(version, 1):
        raise CheckpointError(f"{HEADER}: format_version must be an integer of at least 1, got {version!r}; copy it again")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{HEADER}: format_version must be at most {FORMAT_VERSION}, which usae {_usae.version()} knows, got {version} "
            f"from usae {header.get('package_version')}; update usae"
        )
    return version


def _upgraded_recipe(recipe: dict[str, Any], version: int) -> dict[str, Any]:
    """Add the fields that an older format lacks, with values that give what its version did."""
    later = fields_since(version)
    for field in later:
        if field in recipe:
            raise CheckpointError(f"{HEADER}: a recipe of format {version} has no field {field!r}; copy it again")
    return recipe | later


def fields_since(version: int) -> dict[str, Any]:
    """Return the fields of a recipe that were added after a version of this format, with values that give what it did."""
    return {field: value for number, fields in _FIELDS_SINCE.items() if number > version for field, value in fields.items()}


def _check_step(entry: object, where: str, n_models: int) -> None:
    """Check one entry of the history: the fields of a StepReport, and perhaps those of `Autoencoder.add_validation`."""
    fields = [field.name for field in dataclasses.fields(StepReport) if field.name != "screening"]
    if not isinstance(entry, dict) or "encoders" not in entry:
        fields = [name for name in fields if name not in OF_SEVERAL]
    is_valid: dict[str, Callable[[Any], bool]] = {name: _is_number for name in fields}
    is_valid |= {
        "step": lambda value: disk.is_integer(value, 1),
        "encoder": lambda value: isinstance(value, str),
        "dead": lambda value: disk.is_integer(value, 0),
        "prefix": lambda value: disk.is_integer(value, 1),
        "losses": lambda value: (
            isinstance(value, dict) and len(value) == n_models and all(_is_number(loss) for loss in value.values())
        ),
    }
    if "encoders" in fields:
        is_valid["encoders"] = lambda value: (
            isinstance(value, list) and 2 <= len(value) <= n_models and all(isinstance(name, str) for name in value)
        )
        is_valid["own_losses"] = lambda value: (
            isinstance(value, dict)
            and list(value) == entry["encoders"]  # type: ignore[index]
            and all(_is_number(loss) for loss in value.values())
        )
    if isinstance(entry, dict) and "validation" in entry:
        is_valid["validation"] = lambda value: (
            isinstance(value, dict)
            and set(value) == {"n_tokens", "r2", "l0"}
            and disk.is_integer(value["n_tokens"], 1)
            and isinstance(value["r2"], list)
            and len(value["r2"]) == n_models
            and all(_are_numbers(row, n_models) for row in value["r2"])
            and _are_numbers(value["l0"], n_models)
        )
    disk.check_keys(entry, is_valid, f"{HEADER}: {where}")
    for key, check in is_valid.items():
        if not check(entry[key]):  # type: ignore[index]  # a dict, by disk.check_keys
            raise disk.unexpected(HEADER, f"{where}.{key}", entry[key])  # type: ignore[index]


def expected_tensors(header: Header) -> dict[str, tuple[str, list[int]]]:
    """Return type, as safetensors names it, and shape of each tensor by name."""
    n_concepts = header["n_concepts"]
    batchnorm = header["resolved_recipe"]["encoder"] == "batchnorm"
    batchtopk = header["resolved_recipe"]["selection"] == "batchtopk"
    expected: dict[str, tuple[str, list[int]]] = {}
    for model in header["models"]:
        name, width = model["name"], model["width"]
        shapes = {"encoder_weight": [n_concepts, width], "encoder_bias": [n_concepts], "dictionary": [n_concepts, width]}
        if batchnorm:
            shapes |= {"bn_weight": [n_concepts], "bn_bias": [n_concepts]}
        if header["training_state"]:
            shapes |= {f"{key}_{m}_moment": shape for key, shape in shapes.items() for m in ("first", "second")}
        shapes |= {"mean": [width], "scale": [width]} | ({"mean_rest": [width]} if header["mean_rest"] else {})
        if batchnorm:
            shapes |= {"bn_running_mean": [n_concepts], "bn_running_var": [n_concepts]}
        if batchtopk:
            shapes |= {"threshold": [1]} | ({"threshold_rest": [n_concepts]} if header["threshold_rest"] else {})
        expected |= {f"{name}.{key}": ("F32", shape) for key, shape in shapes.items()}
        if header["training_state"]:
            if header["effective_dimensions"]:
                expected[f"{name}.{EFFECTIVE_DIMENSIONS}"] = ("F32", [1])
            expected |= {f"{name}.{key}": ("I64", [3 if key == "counters" else n_concepts]) for key in INTEGERS}
    return expected


def _is_number(value: object) -> bool:
    """Whether this is a number as `history_to_json` writes it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return value is None or value in ("inf", "-inf")


def _are_numbers(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(_is_number(number) for number in value)


_HEADER_KEYS = {
    "format": lambda value: value == FORMAT,
    "format_version": lambda value: disk.is_integer(value, 1, FORMAT_VERSION),
    "package_version": lambda value: isinstance(value, str),
    "n_concepts": lambda value: disk.is_integer(value, 1, 2**24),
    "k": lambda value: disk.is_mean_count(value, 1, 2**24),
    "seed": lambda value: disk.is_integer(value, 0, 2**64 - 1),
    "n_steps": lambda value: disk.is_integer(value, 0),
    "models": lambda value: isinstance(value, list) and 1 <= len(value) <= MOST_MODELS and all(
        isinstance(model, dict)
        and set(model) == {"name", "width"}
        and isinstance(model["name"], str)
        and disk.is_integer(model["width"], 1, 2**20)
        for model in value
    ),
    "recipe": lambda value: value is None or isinstance(value, dict),
    "resolved_recipe": lambda value: isinstance(value, dict),
    "training_state": lambda value: isinstance(value, bool),
    "mean_rest": lambda value: isinstance(value, bool),
    "threshold_rest": lambda value: isinstance(value, bool),
    "effective_dimensions": lambda value: isinstance(value, bool),
    "column_labels": lambda value: isinstance(value, dict),  # see checked_header
    "standardized_types": lambda value: isinstance(value, dict) and all(each in FLOATS for each in value.values()),
    "tensors": lambda value: isinstance(value, dict)
    and set(value) == {"bytes", "sha256"}
    and disk.is_integer(value["bytes"], 0)
    and isinstance(value["sha256"], str),
    "history": lambda value: isinstance(value, list),  # see _check_step
}  # fmt: skip


_FIELDS_SINCE: dict[int, dict[str, Any]] = {
    2: {
        "selection": "topk",
        "k_max": None,
        "prefixes": None,
        "merge_cosine": None,
        "merge_every": 50,
        "prefix_loss": "mean",
    },
    3: {"first_step_full": False, "warmup_inclusive": False, "outlier_multiple": None},
    4: {
        "aux_every": 1,
        "step_limit": None,
        "encoded_models": "one",
        "agreement": 0.0,
        "agreement_on": "preactivations",
        "agreement_scale": None,
        "agreement_start": 0.3,
        "agreement_full": 0.8,
        "dictionary_norm": "unit",
        "input_noise": 0.0,
        "same_model_weight": 1.0,
    },
}
"""The recipe's fields that each format added, with values that give what was done before."""
