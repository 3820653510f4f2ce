"""Consistency: dictionary rows of two autoencoders, matched one to one by their cosine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html
from usae._base.float_types import widened
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae._base.progress import checked as checked_progress
from usae._base.progress import progress_bar
from usae._core.dictionary_rows import unit_rows
from usae._data.activations import as_aligned, as_float_array, check_known, check_names, mask_of
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.errors import InvalidInputError
from usae.recipes import Recipe

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("usae")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """Concepts of one model, matched with the rows of another dictionary of the same model.

    Attributes
    ----------
    indices : ndarray of int64, [n]
        Row of the other dictionary with which each concept is matched; -1 if the other dictionary has too few rows.
    cosines : ndarray of float64, [n]
        Cosine of each concept with its match; NaN without one.
    random : ndarray of float64, [r]
        Cosines, largest first, that matching gives for two dictionaries of the same shapes with independent normal rows. They
        depend only on the shapes: .130 on average for 6144 x 768, .183 for 6144 x 384.
    random_in_place : ndarray of float64, [r]
        The same for normal rows that have the mean and the covariance of the actual rows. They share the directions in which
        many rows of both dictionaries lie, but no concept, so this is a stricter baseline.
    threshold : float
        Cosine threshold of `share_above`.
    """

    indices: np.ndarray
    cosines: np.ndarray
    random: np.ndarray
    random_in_place: np.ndarray
    threshold: float

    @property
    def curve(self) -> np.ndarray:
        """Cosines of the matched concepts, largest first."""
        return np.sort(self.cosines[self.indices >= 0])[::-1]

    @property
    def mean(self) -> float:
        """Mean cosine of the matched concepts, which the paper calls AUC; NaN if there are none."""
        return _mean(self.curve)

    @property
    def share_above(self) -> float:
        """Share of all concepts, unmatched ones included, whose cosine is above the threshold."""
        return float(np.mean(np.nan_to_num(self.cosines) > self.threshold)) if len(self.cosines) else np.nan

    @property
    def chance(self) -> tuple[float, float]:
        """Share of cosines above the threshold for `random` and for `random_in_place`."""
        random, in_place = (float(np.mean(curve > self.threshold)) for curve in (self.random, self.random_in_place))
        return random, in_place

    def _repr_html_(self) -> str:
        """Return the matching beside what chance gives, for notebooks."""
        rows = [
            ["matched", f"{self.mean:.3f}", f"{self.share_above:.1%}"],
            ["random rows", f"{_mean(self.random):.3f}", f"{self.chance[0]:.1%}"],
            ["random rows in place", f"{_mean(self.random_in_place):.3f}", f"{self.chance[1]:.1%}"],
        ]
        return html.table(f"{len(self.cosines):,} concepts", ["", "mean cosine", f"above {self.threshold:g}"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return arrays and figures as plain Python values, ready for JSON. NaN becomes None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain({**values, "mean": self.mean, "share_above": self.share_above})

    def __repr__(self) -> str:
        return (
            f"Matching(mean={self.mean:.3f}, share_above={self.share_above:.3f}; random {_mean(self.random):.3f}, in place "
            f"{_mean(self.random_in_place):.3f})"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Consistency:
    """Result of `usae.consistency`.

    Attributes
    ----------
    models : dict of str to Matching
        The matching of each model.
    concepts : ndarray of int64, [n]
        The concepts to which the elements of the arrays of each `Matching` belong.
    """

    models: dict[str, Matching]
    concepts: np.ndarray

    def __getitem__(self, model: str) -> Matching:
        """The matching of one model."""
        check_known(model, list(self.models), "model")
        return self.models[model]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "concepts": self.concepts.tolist(),
            "models": {name: matching.to_dict() for name, matching in self.models.items()},
        }

    def summary(self) -> str:
        """Return a table as text, with each number beside its value by chance."""
        first = max(5, *(len(name) for name in self.models))
        threshold = self._threshold
        lines = [
            f"{len(self.concepts):,} concepts matched by cosine; 'random': normal rows of the same shapes, 'in place': with "
            "the rows' own mean and covariance",
            f"{'model':<{first}}  mean cosine  random  in place  above {threshold:g}  random  in place",
        ]
        for name, matching in self.models.items():
            chance = matching.chance
            lines.append(
                f"{name:<{first}}  {matching.mean:11.3f}  {_mean(matching.random):6.3f}  "
                f"{_mean(matching.random_in_place):8.3f}  {matching.share_above:{6 + len(f'{threshold:g}')}.1%}  "
                f"{chance[0]:6.1%}  {chance[1]:8.1%}"
            )
        return "\n".join(lines)

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept, and for each model the columns ``match[vit]``, the row of the
        other dictionary with which it is matched, and ``cosine[vit]``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("Consistency.to_frame")
        columns: dict[str, np.ndarray] = {}
        for name, matching in self.models.items():
            columns |= {f"match[{name}]": matching.indices, f"cosine[{name}]": matching.cosines}
        return pandas.DataFrame(columns, index=pandas.Index(self.concepts, name="concept"))

    def _repr_html_(self) -> str:
        """Return the table of `summary`, for notebooks."""
        head = ["model", "mean cosine", "random", "in place", f"above {self._threshold:g}", "random", "in place"]
        rows = []
        for name, matching in self.models.items():
            means = (matching.mean, _mean(matching.random), _mean(matching.random_in_place))
            shares = (matching.share_above, *matching.chance)
            rows.append([name, *(f"{mean:.3f}" for mean in means), *(f"{share:.1%}" for share in shares)])
        caption = f"{len(self.concepts):,} concepts matched by cosine, beside normal rows and rows in place of the actual ones"
        return html.table(caption, head, rows)

    @property
    def _threshold(self) -> float:
        return next(iter(self.models.values())).threshold

    def __repr__(self) -> str:
        means = ", ".join(f"{name}: mean {matching.mean:.3f}" for name, matching in self.models.items())
        return f"Consistency({len(self.concepts)} concepts; {means})"


def consistency(
    sae: Any,
    independent: Any,
    *,
    concepts: Any = None,
    threshold: float = 0.5,
    seed: int = 0,
    progress: bool | None = None,
) -> Consistency:
    """Match the concepts of each model with those of another dictionary of the same model.

    Rows are matched one to one so that the sum of their cosines is largest (Hungarian matching). The paper calls the mean
    cosine AUC.

    Parameters
    ----------
    sae : UniversalSAE, or mapping of str to array
        The autoencoder whose concepts are matched, or its dictionaries by model, each [m, width].
    independent : mapping, or UniversalSAE
        The other dictionary of each model, by the model's name: a UniversalSAE of one model, such as `fit_independent` makes,
        any object with a method ``dictionary(model)``, or an array [m', width] of dictionary rows. Or a UniversalSAE, of which
        all models are compared. Models that are not in it are left out.
    concepts : array of int, or of bool [m], optional
        Concepts to report on, in this order. All concepts take part in the matching. Default: None, which reports on all. The
        paper reports on the thousand that co-fire most: ``np.argsort(-evaluation.cofire_counts, kind="stable")[:1000]``.
    threshold : float
        Cosine threshold of `Matching.share_above`, from 0 to 1. Default: 0.5.
    seed : int
        Seed of the random dictionaries. Default: 0.
    progress : bool, optional
        Whether to show progress over the matchings. Default: None, as for `UniversalSAE.fit`.

    Returns
    -------
    Consistency
        The matching of each model, with two random baselines.

    Raises
    ------
    InvalidInputError
        For a model that `sae` does not have, and for rows of another width.

    Notes
    -----
    There are three matchings for each model, two of them of random dictionaries. Each takes 8 bytes for each pair of rows: 0.3
    GB for 6,144 concepts, 4.8 GB for 24,576. The time grows with the third power of the number of concepts: five seconds for
    6,144 x 768 on one core. A matching cannot be interrupted. Dictionary rows are compared in standardised units. Rows of dead
    concepts are matched like any other; `concepts` can leave them out of the report.
    """
    threshold = checks.real(threshold, "threshold", "a number from 0 to 1")
    if threshold > 1:
        raise InvalidInputError(f"threshold must be a number from 0 to 1, got {checks.shown(threshold)}")
    seed = checks.integer(seed, "seed", 0, 2**64 - 1)
    progress = checked_progress(progress)
    ours = _by_model(sae, "sae")
    theirs = _by_model(independent, "independent")
    for name in theirs:
        check_known(name, list(ours), "independent")
    pairs = {
        name: (_rows(ours[name], name, f"sae[{name!r}]"), _rows(theirs[name], name, f"independent[{name!r}]"))
        for name in theirs
    }
    counts = {len(mine) for mine, _ in pairs.values()}
    if len(counts) > 1:
        raise InvalidInputError(f"sae must have the same number of concepts in every model, got {sorted(counts)}")
    for name, (mine, other) in pairs.items():
        if mine.shape[1] != other.shape[1]:
            raise InvalidInputError(
                f"independent[{name!r}] must have rows of {mine.shape[1]} numbers, as sae's dictionary of {name!r} has, got "
                f"shape {list(other.shape)}; compare SAEs that were trained on the same model's activations"
            )
    chosen = checked_concepts(concepts, counts.pop())
    with progress_bar(3 * len(pairs), progress, "consistency", "matching") as bar:
        found = {
            name: _matching(mine, other, chosen, threshold, np.random.default_rng([seed, number]), bar)
            for number, (name, (mine, other)) in enumerate(pairs.items())
        }
    return Consistency(found, chosen)


def fit_independent(
    acts: Mapping[str, Any],
    *,
    like: UniversalSAE,
    seed: int | None = None,
    steps: int | None = None,
    progress: bool | None = None,
    mask: Any = None,
) -> dict[str, UniversalSAE]:
    """Train one autoencoder for each model alone, with the same size, recipe and number of steps, for `consistency`.

    Parameters
    ----------
    acts : mapping of str to array
        The activations that `like` was trained on.
    like : UniversalSAE
        The autoencoder whose number of concepts, k, recipe and threads are used.
    seed : int, optional
        Seed of the training. With the seed of `like`, dictionaries would start from the same rows of data and agree for that
        reason. Default: None, which takes the seed of `like` plus 1.
    steps : int, optional
        Number of training steps. Default: None, which takes as many as `like` has done. Each step here encodes the one model,
        so the model is encoded as often as all models of `like` together. Its dictionary is updated as often as in a `like`
        with ``update="all"``.
    progress : bool, optional
        Whether to show progress bars, as for `UniversalSAE.fit`. Default: None.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Each model is trained on the rows that count for all. Default: None.

    Returns
    -------
    dict of str to UniversalSAE
        Autoencoders of one model each, by the model's name.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, as for `UniversalSAE.fit`.
    """
    given = as_aligned(acts, "acts", checked_sae(like, "like")._initialized().columns, mask)
    counts = mask_of(given)
    if seed is None:
        seed = next_seed(like)
    result = {}
    for name in given:
        logger.info("training on %s alone", name)
        result[name] = untrained_like(like, steps, seed)
        result[name].fit({name: acts[name]}, steps=planned_steps(like, steps), progress=progress, mask=counts)
    return result


def untrained_like(sae: UniversalSAE, steps: int | None, seed: int) -> UniversalSAE:
    """Return an untrained autoencoder of the same size and recipe, which `fit` can train for `planned_steps`."""
    autoencoder = sae._initialized()
    recipe = autoencoder.given_recipe or Recipe()
    if recipe.total_steps != planned_steps(sae, steps):
        recipe = recipe.replace(total_steps=None)
    return UniversalSAE(autoencoder.n_concepts, autoencoder.k, recipe=recipe, seed=seed, n_threads=sae.n_threads)


def planned_steps(sae: UniversalSAE, steps: int | None) -> int:
    """Return `steps`, or the steps that `sae` has done if that is None."""
    if steps is not None:
        return checks.integer(steps, "steps", 1, 2**36)
    if sae.n_steps_ == 0:
        raise InvalidInputError("steps must be given where the autoencoder has not been trained, got None")
    return sae.n_steps_


def next_seed(sae: UniversalSAE, by: int = 1) -> int:
    return (sae._initialized().seed + by) % 2**64


def checked_concepts(concepts: Any, n_concepts: int) -> np.ndarray:
    """Return the indices of concepts, int64 [n]. None means all concepts."""
    if concepts is None:
        return np.arange(n_concepts)
    try:
        chosen = np.asarray(concepts)
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(
            f"concepts must be indices or a mask [{n_concepts}], got rows of several lengths: {error}"
        ) from error
    if chosen.dtype == bool and chosen.shape == (n_concepts,):
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and chosen.size):
        raise InvalidInputError(
            f"concepts must be a list of indices or a mask of {n_concepts} truth values, got {chosen.dtype} of shape "
            f"{list(chosen.shape)}"
        )
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < n_concepts):
        raise InvalidInputError(f"concepts must be from 0 to {n_concepts - 1}, got {chosen.min()} to {chosen.max()}")
    return chosen.astype(np.int64)


def _by_model(source: Any, argument: str) -> Mapping[str, Any]:
    if isinstance(source, UniversalSAE):
        return {name: source for name in source.model_names_}
    if not isinstance(source, Mapping):
        raise InvalidInputError(
            f"{argument} must be a mapping from model names to dictionaries or SAEs, or a usae.UniversalSAE, got "
            f'{type(source).__name__}; write {argument}={{"name of the model": sae_of_it, ...}}'
        )
    check_names(source, argument)
    return source


def _rows(source: Any, model: str, label: str) -> np.ndarray:
    """Return dictionary rows of norm 1, float64."""
    if hasattr(source, "dictionary"):
        names: tuple[str, ...] = getattr(source, "model_names_", ())
        source = source.dictionary(names[0] if len(names) == 1 else model)
    array, bfloat16 = as_float_array(source, label)
    if array.ndim != 2 or array.size == 0:
        raise InvalidInputError(f"{label} must be an array of dictionary rows [concepts, width], got shape {list(array.shape)}")
    rows = widened(array, bfloat16).astype(float)
    if not np.isfinite(rows).all():
        raise InvalidInputError(f"{label} must be finite, got {rows[~np.isfinite(rows)][0]}")
    return unit_rows(rows)


def _matching(
    mine: np.ndarray, other: np.ndarray, chosen: np.ndarray, threshold: float, rng: np.random.Generator, bar: Any
) -> Matching:
    indices, cosines = matched(mine, other)
    bar.update()
    random = _random_curve(unit_rows(rng.standard_normal(mine.shape)), unit_rows(rng.standard_normal(other.shape)))
    bar.update()
    in_place = _random_curve(unit_rows(_normal_like(mine, rng)), unit_rows(_normal_like(other, rng)))
    bar.update()
    return Matching(indices[chosen], cosines[chosen], random, in_place, threshold)


def matched(mine: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match unit rows. Returns for each row of `mine` its match in `other` and the cosine, or -1 and NaN without a match."""
    from scipy.optimize import linear_sum_assignment

    indices, cosines = np.full(len(mine), -1), np.full(len(mine), np.nan)
    cost = mine @ other.T
    np.negative(cost, out=cost)  # `maximize=True` would make a copy
    rows, columns = linear_sum_assignment(cost)
    indices[rows], cosines[rows] = columns, -cost[rows, columns]
    return indices, cosines


def _random_curve(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    _, cosines = matched(mine, other)
    return np.sort(cosines[~np.isnan(cosines)])[::-1]


def _normal_like(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw normal rows with the mean and covariance of `rows`."""
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    return mean + rng.standard_normal(rows.shape) @ root


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
