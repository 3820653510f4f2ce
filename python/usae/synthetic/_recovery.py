"""Recovery: how many of the true concepts of synthetic activations an autoencoder has found."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from usae._base import checks, html
from usae._base.json import plain
from usae._core.dictionary_rows import unit_rows
from usae._data.chunks import chunks
from usae._estimator.codes import Codes
from usae.analysis.evaluation import entropy_of_counts
from usae.errors import InvalidInputError
from usae.synthetic._ground_truth import CHUNK, Tokens, Universal

if TYPE_CHECKING:
    import scipy.sparse

HELD_OUT_TOKENS = 20_000


class Encoding(Protocol):
    """The methods of an autoencoder that `score` needs. `UniversalSAE` has them.

    If the object also has a method ``decode(codes, model) -> ndarray [n_tokens, width]``, R2 is measured too.
    """

    def encode(self, x: Any, model: str, /) -> Codes: ...

    def dictionary(self, model: str, /, units: Any = ...) -> np.ndarray: ...


_COLUMNS = ("concepts", "recovered", "dictionary", "code", "firing", "each model", "duplicates")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Result of `usae.synthetic.score`, for M models, n_true true concepts and m concepts of the autoencoder ("indices").

    All numbers are measured on held-out tokens. "In every model" means in every model that has the true concept; for a private
    concept that is one.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_tokens : int
        Number of held-out tokens.
    cosine, correlation, f1 : float
        The thresholds.
    membership : ndarray of bool, [n_true, M]
        Which models have each true concept.
    recovered : ndarray of bool, [n_true]
        Whether one index has, in every model, a dictionary row whose cosine with the true vector is above `cosine` **and**
        codes whose correlation with the true codes is above `correlation`. A shared concept is then universally recovered.
    dictionary_recovered : ndarray of bool, [n_true]
        Whether one index fulfils the first condition in every model.
    code_recovered : ndarray of bool, [n_true]
        Whether one index fulfils the second condition in every model.
    firing_recovered : ndarray of bool, [n_true]
        Whether one index fires for the concept with F1 above `f1` in every model, whatever its dictionary row and the size of
        its codes.
    found : ndarray of bool, [n_true, M]
        Whether some index fulfils both conditions in this model. It may be another index in another model.
    n_indices : ndarray of int64, [n_true]
        Number of indices that represent the concept: they fulfil the first condition and fire in at least one of its models.
        If it is more than 1, they are duplicate concepts.
    n_labelled : tuple of int, [2]
        Number of indices that represent shared concepts, and of those that represent private ones.
    entropy_auroc : float
        How well firing entropy distinguishes these two kinds of indices: the probability that an index of a shared concept has
        the higher entropy (ties count half). NaN without both kinds, or with one model.
    r2 : ndarray of float64, [M, M]
        R2 encoded from model i and decoded to model j, as `Evaluation.r2`. NaN if the object has no `decode`.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    cosine: float
    correlation: float
    f1: float
    membership: np.ndarray
    recovered: np.ndarray
    dictionary_recovered: np.ndarray
    code_recovered: np.ndarray
    firing_recovered: np.ndarray
    found: np.ndarray
    n_indices: np.ndarray
    n_labelled: tuple[int, int]
    entropy_auroc: float
    r2: np.ndarray

    @property
    def shared(self) -> np.ndarray:
        """Which true concepts are in all models, bool [n_true]."""
        return np.logical_and.reduce(self.membership, axis=1)

    @property
    def private(self) -> np.ndarray:
        """Which true concepts are in one model of several, bool [n_true]."""
        return (self.membership.sum(1) == 1) & ~self.shared

    @property
    def partial(self) -> np.ndarray:
        """Which true concepts are in several models but not in all, bool [n_true]. They are the pairwise concepts."""
        return ~self.shared & ~self.private

    @property
    def universally_recovered(self) -> float:
        """Share of the shared concepts that are recovered; NaN if there are none."""
        return _share(self.recovered[self.shared])

    @property
    def duplicates(self) -> float:
        """Share of the true concepts that more than one index represents."""
        return _share(self.n_indices > 1)

    @property
    def twins(self) -> float:
        """The old name of `duplicates`. It will be removed in the next release."""
        warnings.warn("`Score.twins` is called `Score.duplicates` now", DeprecationWarning, stacklevel=2)
        return self.duplicates

    @property
    def r2_diagonal(self) -> float:
        """Mean R2 of decoding to the model that was encoded."""
        return float(np.diag(self.r2).mean())

    @property
    def r2_off_diagonal(self) -> float:
        """Mean R2 of decoding to another model; NaN with one model."""
        return _share(self.r2[~np.eye(len(self.r2), dtype=bool)])

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the shares of `summary` as plain Python values, ready for JSON. NaN becomes None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        names = ("universally_recovered", "duplicates", "r2_diagonal", "r2_off_diagonal")
        shares = {name: getattr(self, name) for name in names}
        return {name: plain(value) for name, value in {**fields, **shares, "kinds": self._kinds()}.items()}

    def summary(self) -> str:
        """Return a table as text: the recovered shares of each kind of concept."""
        lines = [self._caption(), " ".join([" " * 14, *(f"{column:>10}" for column in _COLUMNS)])]
        lines += [" ".join([kind.ljust(14), *(f"{cell:>10}" for cell in cells)]) for kind, *cells in self._rows()]
        shared, private = self.n_labelled
        lines += [
            "",
            f"firing entropy tells {shared:,} indices of shared concepts from {private:,} of private ones: AUROC "
            f"{self.entropy_auroc:.3f}",
            f"R2 {self.r2_diagonal:.3f} to the encoded model, {self.r2_off_diagonal:.3f} to others",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table of `summary`, for notebooks."""
        return html.table(self._caption(), ["", *_COLUMNS], self._rows())

    def _caption(self) -> str:
        return (
            f"Shares of the true concepts, on {self.n_tokens:,} held-out tokens (cosine > {self.cosine:g}, correlation > "
            f"{self.correlation:g}, F1 > {self.f1:g})"
        )

    def _rows(self) -> list[list[str]]:
        """Return the cells of the table."""
        return [
            [kind, *(f"{shares[name]:,}" if name == "concepts" else f"{shares[name]:.3f}" for name in _COLUMNS)]
            for kind, shares in self._kinds().items()
        ]

    def _kinds(self) -> dict[str, dict[str, Any]]:
        """Return the rows of `summary`, for kinds that have concepts."""
        kinds = {"in all models": self.shared, "in several": self.partial, "in one model": self.private}
        kinds["all"] = np.ones(len(self.membership), bool)
        return {
            kind: {
                "concepts": int(chosen.sum()),
                "recovered": _share(self.recovered[chosen]),
                "dictionary": _share(self.dictionary_recovered[chosen]),
                "code": _share(self.code_recovered[chosen]),
                "firing": _share(self.firing_recovered[chosen]),
                "each model": _share(self.found[chosen][self.membership[chosen]]),
                "duplicates": _share(self.n_indices[chosen] > 1),
            }
            for kind, chosen in kinds.items()
            if chosen.any()
        }

    def __repr__(self) -> str:
        return (
            f"Score(universally_recovered={self.universally_recovered:.3f}, duplicates={self.duplicates:.3f}, "
            f"entropy_auroc={self.entropy_auroc:.3f}, n_tokens={self.n_tokens})"
        )


def score(
    sae: Encoding,
    truth: Universal,
    held_out: Tokens | None = None,
    *,
    cosine: float = 0.9,
    correlation: float = 0.8,
    f1: float = 0.5,
) -> Score:
    """Compare an autoencoder with the true concepts from which its activations were made.

    A correct dictionary does not make codes agree: two models can have the right vector at the same index, while one of their
    encoders uses a duplicate of it. So a concept is universally recovered only if **one** index has the right vector and the
    right codes in **every** model.

    Parameters
    ----------
    sae : UniversalSAE, or any object with its `encode` and `dictionary`
        Autoencoder that was trained on ``truth.acts``. If it has `decode`, R2 is measured too.
    truth : Universal
        The ground truth.
    held_out : Tokens, optional
        Held-out tokens from ``truth.sample``. Default: None, which draws 20,000 tokens, always the same.
    cosine : float
        Threshold of the cosine, in the model's own units, between a dictionary row and the true vector. Default: 0.9.
    correlation : float
        Threshold of the Pearson correlation, over all held-out tokens, between an index's codes and the true codes.
        Default: 0.8.
    f1 : float
        Threshold of the harmonic mean of precision and recall, where firing (a code above 0) predicts that the concept is in
        the token. Default: 0.5.

    Returns
    -------
    Score
        Which concepts are recovered, and R2.

    Raises
    ------
    InvalidInputError
        For an autoencoder whose models or widths are not those of `truth`, and for thresholds outside 0 to 1.

    Notes
    -----
    Tokens are encoded in chunks, and correlations are computed by sparse products. Memory is a few arrays of true concepts
    times concepts of the autoencoder.
    """
    if not isinstance(truth, Universal):
        raise InvalidInputError(f"truth must be what usae.synthetic.universal returns, got {type(truth).__name__}")
    for method in ("encode", "dictionary"):
        if not callable(getattr(sae, method, None)):
            raise InvalidInputError(
                f"sae must have encode(x, model) and dictionary(model, units=...), got {type(sae).__name__} without {method}"
            )
    thresholds = {"cosine": cosine, "correlation": correlation, "f1": f1}
    for name, value in thresholds.items():
        if not 0 <= checks.as_float(value) <= 1:
            raise InvalidInputError(f"{name} must be a number from 0 to 1, got {checks.shown(value)}")
        thresholds[name] = float(value)
    held_out = _checked_held_out(held_out, truth)

    matches: list[_Match] = []
    r2 = np.full((len(truth.model_names),) * 2, np.nan)
    for i, name in enumerate(truth.model_names):
        match, r2[i] = _compare(sae, truth, held_out, name, thresholds)
        if matches and match.vector.shape != matches[0].vector.shape:
            raise InvalidInputError(
                f"sae must have as many concepts in every model, got {matches[0].vector.shape[1]} for "
                f"{truth.model_names[0]!r} and {match.vector.shape[1]} for {name!r}"
            )
        matches.append(match)
    living = truth.membership

    def one_index(of: list[np.ndarray]) -> np.ndarray:
        everywhere = [match | ~living[:, i, None] for i, match in enumerate(of)]
        return np.logical_and.reduce(everywhere).any(1)

    stands_for = np.logical_or.reduce([match.vector & (match.firing_counts > 0) for match in matches])
    entropy = entropy_of_counts(np.stack([match.firing_counts for match in matches]))
    everywhere = living.all(1)
    of_shared, of_private = stands_for[everywhere].any(0), stands_for[(living.sum(1) == 1) & ~everywhere].any(0)
    of_shared, of_private = of_shared & ~of_private, of_private & ~of_shared  # an index of both kinds counts as neither
    return Score(
        model_names=truth.model_names,
        n_tokens=len(held_out),
        **thresholds,
        membership=living.copy(),
        recovered=one_index([match.vector & match.code for match in matches]),
        dictionary_recovered=one_index([match.vector for match in matches]),
        code_recovered=one_index([match.code for match in matches]),
        firing_recovered=one_index([match.fires for match in matches]),
        found=np.stack([(match.vector & match.code).any(1) for match in matches], axis=1),
        n_indices=stands_for.sum(1),
        n_labelled=(int(of_shared.sum()), int(of_private.sum())),
        entropy_auroc=_auroc(entropy[of_shared], entropy[of_private]),
        r2=r2,
    )


@dataclasses.dataclass(frozen=True)
class _Match:
    """Which indices match which true concepts in one model, bool [n_true, m]. False for concepts that it does not have."""

    vector: np.ndarray
    code: np.ndarray
    fires: np.ndarray
    firing_counts: np.ndarray  # [m]


def _checked_held_out(held_out: object, truth: Universal) -> Tokens:
    if held_out is None:
        return truth.sample(HELD_OUT_TOKENS)
    if not isinstance(held_out, Tokens):
        raise InvalidInputError(f"held_out must be what truth.sample returns, or None, got {type(held_out).__name__}")
    widths = {name: dictionary.shape[1] for name, dictionary in truth.dictionaries.items()}
    got = {name: x.shape[1] for name, x in held_out.acts.items()}
    if got != widths or held_out.codes.shape[1] != truth.n_true:
        raise InvalidInputError(
            f"held_out must be of the same world as truth, with {truth.n_true} concepts and widths {widths}, got "
            f"{held_out.codes.shape[1]} and {got}; draw it with truth.sample"
        )
    return held_out


def _compare(
    sae: Encoding, truth: Universal, held_out: Tokens, model: str, thresholds: dict[str, float]
) -> tuple[_Match, np.ndarray]:
    """Match the indices of one model with the true concepts. Also returns R2, [M], of decoding its codes to every model."""
    dictionary = np.asarray(sae.dictionary(model, units="model"))
    true = truth.dictionaries[model]
    if dictionary.ndim != 2 or dictionary.shape[1] != true.shape[1]:
        raise InvalidInputError(
            f"sae: the dictionary of model {model!r} must be [n_concepts, {true.shape[1]}], the width of truth.acts"
            f"[{model!r}], got {list(dictionary.shape)}; score an autoencoder that was trained on truth.acts"
        )
    vector = unit_rows(true) @ unit_rows(dictionary).T > thresholds["cosine"]
    lives = truth.membership[:, truth.model_names.index(model)]

    sums = _Sums(truth.n_true, len(dictionary))
    decode = getattr(sae, "decode", None)
    errors = np.zeros(len(truth.model_names)) if callable(decode) else np.full(len(truth.model_names), np.nan)
    for rows in chunks(len(held_out), size=CHUNK):
        codes = sae.encode(held_out.acts[model][rows], model)
        found = codes.to_csr()
        if found.shape[1] != len(dictionary):
            raise InvalidInputError(
                f"sae: codes of model {model!r} must have as many concepts as its dictionary, {len(dictionary)}, got "
                f"{found.shape[1]}"
            )
        sums.add(held_out.codes[rows], found)
        if callable(decode):
            for j, target in enumerate(truth.model_names):
                residual = held_out.acts[target][rows] - np.asarray(decode(codes, target))
                errors[j] += np.square(residual, dtype=np.float64).sum()
    squares = [len(held_out) * x.var(0, dtype=np.float64).sum() for x in held_out.acts.values()]
    match = _Match(
        vector & lives[:, None],
        (sums.correlations() > thresholds["correlation"]) & lives[:, None],
        (sums.f1() > thresholds["f1"]) & lives[:, None],
        sums.fires,
    )
    return match, 1 - errors / np.array(squares)


class _Sums:
    """Sums over tokens from which correlation and F1 of each true concept with each index are computed."""

    def __init__(self, n_true: int, n_concepts: int):
        self.n_tokens = 0
        self.product = np.zeros((n_true, n_concepts))
        self.both = np.zeros((n_true, n_concepts))
        self.true_sum, self.true_squares, self.there = np.zeros((3, n_true))
        self.sum, self.squares, self.fires = np.zeros((3, n_concepts))

    def add(self, true: scipy.sparse.csr_array, found: scipy.sparse.csr_array) -> None:
        true, found = true.astype(np.float64), found.astype(np.float64)
        self.n_tokens += true.shape[0]
        self.product += (true.T @ found).toarray()
        self.true_sum += true.sum(0)
        self.sum += found.sum(0)
        self.true_squares += true.power(2).sum(0)
        self.squares += found.power(2).sum(0)
        there, fires = (true > 0).astype(np.float64), (found > 0).astype(np.float64)
        self.both += (there.T @ fires).toarray()
        self.there += there.sum(0)
        self.fires += fires.sum(0)

    def correlations(self) -> np.ndarray:
        """Return Pearson correlations, [n_true, n_concepts]. 0 if a code does not vary."""
        n = self.n_tokens
        covariance = self.product / n - np.outer(self.true_sum, self.sum) / n**2
        true_deviation = np.sqrt(np.maximum(self.true_squares / n - (self.true_sum / n) ** 2, 0))
        deviation = np.sqrt(np.maximum(self.squares / n - (self.sum / n) ** 2, 0))
        scale = np.outer(true_deviation, deviation)
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)

    def f1(self) -> np.ndarray:
        """Return F1 of firing as a prediction of the concept, [n_true, n_concepts]. 0 if neither ever occurs."""
        total = self.there[:, None] + self.fires
        return np.divide(2 * self.both, total, out=np.zeros_like(total), where=total > 0)


def _auroc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Return the probability that one of `higher` is above one of `lower`. Ties count half. NaN if one of them is empty."""
    from scipy.stats import rankdata

    if not len(higher) or not len(lower) or np.isnan(higher).any() or np.isnan(lower).any():
        return float("nan")
    # Entropies that are equal but for rounding must be ties.
    ranks = rankdata(np.concatenate([higher, lower]).round(12))[: len(higher)]
    return float((ranks.sum() - len(higher) * (len(higher) + 1) / 2) / (len(higher) * len(lower)))


def _share(of: np.ndarray) -> float:
    return float(of.mean()) if len(of) else float("nan")
