"""Synthetic activations of several models, made from known concepts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from usae._base import checks
from usae._data.activations import check_names
from usae._data.chunks import chunks
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import scipy.sparse

CHUNK = 4096
"""Number of tokens that are drawn or encoded at a time. Outside training steps no dense array over concepts has more rows."""

# Purposes of random numbers. Numbers for different purposes are independent.
_WORLD, _TRAINING, _SAMPLES = 0, 1, 2


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """Tokens with known concepts: their activations in every model, and their true codes.

    Attributes
    ----------
    acts : dict of str to ndarray of float32, each [n_tokens, width]
        Activations in the models' own units. Row t of every model is the same token.
    codes : scipy.sparse.csr_array of float32, [n_tokens, n_true]
        True codes, positive if the concept is in the token. They include the private concepts of all models; model i sees only
        ``codes * membership[:, i]``.
    """

    acts: dict[str, np.ndarray]
    codes: scipy.sparse.csr_array

    def __len__(self) -> int:
        """Number of tokens."""
        return self.codes.shape[0]

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {x.shape[1]}" for name, x in self.acts.items())
        return f"Tokens(n_tokens={len(self)}, n_true={self.codes.shape[1]}; {widths})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Universal:
    """Ground truth of M models with n_true known concepts, and tokens to train on. `usae.synthetic.universal` makes it.

    A token's activations in model i are ``codes @ dictionaries[i] + offsets[i] + noise``.

    Attributes
    ----------
    tokens : Tokens
        The tokens to train on, to which `acts` and `codes` belong.
    dictionaries : dict of str to ndarray of float32, each [n_true, width]
        Vectors that concepts with code 1 add to a model's activations, in the model's own units. Their norm is the model's
        scale, or 0 for concepts that the model does not have.
    offsets : dict of str to ndarray of float32, each [width]
        Activations of a token without concepts and noise.
    noise : dict of str to float
        Standard deviation of the noise of one element, in the model's own units.
    membership : ndarray of bool, [n_true, M]
        Which models have which concepts. The order is: concepts of all models, of pairs of models, of one model.
    frequencies : ndarray of float64, [n_true]
        Probability that a concept is in a token.
    groups : ndarray of int64, [n_true]
        Group of each concept. Concepts of a group tend to occur together; how much depends on `correlation`.
    correlation, shape, activation_scale, seed
        Arguments of `usae.synthetic.universal`.
    """

    tokens: Tokens
    dictionaries: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    noise: dict[str, float]
    membership: np.ndarray
    frequencies: np.ndarray
    groups: np.ndarray
    correlation: float
    shape: float
    activation_scale: float
    seed: int

    @property
    def acts(self) -> dict[str, np.ndarray]:
        """Activations to train on, float32 [n_tokens, width] of each model."""
        return self.tokens.acts

    @property
    def codes(self) -> scipy.sparse.csr_array:
        """True codes of the tokens to train on, float32 [n_tokens, n_true]."""
        return self.tokens.codes

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, in the order of the columns of `membership`."""
        return tuple(self.dictionaries)

    @property
    def n_true(self) -> int:
        """Number of concepts."""
        return len(self.membership)

    def sample(self, n_tokens: int, seed: int = 0) -> Tokens:
        """Draw held-out tokens of the same concepts, dictionaries, offsets and noise.

        Parameters
        ----------
        n_tokens : int
            Number of tokens.
        seed : int
            Seed from 0 to 2**64 - 1. With any seed, the tokens are other ones than those to train on. Default: 0.
        """
        n_tokens = checks.integer(n_tokens, "n_tokens", 1, 2**31 - 1)
        seed = checks.integer(seed, "seed", 0, 2**64 - 1)
        codes = _draw_codes(self, n_tokens, (self.seed, _SAMPLES, 0, seed))
        acts = {name: _signal(codes, dictionary) for name, dictionary in self.dictionaries.items()}
        _finish(acts, self.offsets, self.noise, (self.seed, _SAMPLES, 1, seed))
        return Tokens(acts, codes)

    def __repr__(self) -> str:
        living = self.membership.sum(1)
        shared, private = int((living == len(self.dictionaries)).sum()), int((living == 1).sum())
        widths = ", ".join(f"{name}: {d.shape[1]}" for name, d in self.dictionaries.items())
        return f"Universal({widths}; {self.n_true} concepts, {shared} shared, {private} private; n_tokens={len(self.tokens)})"


def universal(
    widths: Mapping[str, int] | None = None,
    *,
    n_tokens: int = 100_000,
    n_shared: int = 384,
    n_pairwise: int = 0,
    n_private: int = 64,
    noise: float = 0.1,
    correlation: float = 0.0,
    group_size: int = 8,
    frequency: float = 0.004,
    frequency_tail: float = 1.5,
    frequency_cap: float = 0.08,
    private_frequency: float = 0.01,
    shape: float = 2.0,
    activation_scale: float = 0.6,
    offset: float = 1.0,
    scale_spread: float = 4.0,
    seed: int = 0,
) -> Universal:
    """Make activations of several models from known sparse concepts. Some concepts are in all models, some in one.

    The direction of a concept is random and independent in each model. So a universal autoencoder can find out which directions
    belong together only from the tokens in which they occur together.

    Parameters
    ----------
    widths : mapping of str to int, optional
        Width of each model. Default: None, which takes ``{"a": 96, "b": 128, "c": 160}``.
    n_tokens : int
        Number of tokens to train on. Default: 100_000.
    n_shared : int
        Number of concepts that are in all models. Default: 384.
    n_pairwise : int
        Number of concepts of each pair of models, if there are three models or more. Default: 0.
    n_private : int
        Number of concepts of each model alone. Default: 64.
    noise : float
        Standard deviation of an element's Gaussian noise, divided by that of the signal. The signal's is the square root of the
        variance about each dimension's mean, averaged over dimensions. Default: 0.1.
    correlation : float
        Correlation, from 0 to below 1, of the hidden normal numbers that decide whether the concepts of a group are in a token.
        With 0 concepts are independent. The correlation of the concepts themselves is smaller, and smallest for rare concepts.
        Default: 0.0.
    group_size : int
        Number of concepts in a group. Groups are drawn from concepts of all kinds. Default: 8.
    frequency, frequency_tail, frequency_cap : float
        A concept of several models is in a token with probability min(frequency_cap, frequency * (1 + P)), where P is drawn for
        the concept from a Pareto (Lomax) distribution with tail index frequency_tail. Default: 0.004, 1.5 and 0.08.
    private_frequency : float
        Probability that a private concept is in a token. Default: 0.01.
    shape, activation_scale : float
        Codes of the concepts in a token have the distribution Gamma(shape, activation_scale). Default: 2.0 and 0.6.
    offset : float
        Standard deviation of an element of a model's offset, divided by that of the signal. Default: 1.0.
    scale_spread : float
        Scales of models (the norms of their dictionary rows) go from 1 / sqrt(scale_spread) for the first model to
        sqrt(scale_spread) for the last, in equal ratios. With 1 all scales are equal. Default: 4.0.
    seed : int
        Seed from 0 to 2**64 - 1. The same arguments give the same numbers with the same version of NumPy. Default: 0.

    Returns
    -------
    Universal
        Tokens to train on, and the concepts, dictionaries, offsets and noise from which they were made.

    Raises
    ------
    InvalidInputError
        For an argument out of its range, and if there would be no concept.

    Notes
    -----
    The defaults are the setting in which recipes are compared (benchmarks/ground_truth.py). In addition to the result, it needs
    the memory of a few arrays of 4096 tokens times all concepts.

    Examples
    --------
    >>> truth = usae.synthetic.universal()
    >>> sae = usae.UniversalSAE(1024, 8).fit(truth.acts, steps=3000)
    >>> print(usae.synthetic.score(sae, truth).summary())
    """
    widths = _checked_widths({"a": 96, "b": 128, "c": 160} if widths is None else widths)
    n_tokens = checks.integer(n_tokens, "n_tokens", 2, 2**31 - 1)
    n_shared, n_pairwise, n_private = (
        checks.integer(value, name, 0, 2**20)
        for name, value in {"n_shared": n_shared, "n_pairwise": n_pairwise, "n_private": n_private}.items()
    )
    group_size = checks.integer(group_size, "group_size", 1, 2**20)
    seed = checks.integer(seed, "seed", 0, 2**64 - 1)
    noise = checks.real(noise, "noise", "a finite share of the signal's standard deviation, at least 0")
    offset = checks.real(offset, "offset", "a finite share of the signal's standard deviation, at least 0")
    correlation = _within(correlation, "correlation", "at least 0 and below 1", 0, math.nextafter(1, 0))
    frequency, frequency_cap, private_frequency = (
        _within(value, name, "above 0 and at most 1", math.nextafter(0, 1), 1)
        for name, value in {
            "frequency": frequency,
            "frequency_cap": frequency_cap,
            "private_frequency": private_frequency,
        }.items()
    )
    frequency_tail, shape, activation_scale, scale_spread = (
        _within(value, name, "above 0 and at most 1e6", 1e-6, 1e6)
        for name, value in {
            "frequency_tail": frequency_tail,
            "shape": shape,
            "activation_scale": activation_scale,
            "scale_spread": scale_spread,
        }.items()
    )

    rng = np.random.default_rng((seed, _WORLD))
    membership = _membership(len(widths), n_shared, n_pairwise, n_private)
    n_true = len(membership)
    private = membership.sum(1) == 1 if len(widths) > 1 else np.arange(n_true) >= n_shared
    frequencies = np.minimum(frequency_cap, frequency * (1 + rng.pareto(frequency_tail, n_true)))
    frequencies[private] = private_frequency
    scales = np.geomspace(scale_spread**-0.5, scale_spread**0.5, len(widths)) if len(widths) > 1 else np.ones(1)
    dictionaries = {}
    for i, (name, width) in enumerate(widths.items()):
        rows = rng.standard_normal((n_true, width))
        rows *= scales[i] / np.linalg.norm(rows, axis=1, keepdims=True)
        dictionaries[name] = (rows * membership[:, i, None]).astype(np.float32)
    directions = {name: rng.standard_normal(width) for name, width in widths.items()}
    groups = rng.permutation(np.arange(n_true) // group_size)

    # Noise and offsets are relative to the signal of these tokens, so they are known only after the codes are drawn.
    acts: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    deviations: dict[str, float] = {}
    world = Universal(
        Tokens(acts, _no_codes(n_true)), dictionaries, offsets, deviations, membership, frequencies, groups, correlation,
        shape, activation_scale, seed,
    )  # fmt: skip
    codes = _draw_codes(world, n_tokens, (seed, _TRAINING, 0))
    for name, dictionary in dictionaries.items():
        acts[name] = _signal(codes, dictionary)
        signal = float(np.sqrt(acts[name].var(0, dtype=np.float64).mean()))
        offsets[name] = (offset * signal * directions[name]).astype(np.float32)
        deviations[name] = noise * signal
    _finish(acts, offsets, deviations, (seed, _TRAINING, 1))
    return dataclasses.replace(world, tokens=Tokens(acts, codes))


def _checked_widths(widths: object) -> dict[str, int]:
    if not isinstance(widths, Mapping):
        raise InvalidInputError(
            f'widths must be a mapping from model names to integers, like {{"a": 96}}, got {checks.shown(widths)}'
        )
    check_names(widths, "widths")
    return {name: checks.integer(width, f"widths[{name!r}]", 1, 2**20) for name, width in widths.items()}


def _within(value: object, name: str, expected: str, smallest: float, largest: float) -> float:
    number = checks.as_float(value)
    if smallest <= number <= largest:  # false for NaN
        return number
    raise InvalidInputError(f"{name} must be a number {expected}, got {checks.shown(value)}")


def _membership(n_models: int, n_shared: int, n_pairwise: int, n_private: int) -> np.ndarray:
    """Return which models have which concepts, bool [n_true, M]: shared concepts, those of each pair, those of each model."""
    pairs = [(i, j) for i in range(n_models) for j in range(i + 1, n_models)] if n_models > 2 else []
    owners = [tuple(range(n_models))] * n_shared + [pair for pair in pairs for _ in range(n_pairwise)]
    owners += [(i,) for i in range(n_models) for _ in range(n_private)]
    if not owners:
        raise InvalidInputError(
            f"n_shared, n_pairwise and n_private must leave at least one concept, got {n_shared}, {n_pairwise} and "
            f"{n_private} for {n_models} models"
        )
    membership = np.zeros((len(owners), n_models), bool)
    for concept, models in enumerate(owners):
        membership[concept, list(models)] = True
    return membership


def _no_codes(n_true: int) -> scipy.sparse.csr_array:
    import scipy.sparse

    return scipy.sparse.csr_array((0, n_true), dtype=np.float32)


def _draw_codes(world: Universal, n_tokens: int, key: tuple[int, ...]) -> scipy.sparse.csr_array:
    """Draw codes of tokens, float32 [n_tokens, n_true]."""
    import scipy.sparse

    rng = np.random.default_rng(key)
    n_true = world.n_true
    if world.correlation:
        from statistics import NormalDist

        limits = np.array([NormalDist().inv_cdf(1 - p) if p < 1 else -np.inf for p in world.frequencies])
        common, own = math.sqrt(world.correlation), math.sqrt(1 - world.correlation)
        n_groups = int(world.groups.max()) + 1
    columns, counts = [], []
    for start in range(0, n_tokens, CHUNK):
        rows = min(CHUNK, n_tokens - start)
        if world.correlation:
            hidden = own * rng.standard_normal((rows, n_true))
            hidden += common * rng.standard_normal((rows, n_groups))[:, world.groups]
            there = hidden > limits
        else:
            there = rng.random((rows, n_true)) < world.frequencies
        columns.append(np.nonzero(there)[1].astype(np.int32))
        counts.append(there.sum(1))
    indices = np.concatenate(columns)
    starts = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
    values = rng.gamma(world.shape, world.activation_scale, len(indices)).astype(np.float32)
    values = np.maximum(values, np.finfo(np.float32).tiny)  # the code of a concept that is in the token must not be 0
    return scipy.sparse.csr_array((values, indices, starts), shape=(n_tokens, n_true))


def _signal(codes: scipy.sparse.csr_array, dictionary: np.ndarray) -> np.ndarray:
    return np.asarray(codes @ dictionary, np.float32)


def _finish(acts: dict[str, np.ndarray], offsets: dict[str, np.ndarray], noise: dict[str, float], key: tuple[int, ...]) -> None:
    """Add noise and offsets to the signals, in place."""
    rng = np.random.default_rng(key)
    for name, x in acts.items():
        for rows in chunks(len(x), size=CHUNK):
            part = x[rows]
            part += np.float32(noise[name]) * rng.standard_normal(part.shape, np.float32)
            part += offsets[name]
