"""Whether an autoencoder found the concepts that activations were made from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from usae._base import checks
from usae._base.json import plain
from usae._data.chunks import chunks
from usae._estimator.codes import Codes
from usae.analysis.consistency import unit_rows
from usae.analysis.evaluation import entropy_of_counts
from usae.errors import InvalidInputError
from usae.synthetic._ground_truth import Tokens, Universal

if TYPE_CHECKING:
    import scipy.sparse

HELD_OUT_TOKENS = 20_000
CHUNK = 4096
"""Tokens that are encoded at a time."""


class Encoding(Protocol):
    """What `score` needs to know of an autoencoder. `UniversalSAE` is one.

    With a method ``decode(codes, model) -> ndarray [n_tokens, width]`` as well, R2 is measured too.
    """

    def encode(self, x: Any, model: str, /) -> Codes: ...

    def dictionary(self, model: str, /, units: Any = ...) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Result of `usae.synthetic.score`. M models, n_true true concepts, m indices of the autoencoder.

    All are measured on tokens that were not trained on. "In every model" means in every model in which the concept lives:
    for a private one, in its own.

    Attributes
    ----------
    model_names : tuple of str, [M]
    n_tokens : int
    cosine, correlation, f1 : float
        The thresholds.
    membership : ndarray of bool, [n_true, M]
        Where each concept lives.
    recovered : ndarray of bool, [n_true]
        One index has, in every model, cosine above `cosine` with the true vector **and** correlation above `correlation`
        between its codes and the true activations. For a shared concept: universally recovered.
    dictionary_recovered : ndarray of bool, [n_true]
        The first half alone: one index has the cosine in every model.
    code_recovered : ndarray of bool, [n_true]
        The second half alone: one index has the correlation in every model.
    firing_recovered : ndarray of bool, [n_true]
        One index fires for the concept with F1 above `f1` in every model, whatever its dictionary and the size of its codes.
    found : ndarray of bool, [n_true, M]
        Some index has both, cosine and correlation, in this model; in another model it may be another index.
    n_indices : ndarray of int64, [n_true]
        Indices that stand for the concept: in one of its models at least, they fire and have the cosine. More than 1: twins.
    n_labelled : tuple of int, [2]
        Indices that stand for shared concepts, and for private ones.
    entropy_auroc : float
        How well firing entropy tells these two kinds of indices apart: the probability that one of a shared concept has
        the higher entropy (ties count half). NaN without both kinds, or with one model.
    r2 : ndarray of float64, [M, M]
        [i, j]: encoded from model i, decoded to model j; as `Evaluation.r2`. NaN where the object has no `decode`.
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
        """Concepts that live in all models, bool [n_true]."""
        return np.logical_and.reduce(self.membership, axis=1)

    @property
    def private(self) -> np.ndarray:
        """Concepts that live in one model of several, bool [n_true]."""
        return (self.membership.sum(1) == 1) & ~self.shared

    @property
    def partial(self) -> np.ndarray:
        """Concepts that live in several models but not in all, bool [n_true]: pairwise ones."""
        return ~self.shared & ~self.private

    @property
    def universally_recovered(self) -> float:
        """Share of the shared concepts that are recovered; NaN if there are none."""
        return _share(self.recovered[self.shared])

    @property
    def twins(self) -> float:
        """Share of all concepts for which more than one index stands."""
        return _share(self.n_indices > 1)

    @property
    def r2_diagonal(self) -> float:
        """Mean R2 of decoding to the model that was encoded."""
        return float(np.diag(self.r2).mean())

    @property
    def r2_off_diagonal(self) -> float:
        """Mean R2 of decoding to another model; NaN with one model."""
        return _share(self.r2[~np.eye(len(self.r2), dtype=bool)])

    def to_dict(self) -> dict[str, Any]:
        """The attributes, and the shares that `summary` shows, as plain Python values; NaN is None. Ready for JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        names = ("universally_recovered", "twins", "r2_diagonal", "r2_off_diagonal")
        shares = {name: getattr(self, name) for name in names}
        return {name: plain(value) for name, value in {**fields, **shares, "kinds": self._kinds()}.items()}

    def summary(self) -> str:
        """A table for people: what was recovered of each kind of concept."""
        columns = ("concepts", "recovered", "dictionary", "code", "firing", "each model", "twins")
        lines = [
            f"Shares of the true concepts, on {self.n_tokens:,} held-out tokens (cosine > {self.cosine:g}, correlation > "
            f"{self.correlation:g}, F1 > {self.f1:g})",
            " ".join([" " * 14, *(f"{column:>10}" for column in columns)]),
        ]
        for kind, shares in self._kinds().items():
            cells = [f"{shares[name]:>10,}" if name == "concepts" else f"{shares[name]:>10.3f}" for name in columns]
            lines.append(" ".join([kind.ljust(14), *cells]))
        shared, private = self.n_labelled
        lines += [
            "",
            f"firing entropy tells {shared:,} indices of shared concepts from {private:,} of private ones: AUROC "
            f"{self.entropy_auroc:.3f}",
            f"R2 {self.r2_diagonal:.3f} to the encoded model, {self.r2_off_diagonal:.3f} to others",
        ]
        return "\n".join(lines)

    def _kinds(self) -> dict[str, dict[str, Any]]:
        """What `summary` has in its rows, of the kinds of which there are concepts."""
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
                "twins": _share(self.n_indices[chosen] > 1),
            }
            for kind, chosen in kinds.items()
            if chosen.any()
        }

    def __repr__(self) -> str:
        return (
            f"Score(universally_recovered={self.universally_recovered:.3f}, twins={self.twins:.3f}, "
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
    """Compare what an autoencoder learned with the concepts that its activations were made from.

    A dictionary that is right is not yet a code that agrees: encoders of two models can have the same true vector at the
    same index, and yet fire a twin of it. So a concept counts as universally recovered when **one** index has, in **every**
    model, the right vector and the right activations.

    Parameters
    ----------
    sae : UniversalSAE, or anything with its `encode` and `dictionary`
        Trained on ``truth.acts``. With `decode`, R2 is measured too.
    truth : Universal
    held_out : Tokens, optional
        Of ``truth.sample``. Left out: 20,000 tokens, always the same.
    cosine : float
        Least cosine, in the model's own units, between a dictionary row and the true vector.
    correlation : float
        Least Pearson correlation, over all held-out tokens, between an index's codes and the true activations.
    f1 : float
        Least harmonic mean of precision and recall of firing (a code above 0) for the concept's being there.

    Returns
    -------
    Score

    Raises
    ------
    InvalidInputError
        For an autoencoder whose models or widths are not those of `truth`, and thresholds outside 0 to 1.

    Notes
    -----
    Tokens are encoded in parts, and correlations are sparse products; memory is a few arrays of true concepts times
    indices of the autoencoder.
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
            raise InvalidInputError(f"{name} must be a number from 0 to 1, got {value!r}")
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
    of_shared, of_private = of_shared & ~of_private, of_private & ~of_shared  # an index that stands for both is neither
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
    """Which indices go with which true concepts in one model, bool [n_true, m]; false for concepts that it does not have."""

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
    """One model: its indices against the true concepts; and R2 [M] of decoding its codes to every model."""
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
    """What correlations and F1 of each true concept with each index are computed from, token by token."""

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
        """Pearson, [n_true, n_concepts]; 0 where either never varies."""
        n = self.n_tokens
        covariance = self.product / n - np.outer(self.true_sum, self.sum) / n**2
        true_deviation = np.sqrt(np.maximum(self.true_squares / n - (self.true_sum / n) ** 2, 0))
        deviation = np.sqrt(np.maximum(self.squares / n - (self.sum / n) ** 2, 0))
        scale = np.outer(true_deviation, deviation)
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)

    def f1(self) -> np.ndarray:
        """Of firing for the concept's being there, [n_true, n_concepts]; 0 where neither ever is."""
        total = self.there[:, None] + self.fires
        return np.divide(2 * self.both, total, out=np.zeros_like(total), where=total > 0)


def _auroc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Probability that one of `higher` is above one of `lower`, ties counting half; NaN where there are none."""
    from scipy.stats import rankdata

    if not len(higher) or not len(lower) or np.isnan(higher).any() or np.isnan(lower).any():
        return float("nan")
    # Sums in another order must not make a difference out of a tie.
    ranks = rankdata(np.concatenate([higher, lower]).round(12))[: len(higher)]
    return float((ranks.sum() - len(higher) * (len(higher) + 1) / 2) / (len(higher) * len(lower)))


def _share(of: np.ndarray) -> float:
    return float(of.mean()) if len(of) else float("nan")
