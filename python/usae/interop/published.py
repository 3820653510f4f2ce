"""Reads checkpoints of the published code (github.com/YorkUCVIL/UniversalSAE, built on `overcomplete`).

A torch file is a pickle, and loading a pickle can execute code. The unpickler here executes none and does not need torch: it
knows dictionaries, numbers and tensors, and refuses a file that names anything else.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np

from usae._data.activations import as_float_array, check_known, check_names
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError
from usae.recipes import Recipe
from usae.recipes import published as published_recipe

__all__ = ["load_published"]

# Keys of the dictionary that the published code's `save_checkpoint` writes.
_WRAPPING = {"epoch", "model_state_dict", "optimizer_state_dict", "learning_rate"}

# Prefixes that torch.compile and DataParallel put before every name.
_PREFIXES = ("_orig_mod.", "module.")

# Names of the linear layer and BatchNorm: first those of `mlp_bn_1`, which the published configuration uses, then those of
# the encoder that `overcomplete` makes by default.
_BLOCKS = ("encoder.final_block.", "encoder.")
_ENCODER = {
    "0.weight": "encoder_weight",
    "0.bias": "encoder_bias",
    "1.weight": "bn_weight",
    "1.bias": "bn_bias",
    "1.running_mean": "bn_running_mean",
    "1.running_var": "bn_running_var",
}
_DICTIONARY = "dictionary._weights"
_MULTIPLIER = "dictionary.multiplier"  # in newer versions of `overcomplete`, the logarithm of a factor of the dictionary


def load_published(
    models: str | os.PathLike[str] | Mapping[str, Any],
    *,
    statistics: Mapping[str, tuple[Any, Any] | None],
    k: int = 32,
    recipe: Recipe | None = None,
    seed: int = 0,
    n_threads: int | None = None,
) -> UniversalSAE:
    """Make an autoencoder from checkpoints that the published code wrote.

    Neither torch nor the published code is needed, and no code in the files is executed.

    Parameters
    ----------
    models : mapping of str to path or mapping, or path
        For each model the ``.pth`` file that its training wrote, a ``.safetensors`` file of its ``state_dict``, or the
        ``state_dict`` itself with arrays or tensors as values. Or the path of one file that holds such a mapping. The
        architecture has to be that of the published configuration: Linear and BatchNorm, ReLU, TopK, and a dictionary with rows
        of norm 1.
    statistics : mapping of str to (mean, std) or None
        Mean and standard deviation with which the activations A of each model were standardised, as (A - mean) / (std + 1e-5):
        numbers, or arrays [width]. The published code writes them to the YAML file of the run, as ``model_mean`` and
        ``model_std``, and not to the checkpoints. None for a model whose activations were not standardised.
    k : int
        Number of active concepts, which the checkpoints do not contain. Default: 32, as in the published models.
    recipe : Recipe, optional
        Recipe for further training, with the "batchnorm" encoder. Default: None, which takes `usae.recipes.published()`.
    seed : int
        Seed of further training, as for `UniversalSAE`. Default: 0.
    n_threads : int or None
        Number of threads, as for `UniversalSAE`. Default: None.

    Returns
    -------
    UniversalSAE
        The autoencoder, with the optimiser in its initial state.

    Raises
    ------
    CheckpointError
        If a file is damaged, has another architecture, or contains anything but dictionaries, numbers and tensors.
    CheckpointFileError
        Also an OSError: a file cannot be read.
    InvalidInputError
        For arguments that cannot be used.

    Examples
    --------
    >>> sae = usae.load_published(
    ...     {"siglip": "uni_SigLIP_checkpoint_29.pth", "dinov2": "uni_DinoV2_checkpoint_29.pth"},
    ...     statistics={"siglip": (-0.0305, 2.2315), "dinov2": (0.0329, 2.4741)},
    ... )
    """
    recipe = published_recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe) or recipe.encoder != "batchnorm":
        raise InvalidInputError('recipe must be a usae.Recipe with encoder="batchnorm", which the published models have')
    parameters = {name: _parameters(content, label) for name, label, content in _contents(models)}
    concepts = {name: len(own["encoder_bias"]) for name, own in parameters.items()}
    if len(set(concepts.values())) > 1:
        raise CheckpointError(f"models: all must have the same number of concepts, got {concepts}")
    for name, scaling in _scaling(statistics, parameters).items():
        parameters[name].update(scaling)

    sae = UniversalSAE(next(iter(concepts.values())), k, recipe=recipe, seed=seed, n_threads=n_threads)
    sae.initialize({name: own["encoder_weight"].shape[1] for name, own in parameters.items()})
    for name, own in parameters.items():
        sae.set_parameters(name, own)
    sae._initialized().lacks_training_state = True
    return sae


# --- From a file's content to parameters ------------------------------------------------------------------------------


def _contents(models: Any) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return the name, the label for messages and the content of each model."""
    if isinstance(models, (str, os.PathLike)):
        content = _read(models)
        if "model_state_dict" in content or not all(isinstance(value, Mapping) for value in content.values()):
            raise CheckpointError(
                f'{os.fspath(models)} holds one model, whose name it does not tell; write {{"name": {os.fspath(models)!r}}}'
            )
        models, where = content, f" in {os.fspath(models)}"
    elif isinstance(models, Mapping):
        where = ""
    else:
        raise InvalidInputError(f"models must be a path or a mapping from model names, got {type(models).__name__}")
    check_names(models, "models")
    result = []
    for name, value in models.items():
        if isinstance(value, (str, os.PathLike)):
            result.append((name, f"models[{name!r}] ({os.fspath(value)})", _read(value)))
        elif isinstance(value, Mapping):
            result.append((name, f"models[{name!r}]{where}", value))
        else:
            raise InvalidInputError(f"models[{name!r}] must be a path or a state_dict, got {type(value).__name__}")
    return result


def _parameters(content: Mapping[str, Any], label: str) -> dict[str, np.ndarray]:
    """Return the tensors of one model by the names of `UniversalSAE.set_parameters`."""
    if "model_state_dict" in content:
        _refuse_unknown(set(content) - _WRAPPING, label)
        content = content["model_state_dict"]
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{label}: model_state_dict must be a dictionary, got {type(content).__name__}")
    tensors = _without_prefixes(content, label)
    block = next((block for block in _BLOCKS if f"{block}0.weight" in tensors), _BLOCKS[0])
    names = {block + key: name for key, name in _ENCODER.items()} | {_DICTIONARY: "dictionary"}
    _refuse_unknown(set(tensors) - set(names) - {f"{block}1.num_batches_tracked", _MULTIPLIER}, label)
    missing = [key for key in names if key not in tensors]
    if missing:
        raise CheckpointError(
            f"{label}: {', '.join(missing)} missing; only the published architecture can be read: Linear, BatchNorm, and a "
            f"dictionary with normalised rows"
        )
    result = {name: _as_float32(tensors[key], f"{label}: {key}") for key, name in names.items()}
    if _MULTIPLIER in tensors and np.any(_as_float32(tensors[_MULTIPLIER], f"{label}: {_MULTIPLIER}")):
        raise CheckpointError(f"{label}: {_MULTIPLIER} must be 0, because the published dictionaries have rows of norm 1")
    _check_shapes(result, label)
    return result


def _without_prefixes(content: Mapping[str, Any], label: str) -> dict[str, Any]:
    for key in content:
        if not isinstance(key, str):
            raise CheckpointError(f"{label}: the names of tensors must be text, got {key!r}")
    tensors = dict(content)
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _refuse_unknown(keys: set[Any], label: str) -> None:
    if keys:
        shown = ", ".join(sorted(map(str, keys))[:5]) + (", ..." if len(keys) > 5 else "")
        raise CheckpointError(f"{label}: unknown {shown}; this is not a checkpoint of the published architecture")


def _check_shapes(parameters: dict[str, np.ndarray], label: str) -> None:
    weight = parameters["encoder_weight"]
    if weight.ndim != 2 or weight.size == 0:
        raise CheckpointError(f"{label}: the encoder's weight must be [n_concepts, width], got {list(weight.shape)}")
    for name, value in parameters.items():
        expected = weight.shape if name in ("encoder_weight", "dictionary") else weight.shape[:1]
        if value.shape != expected:
            raise CheckpointError(
                f"{label}: {name} must be {list(expected)}, as the encoder's weight is {list(weight.shape)}, got "
                f"{list(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise CheckpointError(f"{label}: {name} has an element that is not finite as float32")
    if (parameters["bn_running_var"] < 0).any():
        raise CheckpointError(f"{label}: bn_running_var is negative")


def _as_float32(value: Any, label: str) -> np.ndarray:
    if isinstance(value, _Tensor):
        return value.to_float32(label)
    try:
        array, bfloat16 = as_float_array(value, label)
    except InvalidInputError as error:
        raise CheckpointError(str(error)) from None
    return _widened(array, bfloat16)


def _widened(array: np.ndarray, bfloat16: bool) -> np.ndarray:
    """Return a float32 copy. bfloat16, viewed as uint16, is the upper half of a float32."""
    if bfloat16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused later
        return np.array(array, np.float32)


def _scaling(statistics: Any, parameters: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Return mean and scale of each model from the published mean and standard deviation."""
    if not isinstance(statistics, Mapping):
        raise InvalidInputError(
            f"statistics must be a mapping from model names to (mean, std), got {type(statistics).__name__}; the published "
            f"code has them in the YAML file of the run, as model_mean and model_std"
        )
    for name in statistics:
        check_known(name, list(parameters), "statistics")
    result = {}
    for name, own in parameters.items():
        if name not in statistics:
            raise InvalidInputError(
                f"statistics must hold every model, got none for {name!r}; if its activations were not standardised, write None"
            )
        given, label, width = statistics[name], f"statistics[{name!r}]", own["encoder_weight"].shape[1]
        if given is None:
            result[name] = {"mean": np.zeros(width, np.float32), "scale": np.ones(width, np.float32)}
            continue
        try:
            mean, std = (np.broadcast_to(np.asarray(part, np.float64), (width,)) for part in given)
        except (TypeError, ValueError):
            raise InvalidInputError(f"{label} must be (mean, std), numbers or arrays [{width}], got {given!r}") from None
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
            raise InvalidInputError(f"{label} must be finite, and std not negative, got {given!r}")
        result[name] = {"mean": mean.astype(np.float32), "scale": (std + 1e-5).astype(np.float32)}
    return result


# --- Files ------------------------------------------------------------------------------------------------------------


def _read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the dictionary in a torch or safetensors file. Tensors of a torch file are converted when they are used."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            if start.startswith(b"PK"):
                return _TorchFile(path, file).content()
            if start[8:] == b"{":
                file.seek(0)
                return _safetensors(path, file.read())
    except OSError as error:
        raise CheckpointFileError(error.errno, f"cannot read the checkpoint: {error.strerror}", os.fspath(path)) from error
    if start.startswith(b"\x80"):
        raise CheckpointError(
            f"{os.fspath(path)} is a bare pickle, or a torch file from before PyTorch 1.6; such a file is not opened here. If "
            f"you trust who made it, rewrite it in PyTorch: torch.save(torch.load(path), new_path)"
        )
    raise CheckpointError(f"{os.fspath(path)} is neither a torch file (.pth, .pt) nor a safetensors file, or is cut short")


def _safetensors(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    import safetensors

    dtypes = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
    result: dict[str, Any] = {}
    try:
        for key, tensor in safetensors.deserialize(data):
            if tensor["dtype"] in dtypes:
                array = np.frombuffer(tensor["data"], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
                result[key] = _widened(array, tensor["dtype"] == "BF16")
            else:
                result[key] = _Unusable(tensor["dtype"])
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{os.fspath(path)} is not a whole safetensors file: {error}") from None
    return result


class _TorchFile:
    """A zip archive that `torch.save` wrote: NAME/data.pkl, and the bytes of each storage in NAME/data/KEY."""

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO):
        self.path = os.fspath(path)
        file.seek(0)
        data = io.BytesIO(file.read())  # so that tensors can be read after the file is closed
        try:
            self._archive = zipfile.ZipFile(data)
        except Exception as error:  # zipfile raises exceptions of many types for a damaged archive
            self.refuse(f"is not a whole torch file: {error}")
        pickles = [name for name in self._archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            self.refuse("is a zip archive, but not one that torch.save wrote: it has no NAME/data.pkl")
        self._name = pickles[0].split("/")[0]
        order = self.entry("byteorder", default=b"little")
        if order not in (b"little", b"big"):
            self.refuse(f"has an unknown byte order {order[:20]!r}")
        self.byte_order: Literal["<", ">"] = "<" if order == b"little" else ">"

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path} {reason}")

    def entry(self, key: str, default: bytes | None = None) -> bytes:
        name = f"{self._name}/{key}"
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            if default is not None:
                return default
            self.refuse(f"lacks {name}")
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses, and a small file could expand to any size
            self.refuse(f"has a compressed entry, {name}, which torch.save does not write")
        try:
            return self._archive.read(info)
        except Exception as error:  # as above
            self.refuse(f"is damaged at {name}: {error}")

    def content(self) -> Mapping[str, Any]:
        try:
            content = _Unpickler(self, self.entry("data.pkl")).load()
        except CheckpointError:
            raise
        except Exception as error:  # pickle raises exceptions of many types for a damaged or hostile pickle
            self.refuse(f"has a damaged pickle: {type(error).__name__}: {error}")
        if not isinstance(content, dict):
            self.refuse(f"must hold a dictionary, got {type(content).__name__}; save model.state_dict()")
        return content


# --- The pickle -------------------------------------------------------------------------------------------------------


class _Dictionary(dict[Any, Any]):
    """Replaces OrderedDict. Its attributes, such as the `_metadata` of torch, are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Inert:
    """Replaces NumPy scalars, which occur only in the state of the optimiser. It has no value."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class _Unusable:
    """A tensor of a type that parameters cannot have."""

    dtype: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The bytes of one or more tensors in the archive."""

    file: _TorchFile
    key: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage: element [i, j, ...] is at offset + i * strides[0] + j * strides[1] + ..."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_float32(self, label: str) -> np.ndarray:
        if self.storage.dtype not in _FLOATS:
            raise CheckpointError(f"{label} must be a tensor of floats, got {self.storage.dtype}")
        dtype = np.dtype(_FLOATS[self.storage.dtype]).newbyteorder(self.storage.file.byte_order)
        data = self.storage.file.entry(f"data/{self.storage.key}")
        elements = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        # A view with more elements than its storage is an expanded one, with which a small file could ask for any size.
        if 0 in self.shape or last >= len(elements) or math.prod(self.shape) > len(elements):
            raise CheckpointError(
                f"{label}: shape {list(self.shape)}, strides {list(self.strides)} and offset {self.offset} do not fit into "
                f"its {len(elements)} elements"
            )
        strides = [stride * dtype.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides, writeable=False)
        return _widened(view, self.storage.dtype == "BFloat16Storage")


_FLOATS = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2"}
_OTHERS = {"LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"}
_NUMPY = {
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # pickle's protocol 2 writes the bytes of scalars with it
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows a few names and imports nothing."""

    def __init__(self, file: _TorchFile, data: bytes):
        super().__init__(io.BytesIO(data))
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        # Each call returns a new lambda or class, so that a pickle that sets attributes on it changes nothing else.
        if (module, name) == ("collections", "OrderedDict"):
            return type("OrderedDict", (_Dictionary,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuilt_tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and (name in _FLOATS or name in _OTHERS):
            return name
        if (module, name) in _NUMPY:
            return type("Inert", (_Inert,), {})
        self._file.refuse(
            f"names {module}.{name}, which a checkpoint of tensors and numbers does not need; nothing was executed. If you "
            f"trust who made it, save model.state_dict() alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), *_) if dtype in _FLOATS or dtype in _OTHERS:
                return _Storage(self._file, key, dtype)
        self._file.refuse(f"refers to data in an unknown way: {str(pid)[:80]}")


def _rebuilt_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> _Tensor:
    whole = [offset, *shape, *strides]
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("a tensor that is none")
    if not all(type(number) is int and 0 <= number < 2**48 for number in whole):
        raise ValueError(f"a tensor with offset, shape and strides {str(whole)[:80]}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))
