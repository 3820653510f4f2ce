"""A model that joins: its encoder and dictionary are trained into the code of models that stay as they are.

The training is that of `fit`, on an autoencoder of the joining model and the models that rows are given of. The core freezes
the latter. Each step encodes the joining model and another one: the first code trains the new encoder through all dictionaries,
both train the new dictionary, and the agreement term draws the new encoder's code to that of the other.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

import numpy as np

from usae._base.progress import progress_bar
from usae._core import resolved_recipe, rounding, standardization
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import Tensors
from usae._data.activations import Activations, as_aligned, check_columns, check_known, check_names
from usae._saved.state import restored, snapshot
from usae._training import loop
from usae._training.freezing import check_code_fields, initialize_from_codes, joining_recipe, take_models
from usae.errors import InvalidInputError
from usae.recipes import Recipe

logger = logging.getLogger("usae")

SHARE_OF_STEPS = 3
"""A model joins in one of so many steps of the training before, if the caller does not say otherwise."""


def checked(autoencoder: Autoencoder, name: object, acts: object, mask: object) -> dict[str, Activations]:
    """Return the activations of the models that are there, in the order of the autoencoder, and the new one last.

    Raises
    ------
    InvalidInputError
        For a name that is taken or cannot be a model's, and for activations without the joining model, without any other, of
        unknown models, of other widths or labels of columns than was trained on, or whose rows are not aligned.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"name must be the name of the model that joins, text, got {type(name).__name__}")
    check_names({name: None}, "name")
    if name in autoencoder.names:
        raise InvalidInputError(
            f"name must be that of a model that the autoencoder does not have yet ({', '.join(autoencoder.names)}), got "
            f"{name!r}; choose another name, or train all models with fit"
        )
    given = as_aligned(acts, "acts", mask=mask)
    others = [known for known in autoencoder.names if known in given]
    for each in given:
        check_known(each, [*autoencoder.names, name], "acts")
    if name not in given or not others:
        missing = f"the joining model {name!r}" if name not in given else f"any of the models {', '.join(autoencoder.names)}"
        raise InvalidInputError(
            f"acts must hold the joining model and at least one other, got none for {missing}; the other model's rows say "
            f"which concepts are active where"
        )
    for each in others:
        check_columns(given[each], each, autoencoder.columns[each])
    rounding.check(autoencoder, {each: given[each] for each in others})
    return {each: given[each] for each in (*others, name)}


def checked_recipe(autoencoder: Autoencoder, recipe: object) -> Recipe:
    """Return the recipe of a model that joins: the caller's, or `joining_recipe` where it is None."""
    if recipe is None:
        return joining_recipe(autoencoder)
    if not isinstance(recipe, Recipe):
        raise InvalidInputError(f"recipe must be a usae.Recipe or None, got {type(recipe).__name__}; see usae.recipes")
    check_code_fields(recipe, autoencoder)
    if recipe.encoded_models == "one":
        raise InvalidInputError(
            "recipe: encoded_models must be 'two' or 'all', so that the new dictionary sees codes of other models, got 'one'"
        )
    return recipe


def steps_of_joining(autoencoder: Autoencoder, epochs: float | None, steps: int | None) -> int | None:
    """Return `steps`, or if neither is given a third of those that the autoencoder has done; None if it has done none."""
    done = autoencoder.core.step_count
    return steps if epochs is not None or steps is not None or not done else math.ceil(done / SHARE_OF_STEPS)


def join(
    autoencoder: Autoencoder,
    name: str,
    given: dict[str, Activations],
    recipe: Recipe,
    callbacks: loop.Callbacks,
    progress: bool | None,
    n_threads: int | None,
) -> Autoencoder:
    """Train the model that joins, and return an autoencoder of all models. `autoencoder` and its tensors stay as they are.

    `recipe` is the resolved one of this training.
    """
    params = {"n_concepts": autoencoder.n_concepts, "k": autoencoder.k, "seed": autoencoder.seed, "n_threads": n_threads}
    training = Autoencoder(params | {"recipe": recipe}, recipe)
    training.initialize_from(given)
    training.check_finite(given)
    known = training.names[:-1]
    take_models(training, autoencoder, known)
    new = training.index(name)
    reports = training.standardization or {}
    standardization.warn_of({name: reports[name]} if name in reports else {}, recipe)
    initialize_from_codes(training, name, known, [given])
    training.freeze(known)
    total, batch_size = int(recipe.total_steps or 0), resolved_recipe.step_tokens(recipe, len(given))
    logger.info("%s joins %s: %d steps of %d tokens", name, ", ".join(list(given)[:-1]), total, batch_size)
    bar = progress_bar(total, progress, initial=0)
    with bar, contextlib.closing(loop.batches_of(given, training.seed, batch_size, 0)) as batches:
        loop.train(training, batches, total, None, callbacks, bar, loop.NoCheckpoints())
    return _with_model(autoencoder, training, new, n_threads)


def _with_model(autoencoder: Autoencoder, training: Autoencoder, new: int, n_threads: int | None) -> Autoencoder:
    """Return an autoencoder of all models and the new one, through the state that a save has."""
    name = training.names[new]
    header, tensors = snapshot(autoencoder, training_state=True)
    own_header, own_tensors = snapshot(training, training_state=header["training_state"])
    own = {tensor: values for tensor, values in own_tensors.items() if tensor.startswith(f"{name}.")}
    tensors = {**tensors, **own}
    header |= {
        "models": [*header["models"], {"name": name, "width": training.widths[name]}],
        "history": [_history_with(entry, name) for entry in header["history"]],
    }
    for key in ("column_labels", "standardized_types"):
        own_values = own_header.get(key, {})
        header[key] = header.get(key, {}) | ({name: own_values[name]} if name in own_values else {})
    _complete(header, tensors)
    result = restored(header, tensors, n_threads)
    reports = (autoencoder.standardization or {}) | {name: (training.standardization or {}).get(name)}
    result.standardization = {each: report for each, report in reports.items() if report is not None} or None
    result.stream_report = autoencoder.stream_report
    return result


def _complete(header: dict[str, Any], tensors: Tensors) -> None:
    """Give all models the rests that one of them has: 0 in the others."""
    for rest, like in (("mean_rest", "mean"), ("threshold_rest", "encoder_bias")):
        if any(f"{model['name']}.{rest}" in tensors for model in header["models"]):
            header[rest] = True
            for model in header["models"]:
                values = tensors[f"{model['name']}.{like}"]
                tensors.setdefault(f"{model['name']}.{rest}", np.zeros_like(values))


def _history_with(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an entry of the history, as JSON has it, in which the new model has no numbers."""
    entry = entry | {"losses": {**entry["losses"], name: None}}
    if "validation" in entry:
        validation = entry["validation"]
        n_models = len(validation["l0"])
        r2 = [[*row, None] for row in validation["r2"]] + [[None] * (n_models + 1)]
        entry["validation"] = validation | {"r2": r2, "l0": [*validation["l0"], None]}
    return entry
