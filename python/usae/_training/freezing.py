"""Models that stay as they are while others are trained into their code, as with `fit(frozen=...)` and `add_model`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from usae import recipes
from usae._base import checks
from usae._core import resolved_recipe, rounding
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import RESTS
from usae._data import shuffled_blocks
from usae._data.activations import Activations, are_stored, check_columns, check_known
from usae._data.chunks import chunks, rows_of
from usae._data.weakly_paired import Parts
from usae.errors import InvalidInputError
from usae.recipes import Recipe

CODE_FIELDS = ("encoder", "selection", "k_max", "dictionary_epsilon", "dictionary_norm")
"""Fields of a recipe that say what a code and a reconstruction are, so that all models have to have the same."""

AGREEMENT = 0.03
"""Largest weight of the agreement term. The others' codes do not give way, so a larger weight costs the new model's own R2: on
the demonstration's activations up to .05 with 0.3, .03 with 0.1 and .02 with this."""

RATE = 2.0
"""Learning rates are this multiple of those that are derived for a training from the start: the others do not move, and
there are fewer steps. On the demonstration's networks R2 to the others is then .025 lower than from the start, and .031
without; in 100 steps on the pretrained ones the new model's own is .052 lower, and .062 without (docs/training.md)."""

INITIAL_ROWS = 16_384
"""Most rows that the first dictionary comes from."""

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Keeping:
    """The models to keep, the autoencoder that has them, and the recipe for the others."""

    names: tuple[str, ...]
    autoencoder: Autoencoder
    recipe: Recipe

    def apply(self, training: Autoencoder, given: Parts) -> None:
        """Give an autoencoder these models, freeze them, and start the dictionaries of the others from their codes."""
        take_models(training, self.autoencoder, self.names, state=True)
        for name in training.names:
            if name not in self.names:
                initialize_from_codes(training, name, self.names, given.parts)
        training.freeze(self.names)
        training.standardization = self._kept(training.standardization or {}, self.autoencoder.standardization or {})
        training.standardized_types = self._kept(training.standardized_types, self.autoencoder.standardized_types)
        training.column_labels = self._kept(training.column_labels, self.autoencoder.column_labels)

    def _kept(self, new: dict[str, Value], before: Mapping[str, Value]) -> dict[str, Value]:
        """Return what is known of each model: of those that are kept what was known before."""
        rest = {name: value for name, value in new.items() if name not in self.names}
        return rest | {name: before[name] for name in self.names if name in before}

    def described(self) -> dict[str, Any]:
        """Return what identifies the frozen models: their names, and a hash of their parameters."""
        digest = hashlib.sha256()
        for name in self.names:
            for tensor, values in sorted(self.autoencoder.parameters(name).items()):
                digest.update(f"{name} {tensor}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        return {"frozen": list(self.names), "frozen: parameters": digest.hexdigest()}


def names_of(frozen: object) -> tuple[str, ...]:
    """Return the names of the models to keep. InvalidInputError unless they are a list."""
    if isinstance(frozen, str):
        raise InvalidInputError(f"frozen must be a list of names of models, got the text {frozen!r}; write frozen=[{frozen!r}]")
    names: Sequence[Any] = checks.listed(frozen, "frozen", "a list of names of models")
    return tuple(dict.fromkeys(names)) if all(isinstance(name, str) for name in names) else tuple(names)


def checked(
    names: tuple[str, ...], autoencoder: Autoencoder, params: Mapping[str, Any], recipe: Recipe | None, given: Parts
) -> Keeping:
    """Return the models that `fit` keeps.

    Parameters
    ----------
    names : tuple of str
        The models to keep, at least one.
    autoencoder : Autoencoder
        What has them.
    params : mapping of str to Any
        Arguments of the constructor of `UniversalSAE`.
    recipe : Recipe or None
        The recipe of the constructor, checked.
    given : Parts
        What is trained on.

    Raises
    ------
    InvalidInputError
        For names that the autoencoder or the activations do not have, for all models of the activations, and for sizes or a
        recipe that give another code than the frozen models have.
    """
    for name in names:
        check_known(name, autoencoder.names, "frozen")
    columns = given.columns
    missing = [name for name in names if name not in columns]
    if missing:
        raise InvalidInputError(
            f"acts must hold every model of frozen ({', '.join(names)}), got none for {', '.join(missing)}; the others learn "
            f"from their rows"
        )
    if len(names) == len(columns):
        raise InvalidInputError(f"frozen must leave a model of acts that is trained, got all of them: {', '.join(names)}")
    for field, has in (("n_concepts", autoencoder.n_concepts), ("k", autoencoder.k)):
        if params[field] != has:
            raise InvalidInputError(f"{field} must be {has}, as the frozen models have it, got {params[field]!r}")
    for number, part in enumerate(given.parts):
        own = {name: part[name] for name in names if name in part}
        if len(own) == len(part):
            raise InvalidInputError(
                f"acts.parts[{number}] must have a model that is trained, got frozen ones alone ({', '.join(part)}); leave out "
                f"this part, of which nothing can be learned"
            )
        for name, x in own.items():
            check_columns(x, name, autoencoder.columns[name])
        rounding.check(autoencoder, own)
    return Keeping(names, autoencoder, _recipe(recipe, autoencoder))


def _recipe(recipe: Recipe | None, autoencoder: Autoencoder) -> Recipe:
    """Return the recipe of the constructor, or without one that of a model that joins."""
    if recipe is None:
        return joining_recipe(autoencoder)
    check_code_fields(recipe, autoencoder)
    return recipe


def joining_recipe(autoencoder: Autoencoder) -> Recipe:
    """Return the recipe of an autoencoder for a model that joins it.

    Each step encodes the new model and another, and the agreement term has its whole weight from the first step, because the
    codes to agree with are there. Its weight is `AGREEMENT`, or the recipe's if that is smaller and not 0. Learning rates are
    `RATE` times the derived ones, or those that were asked for.
    """
    recipe, given = autoencoder.recipe, autoencoder.given_recipe or Recipe()
    if given.learning_rate is None:
        recipe = resolved_recipe.with_derived_rate(recipe.replace(step_limit=given.step_limit), RATE)
    if recipe.agreement == 0:
        recipe = recipe.replace(agreement=AGREEMENT, agreement_scale=recipes.agreeing().agreement_scale)
    return recipe.replace(
        agreement=min(recipe.agreement, AGREEMENT),
        encoded_models="all" if recipe.encoded_models == "all" else "two",
        agreement_start=0.0,
        agreement_full=0.0,
        initialization="data",
        merge_cosine=None,  # a merge would move concepts of all models
        total_steps=None,
        dead_tokens=None,
    )


def check_code_fields(recipe: Recipe, autoencoder: Autoencoder) -> None:
    """Refuse a recipe that gives another code than the models of an autoencoder have."""
    for field in CODE_FIELDS:
        if getattr(recipe, field) != getattr(autoencoder.recipe, field):
            raise InvalidInputError(
                f"recipe: {field} must be {getattr(autoencoder.recipe, field)!r}, as the other models have it, got "
                f"{getattr(recipe, field)!r}; take sae.recipe_.replace(...)"
            )


def take_models(training: Autoencoder, autoencoder: Autoencoder, names: Sequence[str], *, state: bool = False) -> None:
    """Give models that are frozen the parameters that they have in `autoencoder`, and perhaps the state of their training."""
    tensors = autoencoder.parameter_names(RESTS if autoencoder.recipe.selection == "batchtopk" else ("mean_rest",))
    tensors += autoencoder.training_state_names() if state else ()
    values, _ = autoencoder.read_all([(autoencoder.index(each), tensor) for each in names for tensor in tensors])
    places = [(training.index(each), tensor) for each in names for tensor in tensors]
    training.write_all(dict(zip(places, values, strict=True)))


def initialize_from_codes(
    training: Autoencoder, name: str, known: Sequence[str], parts: Sequence[Mapping[str, Activations]]
) -> None:
    """Start each dictionary row at the mean of a new model's tokens, weighted by known models' codes of the concept.

    The encoder starts as the transpose, as with the initialisation "data". Concepts that do not fire in the rows that are read
    stay at the token that this initialisation drew.
    """
    new = training.index(name)
    mean, scale = training.exact_mean(new), training.read(new, "scale").astype(float)
    sums = np.zeros((training.n_concepts, training.widths[name]))
    for given in parts:
        others = [each for each in known if each in given]
        if name not in given or not others:
            continue
        rows = shuffled_blocks.sample(given, training.seed) if are_stored(given) else given
        rows = {each: rows[each].thinned(INITIAL_ROWS) for each in (*others, name)}
        for part in chunks(rows[name].n_tokens, size=1024):
            tokens = (rows_of(rows[name], part).astype(float) - mean) / scale
            for other in others:
                values = np.empty((len(tokens), training.core.slots), np.float32)
                indices = np.empty(values.shape, np.int32)
                training.core.encode(training.index(other), rows[other].part(part).native, values, indices)
                _add_weighted(sums, values, indices, tokens)
    weight, dictionary = training.read(new, "encoder_weight"), training.read(new, "dictionary")
    norms = np.linalg.norm(sums, axis=1)
    fired = norms > 0
    directions = sums[fired] / norms[fired, None]
    for tensor in (weight, dictionary):
        tensor[fired] = directions * np.linalg.norm(tensor[fired].astype(float), axis=1, keepdims=True)
    training.write_all({(new, "encoder_weight"): weight, (new, "dictionary"): dictionary})


def _add_weighted(sums: np.ndarray, values: np.ndarray, indices: np.ndarray, tokens: np.ndarray) -> None:
    """Add each token to the sums of its concepts, times their values."""
    token, slot = np.nonzero(indices >= 0)
    concepts, weights = indices[token, slot], values[token, slot].astype(float)
    order = np.argsort(concepts, kind="stable")
    if order.size:
        concepts, token, weights = concepts[order], token[order], weights[order]
        starts = np.flatnonzero(np.r_[True, concepts[1:] != concepts[:-1]])
        sums[concepts[starts]] += np.add.reduceat(tokens[token] * weights[:, None], starts, axis=0)
