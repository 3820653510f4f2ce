"""Saved autoencoders: a folder with ``model.safetensors`` (tensors) and ``usae.json`` (everything else).

The two belong together by the size and SHA-256 of the tensors in ``usae.json``. That is also what makes replacing a save
safe. A new folder is written beside its place and renamed. In an existing one, empty or with an older save,

1. the tensors are written to ``model.safetensors.new``,
2. ``usae.json`` is replaced, which is one rename: from here on the new save is the one that counts,
3. ``model.safetensors.new`` is renamed to ``model.safetensors``.

`load` takes whichever of the two tensor files ``usae.json`` describes, so a computer that stops at any point leaves the
old save or the new one, whole. Other files in the folder are left alone. Two processes must not write one folder at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import pathlib
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae._core.fitted import INTEGERS, Fitted, StepReport
from usae._estimator.checkpoints import RUN
from usae._files import disk
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError, UsaeError, UsaeMemoryError
from usae.recipes import Recipe

FORMAT = "usae"
FORMAT_VERSION = 2
HEADER = "usae.json"
TENSORS = "model.safetensors"
UNSETTLED = "model.safetensors.new"
NEW_HEADER = "usae.json.new"

Header = dict[str, Any]
Tensors = dict[str, np.ndarray]


# --- An autoencoder as a header and tensors ----------------------------------------------------------------------------


def snapshot(fitted: Fitted, training_state: bool) -> tuple[Header, Tensors]:
    """Everything that makes `fitted` what it is; the tensors of model "vit" are named "vit.dictionary" and so on."""
    names = fitted.parameter_names() + (fitted.training_state_names() if training_state else ())
    tensors = {f"{model}.{name}": fitted.read(i, name) for i, model in enumerate(fitted.names) for name in names}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": _usae.version(),
        "n_concepts": fitted.n_concepts,
        "k": fitted.k,
        "seed": fitted.seed,
        "n_steps": fitted.core.step_count,
        "models": [{"name": name, "width": width} for name, width in fitted.widths.items()],
        "recipe": None if fitted.given_recipe is None else fitted.given_recipe.to_dict(),
        "resolved_recipe": fitted.recipe.to_dict(),
        "training_state": training_state,
        "history": [_history_to_json(entry) for entry in fitted.history],
    }
    return header, tensors


def restored(header: Header, tensors: Mapping[str, np.ndarray], n_threads: int | None) -> Fitted:
    """The inverse of `snapshot`, for a header and tensors that come from one or were checked."""
    params = {name: header[name] for name in ("n_concepts", "k", "seed")}
    params["recipe"] = None if header["recipe"] is None else Recipe.from_dict(header["recipe"])
    params["n_threads"] = n_threads
    widths = {model["name"]: model["width"] for model in header["models"]}
    fitted = Fitted(params, Recipe.from_dict(header["resolved_recipe"]), widths)
    fitted.core.initialize(list(widths), list(widths.values()))
    restore(fitted, header, tensors)
    return fitted


def restore(fitted: Fitted, header: Header, tensors: Mapping[str, np.ndarray]) -> None:
    """Bring one of the same sizes and recipe to the saved state."""
    for i, model in enumerate(fitted.names):
        for name in fitted.parameter_names() + (fitted.training_state_names() if header["training_state"] else ()):
            fitted.write(i, name, tensors[f"{model}.{name}"])
    fitted.core.step_count = header["n_steps"]
    fitted.history = [_history_from_json(entry) for entry in header["history"]]
    fitted.lacks_training_state = header["n_steps"] > 0 and not header["training_state"]


def _history_to_json(value: Any) -> Any:
    """What JSON has no number for, as null, "inf" and "-inf". (The R2 of constant activations is -inf.)"""
    if isinstance(value, dict):
        return {key: _history_to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_history_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _history_from_json(value: Any) -> Any:
    if isinstance(value, dict):  # a model may be called "inf"
        return {
            key: item if key == "encoder" and isinstance(item, str) else _history_from_json(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_history_from_json(item) for item in value]
    return math.nan if value is None else float(value) if isinstance(value, str) else value


# --- Writing -----------------------------------------------------------------------------------------------------------


def save(fitted: Fitted, path: str | os.PathLike[str], training_state: bool) -> None:
    """See `UniversalSAE.save`."""
    given = disk.folder_of(path)
    if not isinstance(training_state, bool):
        raise InvalidInputError(f"training_state must be True or False, got {training_state!r}")
    with disk.io_errors(given, "write", "the autoencoder"):
        folder = pathlib.Path(os.path.realpath(given))  # of ".", or of a link, the place that it stands for
    with disk.io_errors(folder, "write", "the autoencoder"):
        exists = _is_ours(folder)
        header, tensors = snapshot(fitted, training_state)
        if exists:
            _settle(folder)
            _replace(folder, header, tensors)
        else:
            _create(folder, header, tensors)


def check_place(path: str | os.PathLike[str]) -> None:
    """The error that `save` would end with, where a folder holds something else."""
    folder = disk.folder_of(path)
    with disk.io_errors(folder, "write", "the autoencoder"):
        _is_ours(pathlib.Path(os.path.realpath(folder)))


def _is_ours(folder: pathlib.Path) -> bool:
    """Whether there is a folder to write into, empty or with a save to be replaced; an error where it holds anything else."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise CheckpointFileError(errno.ENOTDIR, "cannot save there: it is not a folder; choose another path", str(folder))
    if {path.name for path in folder.iterdir()} <= {UNSETTLED, NEW_HEADER}:  # what a first save that was cut short leaves
        return True
    try:
        header = json.loads((folder / HEADER).read_bytes())
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT or (folder / TENSORS).is_dir():
        raise CheckpointFileError(
            errno.EEXIST, "cannot save there: the folder holds something that usae did not save; choose another path",
            str(folder),
        )  # fmt: skip
    return True


def _create(folder: pathlib.Path, header: Header, tensors: Tensors) -> None:
    beside = folder.with_name(f".usae-{secrets.token_hex(6)}")
    beside.mkdir()
    try:
        file = _write_tensors(beside / TENSORS, tensors)
        disk.write_text(beside / HEADER, _to_json(header | {"tensors": file}))
        disk.sync(beside)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    disk.sync(folder.parent)


def _replace(folder: pathlib.Path, header: Header, tensors: Tensors) -> None:
    new_header = folder / NEW_HEADER
    try:
        file = _write_tensors(folder / UNSETTLED, tensors)
        disk.write_text(new_header, _to_json(header | {"tensors": file}))
        disk.sync(folder)
    except BaseException:
        for unused in (folder / UNSETTLED, new_header):
            with contextlib.suppress(OSError):
                unused.unlink()
        raise
    new_header.replace(folder / HEADER)
    disk.sync(folder)
    (folder / UNSETTLED).replace(folder / TENSORS)
    disk.sync(folder)


def _settle(folder: pathlib.Path) -> None:
    """Do step 3 of a replacement that was cut short, before its tensors are overwritten."""
    if (folder / UNSETTLED).exists() and (folder / HEADER).exists():
        described = json.loads((folder / HEADER).read_bytes()).get("tensors")
        if _describe(folder / UNSETTLED) == described:
            (folder / UNSETTLED).replace(folder / TENSORS)


def _write_tensors(file: pathlib.Path, tensors: Tensors) -> dict[str, Any]:
    file.touch()
    permissions = file.stat().st_mode
    try:
        safetensors.numpy.save_file(tensors, file)
    except safetensors.SafetensorError as error:  # how its own writer reports a full disk
        raise CheckpointFileError(errno.EIO, f"cannot write: {error}", str(file)) from error
    file.chmod(permissions)  # safetensors makes files that only their owner may read
    disk.sync(file)
    return _describe(file)


def _describe(file: pathlib.Path) -> dict[str, Any]:
    with open(file, "rb") as stream:
        return {"bytes": os.fstat(stream.fileno()).st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _to_json(header: Header) -> str:
    """Indented for people, with one line for each step of the history."""
    history = ",\n    ".join(json.dumps(entry, allow_nan=False) for entry in header["history"])
    text = json.dumps(header | {"history": []}, indent=2, allow_nan=False, ensure_ascii=False)
    return text.replace('"history": []', f'"history": [\n    {history}\n  ]', 1) + "\n" if history else text + "\n"


# --- Reading -----------------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], n_threads: int | None) -> Fitted:
    """See `usae.load`."""
    folder = disk.folder_of(path)
    thread_count(n_threads, "n_threads")
    with _reading(folder):
        return restored(*_read(folder), n_threads)


def read(folder: pathlib.Path) -> tuple[Header, Tensors]:
    """What `restore` takes, with the errors of `load`."""
    with _reading(folder):
        return _read(folder)


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    with disk.io_errors(folder, "read", "the autoencoder"):
        if folder.is_file():
            raise CheckpointError(f"{folder}: not saved by usae, which saves folders; this is a file")
        try:
            yield
        except (CheckpointFileError, UsaeMemoryError):
            raise
        except UsaeError as error:
            raise CheckpointError(f"{folder}: {error}") from None


def _read(folder: pathlib.Path) -> tuple[Header, Tensors]:
    """Header and tensors of one save, even if another process replaces it between the looks at its files."""
    for _ in range(100):
        before = _identity(folder)
        try:
            header = _checked_header(_read_header(folder))
            tensors = _read_tensors(folder, header)
        except (UsaeError, OSError):
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return header, tensors
    raise CheckpointFileError(errno.EBUSY, "cannot read: other processes replace it all the time", str(folder))


def _identity(folder: pathlib.Path) -> list[tuple[int, int, int] | None]:
    """Of the files as they are now; each replacement changes it."""
    identity: list[tuple[int, int, int] | None] = []
    for name in (HEADER, TENSORS, UNSETTLED):
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            identity.append(None)
        else:
            identity.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return identity


def _read_header(folder: pathlib.Path) -> bytes:
    try:
        return (folder / HEADER).read_bytes()
    except FileNotFoundError:
        if (folder / RUN).exists():
            raise CheckpointError("holds checkpoints of a run; use usae.Checkpoints(path).load()") from None
        if folder.is_dir():
            raise CheckpointError(f"not saved by usae, there is no {HEADER} in it") from None
        raise
    except IsADirectoryError:
        raise CheckpointError(f"not saved by usae, {HEADER} in it is a folder where a file should be") from None


def _checked_header(raw: bytes) -> Header:
    """The header, if `restored` can rely on it."""
    try:
        header = checks.parsed_json(raw.decode())
    except ValueError as error:
        raise CheckpointError(f"{HEADER} is damaged or cut short: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f'{HEADER} was not written by usae: its "format" is not "{FORMAT}"')
    version = _checked_version(header)
    disk.check_keys(header, _HEADER_KEYS, HEADER)
    for key, is_valid in _HEADER_KEYS.items():
        if not is_valid(header[key]):
            raise disk.unexpected(HEADER, key, header[key])
    names = [model["name"] for model in header["models"]]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{HEADER}: a model's name occurs twice in {names}")
    for key in ("recipe", "resolved_recipe"):
        if header[key] is not None:
            header[key] = _upgraded_recipe(header[key], version)
            disk.check_keys(header[key], {field.name: None for field in dataclasses.fields(Recipe)}, f"{HEADER}: {key}")
            Recipe.from_dict(header[key])
    if header["resolved_recipe"]["dead_tokens"] is None:
        raise disk.unexpected(HEADER, "resolved_recipe.dead_tokens", None)
    for i, entry in enumerate(header["history"]):
        if version < 2 and isinstance(entry, dict):
            entry.setdefault("prefix", header["n_concepts"])  # there were no others then
        _check_step(entry, f"history[{i}]", len(names))
    return header


def _checked_version(header: Header) -> int:
    version = header.get("format_version")
    if not disk.is_integer(version, 1):
        raise CheckpointError(f"{HEADER}: format_version must be an integer of at least 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"saved in format {version} by usae {header.get('package_version')}, but this is usae {_usae.version()}, which "
            f"knows formats up to {FORMAT_VERSION}; update usae"
        )
    return version


def _upgraded_recipe(recipe: dict[str, Any], version: int) -> dict[str, Any]:
    """A recipe of an older format with the fields that came later, which were as their defaults say."""
    later = {} if version > 1 else _FIELDS_SINCE_2
    for field in later:
        if field in recipe:
            raise CheckpointError(f"{HEADER}: a recipe of format {version} has no field {field!r}")
    return recipe | later


def _check_step(entry: object, where: str, n_models: int) -> None:
    """One entry of the history: the fields of a StepReport, and perhaps what `Fitted.record_validation` adds."""
    fields = [field.name for field in dataclasses.fields(StepReport) if field.name != "screening"]
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


def _read_tensors(folder: pathlib.Path, header: Header) -> Tensors:
    file = _tensor_file(folder, header["tensors"])
    expected = _expected_tensors(header)
    try:
        with safetensors.safe_open(file, framework="numpy") as stored:
            disk.check_keys(dict.fromkeys(stored.keys()), expected, file.name)
            for name, (dtype, shape) in expected.items():
                piece = stored.get_slice(name)
                if (piece.get_dtype(), piece.get_shape()) != (dtype, shape):
                    raise CheckpointError(
                        f"{file.name}: tensor {name!r} must be {dtype} {shape}, got {piece.get_dtype()} {piece.get_shape()}"
                    )
            tensors = {name: stored.get_tensor(name) for name in expected}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file.name} is not a safetensors file, or a damaged one: {error}") from None
    for name, values in tensors.items():
        moment = name.endswith("_second_moment")  # infinite where a gradient was 1e19 or more: such an element trains no more
        if not np.isfinite(values).all() and (not moment or np.isnan(values).any()):
            raise CheckpointError(f"{file.name}: tensor {name!r} holds NaN or infinity")
        if (moment or name.endswith(tuple(INTEGERS))) and (values < 0).any():
            raise CheckpointError(f"{file.name}: tensor {name!r} holds negative numbers")
    return tensors


def _tensor_file(folder: pathlib.Path, described: dict[str, Any]) -> pathlib.Path:
    """The file that the header describes; see the top of this file for why there are two candidates."""
    found = [folder / name for name in (TENSORS, UNSETTLED) if (folder / name).exists()]
    for file in found:
        if file.is_file() and file.stat().st_size == described["bytes"] and _describe(file) == described:
            return file
    if not found:
        raise CheckpointError(f"{TENSORS} is missing")
    if not found[0].is_file():
        what = "a folder" if found[0].is_dir() else "no ordinary file"
        raise CheckpointError(f"{found[0].name} is {what}, but must be the file that usae wrote; copy it again")
    size = found[0].stat().st_size
    if size < described["bytes"]:
        raise CheckpointError(f"{TENSORS} is cut short: it has {size:,} of {described['bytes']:,} bytes; copy it again")
    raise CheckpointError(f"{TENSORS} is damaged or belongs to another save: it is not the file that {HEADER} describes")


def _expected_tensors(header: Header) -> dict[str, tuple[str, list[int]]]:
    """Type and shape by name, in the words of safetensors."""
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
        shapes |= {"mean": [width], "scale": [width]}
        if batchnorm:
            shapes |= {"bn_running_mean": [n_concepts], "bn_running_var": [n_concepts]}
        if batchtopk:
            shapes |= {"threshold": [1]}
        expected |= {f"{name}.{key}": ("F32", shape) for key, shape in shapes.items()}
        if header["training_state"]:
            expected |= {f"{name}.{key}": ("I64", [3 if key == "counters" else n_concepts]) for key in INTEGERS}
    return expected


def _is_number(value: object) -> bool:
    """As `_history_to_json` writes them."""
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
    "k": lambda value: disk.is_integer(value, 1, 2**24),
    "seed": lambda value: disk.is_integer(value, 0, 2**64 - 1),
    "n_steps": lambda value: disk.is_integer(value, 0),
    "models": lambda value: isinstance(value, list) and bool(value) and all(
        isinstance(model, dict)
        and set(model) == {"name", "width"}
        and isinstance(model["name"], str)
        and disk.is_integer(model["width"], 1, 2**20)
        for model in value
    ),
    "recipe": lambda value: value is None or isinstance(value, dict),
    "resolved_recipe": lambda value: isinstance(value, dict),
    "training_state": lambda value: isinstance(value, bool),
    "tensors": lambda value: isinstance(value, dict)
    and set(value) == {"bytes", "sha256"}
    and disk.is_integer(value["bytes"], 0)
    and isinstance(value["sha256"], str),
    "history": lambda value: isinstance(value, list),  # see _check_step
}  # fmt: skip


_FIELDS_SINCE_2 = {
    "selection": "topk",
    "k_max": None,
    "prefixes": None,
    "merge_cosine": None,
    "merge_every": 50,
    "prefix_loss": "mean",
}
