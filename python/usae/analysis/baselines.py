"""Controls that train or draw something: shuffled pairs, other seeds, no training, and a linear map."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._base import html
from usae._base.json import plain
from usae._base.progress import progress_bar
from usae._core import resolved_recipe
from usae._core.autoencoder import Autoencoder
from usae._core.tensors import TRAINED
from usae._data.activations import Activations, as_activations
from usae._data.chunks import chunks, n_chunks, rows_of, tokens_per_image
from usae._estimator.universal_sae import UniversalSAE
from usae._training import derived_noise
from usae.analysis.consistency import Consistency, consistency, fit_independent, next_seed, planned_steps, untrained_like
from usae.analysis.evaluation import Evaluation
from usae.analysis.ridge import Ridge
from usae.errors import InvalidInputError
from usae.recipes import Recipe

logger = logging.getLogger("usae")

SHUFFLED_ROWS = 2**15
"""Largest number of rows that are evaluated in shuffled pairs. They are copied: 100 MB for a model of width 768."""

RIDGE_PARTS = 10
"""The training rows are split into this many parts, one of which is used to choose the ridge penalty."""

RIDGE_CHUNK = 4096

PENALTIES = 10.0 ** np.arange(-7, 3)
"""Ridge penalties to choose from, as multiples of the mean variance of the source's dimensions."""


# --- Shuffled pairs -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ShuffledPairing:
    """The same training on models whose rows are paired at random, so that one model does not predict another.

    Attributes
    ----------
    sae : UniversalSAE
        Autoencoder with the recipe, seed and number of steps of the one that is tested. In its training, row t of each model
        is a different random token. The activations of each model are otherwise the same.
    paired : Evaluation
        Evaluation of the held-out rows in their real pairs. `firing_entropy` and the number of concepts that fire in all models
        show how much sharing the objective produces by itself. `cofire_proportion` and `r2` off the diagonal show the values
        that concepts reach by chance.
    shuffled : Evaluation
        Evaluation of at most 32,768 held-out rows paired at random, as in this autoencoder's training. `r2` off the diagonal is
        therefore what can be predicted without knowing the token, that is, by the mean: near 0.
    """

    sae: UniversalSAE
    paired: Evaluation
    shuffled: Evaluation

    def _repr_html_(self) -> str:
        """Return the R2 of real pairs and of random ones, for notebooks."""
        return f"<p>real pairs</p>{self.paired._repr_html_()}<p>random pairs</p>{self.shuffled._repr_html_()}"


def shuffled_pairing(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    train: Mapping[str, Activations],
    *,
    threshold: float,
    steps: int | None,
    seed: int,
    progress: bool | None,
) -> ShuffledPairing:
    """Train on shuffled pairs and evaluate; see `ShuffledPairing`."""
    logger.info("training on shuffled pairs")
    own = sae._initialized().seed
    children = np.random.SeedSequence([seed, 4]).generate_state(2 * len(train), np.uint64)
    orders = [own, *map(int, children[1 : len(train)])]  # the first model's rows have the order of the real training
    control = before_training(sae, train, steps, own)
    _permute_concepts(control._initialized(), np.random.default_rng(children[-1]))
    train_in_orders(control, train, orders, planned_steps(sae, steps), progress, "training on shuffled pairs")
    paired = control._evaluated(acts, threshold, progress)
    n_tokens = next(iter(acts.values())).n_tokens
    unpaired = {}
    for name, order in zip(acts, children[len(train) :], strict=True):
        rows = np.empty(min(n_tokens, SHUFFLED_ROWS), np.int64)
        _usae.shuffled_rows(int(order), n_tokens, 0, rows)
        unpaired[name] = as_activations(rows_of(acts[name], rows), f"acts[{name!r}]")
    return ShuffledPairing(control, paired, control._evaluated(unpaired, threshold, progress))


def before_training(
    sae: UniversalSAE, train: Mapping[str, Activations], steps: int | None, seed: int, **changes: Any
) -> UniversalSAE:
    """Return an autoencoder like `sae` in the state that `fit(train)` has before its first step, with changes of the recipe."""
    result = untrained_like(sae, steps, seed)
    given = result.recipe or Recipe()
    given = given.replace(**changes) if changes else given
    n_tokens = next(iter(train.values())).n_tokens
    recipe = resolved_recipe.resolved_for_fit(given, len(train), [(len(train), n_tokens)], None, planned_steps(sae, steps))
    recipe = derived_noise.filled_in(recipe, given, [train])
    autoencoder = Autoencoder(result._arguments(), recipe)
    autoencoder.initialize_from(train)
    result._autoencoder = autoencoder
    return result


def _permute_concepts(autoencoder: Autoencoder, rng: np.random.Generator) -> None:
    """Permute the concepts of each model but the first, so that a concept starts from different tokens in different models."""
    for model in range(1, len(autoencoder.names)):
        order = rng.permutation(autoencoder.n_concepts)
        for tensor in autoencoder.parameter_names():
            if tensor in TRAINED:
                autoencoder.write(model, tensor, autoencoder.read(model, tensor)[order])


def train_in_orders(
    sae: UniversalSAE,
    train: Mapping[str, Activations],
    orders: list[int],
    steps: int,
    progress: bool | None,
    desc: str,
    after_step: Callable[[Autoencoder], None] | None = None,
) -> None:
    """Train like `fit`, but with an order of rows for each model. If the orders are equal, the result has the bits of `fit`."""
    autoencoder = sae._initialized()
    size = resolved_recipe.step_tokens(autoencoder.recipe, len(train))
    rows = np.empty(size, np.int64)
    with progress_bar(steps, progress, desc) as bar:
        for step in range(steps):
            batch = {}
            for order, (name, x) in zip(orders, train.items(), strict=True):
                _usae.shuffled_rows(order, x.n_tokens, step * size, rows)
                batch[name] = as_activations(rows_of(x, rows), f"train[{name!r}]")
            report = autoencoder.step(batch, None, -1)
            if after_step is not None:
                after_step(autoencoder)
            bar.set_postfix_str(f"loss {report.loss:.4g}, L0 {report.l0:.1f}", refresh=False)
            bar.update()


# --- No training, other seeds -----------------------------------------------------------------------------------------------


def initial(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    train: Mapping[str, Activations],
    steps: int | None,
    threshold: float,
    progress: bool | None,
) -> Evaluation:
    """Evaluate an autoencoder like `sae` in the state that `fit(train)` has before its first step."""
    return before_training(sae, train, steps, sae._initialized().seed)._evaluated(acts, threshold, progress)


def random_dictionary(
    sae: UniversalSAE, acts: Mapping[str, Activations], seed: int, threshold: float, progress: bool | None
) -> Evaluation:
    """Evaluate random encoders and dictionaries with the standardisation of `sae`."""
    autoencoder = sae._initialized()
    fresh = UniversalSAE(
        autoencoder.n_concepts, autoencoder.k, recipe=autoencoder.given_recipe, seed=seed, n_threads=sae.n_threads
    )
    fresh.initialize(autoencoder.widths)
    for name in autoencoder.names:
        known = sae.parameters(name)
        fresh.set_parameters(name, {tensor: known[tensor] for tensor in ("mean", "mean_rest", "scale") if tensor in known})
    return fresh._evaluated(acts, threshold, progress)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SeedCeiling:
    """Consistency of the same training with another seed, which is a ceiling for other comparisons.

    Attributes
    ----------
    independent : Consistency
        Consistency of two autoencoders of each model alone with different seeds. It is the ceiling for `Controls.consistency`.
    universal : Consistency
        Consistency of the autoencoder that is tested and another universal one, trained with the next seed.
    other : UniversalSAE
        That other autoencoder.
    evaluation : Evaluation
        Evaluation of that other autoencoder, which shows how much each number varies with the seed.
    """

    independent: Consistency
    universal: Consistency
    other: UniversalSAE
    evaluation: Evaluation

    def _repr_html_(self) -> str:
        """Return the consistencies and the other seed's R2, for notebooks."""
        independent, universal = self.independent._repr_html_(), self.universal._repr_html_()
        return (
            f"<p>independent, two seeds</p>{independent}<p>universal, two seeds</p>{universal}<p>another seed</p>"
            f"{self.evaluation._repr_html_()}"
        )


def seed_ceiling(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    train: Mapping[str, Any],
    mask: np.ndarray | None,
    independent: Mapping[str, Any] | None,
    *,
    threshold: float,
    steps: int | None,
    seed: int,
    progress: bool | None,
) -> tuple[SeedCeiling, Mapping[str, Any]]:
    """Return the ceiling and the single-model autoencoders of the first seed, which are `independent` if that is given."""
    if independent is None:
        independent = fit_independent(train, like=sae, steps=steps, progress=progress, mask=mask)
    taken = {getattr(source, "seed", None) for source in independent.values()}
    other_seed = next(number for number in (next_seed(sae, by) for by in range(2, 99)) if number not in taken)
    again = fit_independent(train, like=sae, seed=other_seed, steps=steps, progress=progress, mask=mask)
    logger.info("training with another seed")
    other = untrained_like(sae, steps, next_seed(sae)).fit(train, steps=planned_steps(sae, steps), progress=progress, mask=mask)
    ceiling = SeedCeiling(
        consistency(independent, again, seed=seed, progress=progress),
        consistency(sae, other, seed=seed, progress=progress),
        other,
        other._evaluated(acts, threshold, progress),
    )
    return ceiling, independent


# --- A linear map -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinearBaseline:
    """Ridge regression from each model's activations to each other's, in float64.

    Attributes
    ----------
    r2 : ndarray of float64, [M, M]
        R2 from model i to model j on the evaluated rows, defined as in `Evaluation.r2`. The diagonal, a model to itself, would
        be 1 without a penalty.
    penalty : ndarray of float64, [M, M]
        Ridge penalty, as a multiple of the mean variance of the source's dimensions. It is chosen on a tenth of the training
        rows.
    """

    r2: np.ndarray
    penalty: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {"r2": plain(self.r2), "penalty": plain(self.penalty)}

    def _repr_html_(self) -> str:
        """Return R2 as a table, for notebooks. Models are numbered in the order of the autoencoder's."""
        rows = [[f"model {i}", *(f"{value:.3f}" for value in row)] for i, row in enumerate(self.r2)]
        head = ["from \\ to", *(f"model {i}" for i in range(len(self.r2)))]
        return html.table("R2 of ridge regression, in each model's own units", head, rows)


@dataclasses.dataclass
class _Moments:
    """Count, sums and sums of products of rows of all models side by side, relative to an origin that keeps numbers small."""

    origin: np.ndarray
    count: int
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, origin: np.ndarray) -> _Moments:
        return cls(origin, 0, np.zeros(len(origin)), np.zeros((len(origin), len(origin))))

    def add(self, rows: np.ndarray) -> None:
        rows = rows - self.origin
        self.count += len(rows)
        self.sums += rows.sum(0)
        self.products += rows.T @ rows

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.origin, self.count + other.count, self.sums + other.sums, self.products + other.products)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows, relative to the origin."""
        return self.sums / self.count

    def about(self, center: np.ndarray) -> np.ndarray:
        """Return sums of products of distances from `center`, which is relative to the origin."""
        cross = np.outer(self.sums, center)
        return self.products - cross - cross.T + self.count * np.outer(center, center)


def linear_baseline(
    acts: Mapping[str, Activations], train: Mapping[str, Activations], progress: bool | None, penalties: np.ndarray = PENALTIES
) -> LinearBaseline:
    """Fit on `train` and compute R2 on `acts`.

    It reads each once and keeps only sums of products, which are (sum of widths)^2 numbers.
    """
    n_eval = next(iter(acts.values())).n_tokens
    total = _n_parts_of_training(train) + n_chunks(n_eval, size=RIDGE_CHUNK)
    with progress_bar(total, progress, "linear baseline", "part") as bar:
        learning, choosing = _moments_of_training(train, bar)
        held_out = _Moments.zero(learning.origin)
        for rows in chunks(n_eval, size=RIDGE_CHUNK):
            held_out.add(_side_by_side(acts, rows))
            bar.update()
    parts, whole = _columns_of(train), learning + choosing
    seen = held_out.about(whole.mean)
    spread = np.diag(held_out.about(held_out.mean))
    r2, penalty = np.empty((len(parts), len(parts))), np.empty((len(parts), len(parts)))
    for i, j, chosen, weights in _ridges(learning, choosing, parts, penalties):
        penalty[i, j], variation = chosen, spread[parts[j]].sum()
        r2[i, j] = 1 - _squared_error(weights, seen, parts[i], parts[j]) / variation if variation > 0 else np.nan
    return LinearBaseline(r2, penalty)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinearMap:
    """The ridge regression from one model's activations to another's: ``(x - source_mean) @ weights + target_mean``.

    Attributes
    ----------
    weights : ndarray of float64, [width of the source, width of the target]
    source_mean, target_mean : ndarray of float64, [width]
    """

    weights: np.ndarray
    source_mean: np.ndarray
    target_mean: np.ndarray


def linear_maps(
    train: Mapping[str, Activations], progress: bool | None, penalties: np.ndarray = PENALTIES
) -> dict[tuple[str, str], LinearMap]:
    """Return the maps whose R2 `linear_baseline` computes, by source and target. It reads `train` once."""
    with progress_bar(_n_parts_of_training(train), progress, "linear maps", "part") as bar:
        learning, choosing = _moments_of_training(train, bar)
    names, parts, whole = list(train), _columns_of(train), learning + choosing
    mean = whole.origin + whole.mean
    return {
        (names[i], names[j]): LinearMap(weights, mean[parts[i]], mean[parts[j]])
        for i, j, _, weights in _ridges(learning, choosing, parts, penalties)
    }


def _columns_of(acts: Mapping[str, Activations]) -> list[slice]:
    """Return the columns of each model in rows of all models side by side."""
    widths = [x.width for x in acts.values()]
    return [slice(end - width, end) for end, width in zip(np.cumsum(widths).tolist(), widths, strict=True)]


def _parts_of_training(train: Mapping[str, Activations]) -> tuple[int, int, int]:
    """Return the number of rows, of rows that stay in one part, and of rows of a part at most."""
    n_tokens = next(iter(train.values())).n_tokens
    if n_tokens < 2:
        raise InvalidInputError("train must have at least two rows, one of them to choose the linear baseline's penalty, got 1")
    multiple = tokens_per_image(train) or 1  # tokens of one image stay in one part
    return n_tokens, multiple if n_tokens // multiple >= 2 else 1, min(RIDGE_CHUNK, max(1, n_tokens // RIDGE_PARTS))


def _n_parts_of_training(train: Mapping[str, Activations]) -> int:
    return n_chunks(*_parts_of_training(train))


def _moments_of_training(train: Mapping[str, Activations], bar: Any) -> tuple[_Moments, _Moments]:
    """Return the moments of the rows that are fitted and of those that choose the penalty."""
    parts = _parts_of_training(train)
    first = _side_by_side(train, next(chunks(*parts)))
    learning, choosing = (_Moments.zero(first.mean(0)) for _ in range(2))
    for number, rows in enumerate(chunks(*parts)):
        (choosing if number % RIDGE_PARTS == 1 else learning).add(_side_by_side(train, rows))
        bar.update()
    return learning, choosing


def _ridges(
    learning: _Moments, choosing: _Moments, parts: list[slice], penalties: np.ndarray
) -> Iterator[tuple[int, int, float, np.ndarray]]:
    """Yield source, target, the penalty that predicts best, and the coefficients of all rows of training."""
    whole = learning + choosing
    fitted, chosen = learning.about(learning.mean), choosing.about(learning.mean)
    refitted = whole.about(whole.mean)
    for i, source in enumerate(parts):
        choice, final = Ridge(fitted[source, source]), Ridge(refitted[source, source])
        for j, target in enumerate(parts):
            each = (choice.weights(fitted[source, target], value) for value in penalties)
            best = penalties[int(np.argmin([_squared_error(weights, chosen, source, target) for weights in each]))]
            yield i, j, float(best), final.weights(refitted[source, target], best)


def _squared_error(weights: np.ndarray, moments: np.ndarray, source: slice, target: slice) -> float:
    return Ridge.squared_error(weights, moments[source, source], moments[source, target], moments[target, target])


def _side_by_side(acts: Mapping[str, Activations], rows: slice) -> np.ndarray:
    """Return rows of all models, float64 [n, sum of widths]."""
    return np.concatenate([rows_of(x, rows).astype(float) for x in acts.values()], axis=1)
