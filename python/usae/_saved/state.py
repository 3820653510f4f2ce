"""Conversion of an autoencoder to a header and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._core.autoencoder import Autoencoder, check_finite
from usae._core.tensors import EFFECTIVE_DIMENSIONS, RESTS, Tensors
from usae._saved.header import FORMAT, FORMAT_VERSION, Header, fields_since, history_from_json, history_to_json
from usae.recipes import Recipe


def snapshot(autoencoder: Autoencoder, training_state: bool) -> tuple[Header, Tensors]:
    """Return the whole state as a header and tensors. Tensors of the model "vit" are named "vit.dictionary" and so on.

    It is the state between two steps, even while another thread trains. A training state that was lost in an earlier save is
    not made up, so that training on still warns of it.
    """
    training_state = training_state and not autoencoder.optimizer_is_lost
    names = autoencoder.parameter_names() + (autoencoder.training_state_names() if training_state else ())
    places = [(i, name) for i in range(len(autoencoder.names)) for name in names]
    arrays, steps = autoencoder.read_all(places)
    check_finite(autoencoder.names, places, arrays, steps)  # such a save could not be loaded
    autoencoder.wait_for_record(steps)
    tensors = {f"{autoencoder.names[i]}.{name}": array for (i, name), array in zip(places, arrays, strict=True)}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": _usae.version(),
        "n_concepts": autoencoder.n_concepts,
        "k": autoencoder.k,
        "seed": autoencoder.seed,
        "n_steps": steps,
        "models": [{"name": name, "width": width} for name, width in autoencoder.widths.items()],
        "recipe": None if autoencoder.given_recipe is None else autoencoder.given_recipe.to_dict(),
        "resolved_recipe": autoencoder.recipe.to_dict(),
        "training_state": training_state,
        "mean_rest": "mean_rest" in names,
        "effective_dimensions": training_state,
        **({"threshold_rest": True} if "threshold_rest" in names else {}),
        **_of_arrays(autoencoder),
        "history": [history_to_json(entry) for entry in autoencoder.history if entry["step"] <= steps],
    }
    return header, tensors


def _of_arrays(autoencoder: Autoencoder) -> dict[str, Any]:
    """Return what is known of the arrays that were trained on, in fields of the header that are only there if not empty."""
    labels = {name: list(each) for name, each in autoencoder.column_labels.items()}
    fields = {"column_labels": labels, "standardized_types": dict(autoencoder.standardized_types)}
    return {key: value for key, value in fields.items() if value}


def restored(header: Header, tensors: Mapping[str, np.ndarray], n_threads: int | None) -> Autoencoder:
    """Invert `snapshot`. Header and tensors have to come from it, perhaps of an older version, or to be checked before."""
    params = {name: header[name] for name in ("n_concepts", "k", "seed")}
    later = fields_since(2)  # pickles of versions with format 2 lack them; the others went through checked_header
    params["recipe"] = None if header["recipe"] is None else Recipe.from_dict(later | header["recipe"])
    params["n_threads"] = n_threads
    widths = {model["name"]: model["width"] for model in header["models"]}
    autoencoder = Autoencoder(params, Recipe.from_dict(later | header["resolved_recipe"]))
    autoencoder.initialize(widths)
    restore(autoencoder, header, tensors)
    return autoencoder


def restore(autoencoder: Autoencoder, header: Header, tensors: Mapping[str, np.ndarray]) -> None:
    """Set an autoencoder of the same sizes and recipe to the saved state."""
    absent = () if header.get("effective_dimensions", False) else (EFFECTIVE_DIMENSIONS,)
    names = autoencoder.training_state_names() if header["training_state"] else ()
    training_state = [name for name in names if name not in absent]
    rests = [name for name in RESTS if header.get(name, False)]
    for i, model in enumerate(autoencoder.names):
        for name in (*autoencoder.parameter_names(rests), *training_state):
            autoencoder.write(i, name, tensors[f"{model}.{name}"])
    saved = {name: tuple(labels) for name, labels in header.get("column_labels", {}).items()}
    autoencoder.column_labels = saved | autoencoder.column_labels  # those of a run that is resumed now are newer
    autoencoder.standardized_types = header.get("standardized_types", {}) | autoencoder.standardized_types
    autoencoder.core.step_count = header["n_steps"]
    autoencoder.history = [history_from_json(entry) for entry in header["history"]]
    autoencoder.lacks_training_state = header["n_steps"] > 0 and not header["training_state"]
