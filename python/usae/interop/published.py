"""Reads checkpoints of the published code (github.com/YorkUCVIL/UniversalSAE, built on `overcomplete`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._data.activations import as_float_array, check_known, check_names
from usae._estimator.universal_sae import UniversalSAE
from usae._files import disk
from usae._files.torch_file import StoredTensor, float32_copy, read
from usae.errors import CheckpointError, InvalidInputError
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
        raise InvalidInputError(
            f'recipe must be a usae.Recipe with encoder="batchnorm", as the published models are, got {checks.shown(recipe)}'
        )
    parameters = {name: _parameters(content, label) for name, label, content in _contents(models)}
    concepts = {name: len(own["encoder_bias"]) for name, own in parameters.items()}
    if len(set(concepts.values())) > 1:
        raise CheckpointError(f"models: all must have the same number of concepts, got {concepts}; load those of one training")
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
        content = read(models)
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
            result.append((name, f"models[{disk.shortened(name)}] ({os.fspath(value)})", read(value)))
        elif isinstance(value, Mapping):
            result.append((name, f"models[{disk.shortened(name)}]{where}", value))
        else:
            raise InvalidInputError(f"models[{name!r}] must be a path or a state_dict, got {type(value).__name__}")
    return result


def _parameters(content: Mapping[str, Any], label: str) -> dict[str, np.ndarray]:
    """Return the tensors of one model by the names of `UniversalSAE.set_parameters`."""
    if "model_state_dict" in content:
        _refuse_unknown(set(content) - _WRAPPING, label)
        content = content["model_state_dict"]
        if not isinstance(content, Mapping):
            raise CheckpointError(
                f"{label}: model_state_dict must be a dictionary, got {type(content).__name__}; save it again"
            )
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
        raise CheckpointError(
            f"{label}: {_MULTIPLIER} must be 0, as where rows have norm 1; only the published architecture can be read"
        )
    _check_shapes(result, label)
    return result


def _without_prefixes(content: Mapping[str, Any], label: str) -> dict[str, Any]:
    for key in content:
        if not isinstance(key, str):
            raise CheckpointError(
                f"{label}: the names of tensors must be text, got {disk.shortened(key)}; save model.state_dict()"
            )
    tensors = dict(content)
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _refuse_unknown(keys: set[Any], label: str) -> None:
    if keys:
        shown = ", ".join(sorted(str(key)[:80] for key in keys)[:5]) + (", ..." if len(keys) > 5 else "")
        raise CheckpointError(f"{label}: unknown {shown}; this is not a checkpoint of the published architecture")


def _check_shapes(parameters: dict[str, np.ndarray], label: str) -> None:
    weight = parameters["encoder_weight"]
    if weight.ndim != 2 or weight.size == 0:
        raise CheckpointError(
            f"{label}: the encoder's weight must be [n_concepts, width], got {list(weight.shape)}; save it again"
        )
    for name, value in parameters.items():
        expected = weight.shape if name in ("encoder_weight", "dictionary") else weight.shape[:1]
        if value.shape != expected:
            raise CheckpointError(
                f"{label}: {name} must be {list(expected)}, as the encoder's weight is {list(weight.shape)}, got "
                f"{list(value.shape)}; save it again"
            )
        if not np.isfinite(value).all():
            raise CheckpointError(f"{label}: {name} must be finite as float32, got NaN or infinity; use an earlier checkpoint")
    if (parameters["bn_running_var"] < 0).any():
        raise CheckpointError(f"{label}: bn_running_var must be 0 or more, got negative numbers; save it again")


def _as_float32(value: Any, label: str) -> np.ndarray:
    if isinstance(value, StoredTensor):
        return value.to_float32(label)
    try:
        array, bfloat16 = as_float_array(value, label)
    except InvalidInputError as error:
        raise CheckpointError(str(error)) from None
    return float32_copy(array, bfloat16)


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
        except Exception:  # of NumPy, or of the value's own methods
            raise InvalidInputError(
                f"{label} must be (mean, std), numbers or arrays [{width}], got {checks.shown(given)}"
            ) from None
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
            raise InvalidInputError(f"{label} must be finite, and std not negative, got {checks.shown(given)}")
        result[name] = {"mean": mean.astype(np.float32), "scale": (std + 1e-5).astype(np.float32)}
    return result
