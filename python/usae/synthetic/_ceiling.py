"""A ceiling of recovery: the score of encoders that are trained on the true codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from usae._base import checks
from usae._data.activations import as_activations, check_columns, check_known
from usae._data.chunks import chunks
from usae._data.columns import Columns
from usae._estimator.codes import Codes
from usae.errors import InvalidInputError
from usae.synthetic._ground_truth import CHUNK, Tokens, Universal
from usae.synthetic._recovery import Score, score

BATCH = 2048
LEARNING_RATE = 1e-2  # of Adam, for whitened activations and codes of variance 1
SELECTING_SHARE = 0.5  # share of the steps, at the end, in which TopK is applied


class SupervisedEncoders:
    """Encoders (linear, ReLU, TopK) that were trained on the true codes, with the true dictionaries.

    Index c is the true concept c. `usae.synthetic.supervised` makes them, and `usae.synthetic.score` can score them.

    Attributes
    ----------
    k : int
        Largest number of active concepts of a token.
    encoder_weight : dict of str to ndarray of float32, each [n_true, width]
        Encoder weights of each model, for activations in the model's own units.
    encoder_bias : dict of str to ndarray of float32, each [n_true]
        Encoder biases of each model. Minus infinity for concepts that the model does not have.
    code_scale : dict of str to ndarray of float32, each [n_true]
        Factors by which selected codes are multiplied. They are fitted by least squares to decoding to all models.
    decoder_bias : dict of str to ndarray of float32, each [width]
        Constants that decoding adds in each model.
    """

    def __init__(self, truth: Universal, k: int):
        self.k = k
        self.encoder_weight: dict[str, np.ndarray] = {}
        self.encoder_bias: dict[str, np.ndarray] = {}
        self.code_scale: dict[str, np.ndarray] = {}
        self.decoder_bias: dict[str, np.ndarray] = {}
        self._dictionaries = truth.dictionaries

    def encode(self, x: Any, model: str) -> Codes:
        """Encode activations, [n_tokens, width], in the model's own units, as `UniversalSAE.encode` does."""
        check_known(model, list(self.encoder_weight), "model")
        activations = as_activations(x, "x")
        check_columns(activations, model, Columns(self.encoder_weight[model].shape[1]))
        rows = np.asarray(activations.array, np.float32).reshape(-1, activations.width)
        parts = [self._encode(rows[part], model) for part in chunks(len(rows), size=CHUNK)]
        values, indices = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Codes(values, indices, len(self.encoder_bias[model]))

    def decode(self, codes: Codes, model: str) -> np.ndarray:
        """Decode codes to activations, [n_tokens, width], in the model's own units."""
        check_known(model, list(self.encoder_weight), "model")
        return np.asarray(codes.to_csr() @ self._dictionaries[model] + self.decoder_bias[model], np.float32)

    def dictionary(self, model: str, units: str = "model") -> np.ndarray:
        """Return the true dictionary, [n_true, width]. `units` can only be "model", the model's own units. Default: "model"."""
        check_known(model, list(self.encoder_weight), "model")
        if units != "model":
            raise InvalidInputError(f'units must be "model", got {checks.shown(units)}: these encoders do not standardise')
        return self._dictionaries[model].copy()

    def _encode(self, rows: np.ndarray, model: str) -> tuple[np.ndarray, np.ndarray]:
        positive = np.maximum(rows @ self.encoder_weight[model].T + self.encoder_bias[model], 0)
        slots = min(self.k, positive.shape[1])
        columns = np.argpartition(-positive, slots - 1, axis=1)[:, :slots]
        values = np.take_along_axis(positive, columns, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        columns, values = np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)
        scaled = values * self.code_scale[model][columns] if model in self.code_scale else values
        return scaled, np.where(values > 0, columns, -1)


def supervised(truth: Universal, k: int, *, steps: int = 1500, seed: int = 0) -> SupervisedEncoders:
    """Train encoders (linear, ReLU, TopK) on the true codes of ``truth.acts``.

    Parameters
    ----------
    truth : Universal
        The ground truth.
    k : int
        Largest number of active concepts of a token.
    steps : int
        Number of training steps for each model, of 2,048 tokens. 0: ridge regression alone. Default: 1500.
    seed : int
        Seed of the order of tokens, from 0 to 2**64 - 1. Default: 0.

    Returns
    -------
    SupervisedEncoders
        The encoders of all models.

    Raises
    ------
    InvalidInputError
        For an argument that cannot be used.

    Notes
    -----
    The weights of each concept start from the least-squares fit of its true codes. Adam then minimises the squared error of the
    code after ReLU, and in the second half of the steps after ReLU and TopK. A factor does not change the correlation of a code
    with the truth, so the squared error is the objective closest to the score.

    With the true dictionaries, decoding has free factors for each concept and encoder, and free constants for each decoder.
    Both are fitted by least squares on the same tokens.
    """
    if not isinstance(truth, Universal):
        raise InvalidInputError(f"truth must be what usae.synthetic.universal returns, got {type(truth).__name__}")
    k = checks.integer(k, "k", 1, 2**20)
    steps = checks.integer(steps, "steps", 0, 10**9)
    seed = checks.integer(seed, "seed", 0, 2**64 - 1)
    result = SupervisedEncoders(truth, k)
    for i, name in enumerate(truth.model_names):
        members = np.nonzero(truth.membership[:, i])[0]
        weight, bias = np.zeros_like(truth.dictionaries[name]), np.full(truth.n_true, -np.inf, np.float32)
        if len(members):
            weight[members], bias[members] = _fit(truth.acts[name], truth.codes[:, members], k, steps, (i, seed))
        result.encoder_weight[name], result.encoder_bias[name] = weight, bias
    _fit_decoding(result, truth)
    return result


def ceiling(
    truth: Universal, k: int, held_out: Tokens | None = None, *, steps: int = 1500, seed: int = 0, **thresholds: float
) -> Score:
    """Estimate the best score that an autoencoder can reach: the score of encoders that were trained on the true codes.

    Parameters
    ----------
    truth : Universal
        The ground truth.
    k : int
        The same k as that of the autoencoder that is compared.
    held_out : Tokens, optional
        Held-out tokens, as for `usae.synthetic.score`. Default: None.
    steps : int
        Number of training steps, as for `usae.synthetic.supervised`. Default: 1500.
    seed : int
        Seed of the training, as for `usae.synthetic.supervised`. Default: 0.
    **thresholds : float
        Thresholds, as for `usae.synthetic.score`.

    Returns
    -------
    Score
        The score. `dictionary_recovered` is always true, because the dictionaries are the true ones. R2 is that of decoding
        with them.

    Notes
    -----
    This is a ceiling of recovery for encoders of this kind, as far as their training converges. It is no ceiling of R2: if
    codes are imperfect, other directions than the true ones can reconstruct better.
    """
    return score(supervised(truth, k, steps=steps, seed=seed), truth, held_out, **thresholds)


def _fit(x: np.ndarray, codes: Any, k: int, steps: int, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights, [n, width], and biases, [n], of one model's encoders to codes, [n_tokens, n]."""
    codes = codes.astype(np.float64)
    n_tokens, mean = len(x), x.mean(0, dtype=np.float64)
    covariance = np.zeros((x.shape[1],) * 2)
    joint = np.zeros((codes.shape[1], x.shape[1]))
    for part in chunks(n_tokens, size=CHUNK):
        centred = x[part] - mean
        covariance += centred.T @ centred
        joint += codes[part].T @ centred
    values, vectors = np.linalg.eigh(covariance / n_tokens)
    smallest = 1e-6 * values.max() or 1.0  # where nothing varies there is nothing to whiten
    whiten = vectors / np.sqrt(np.maximum(values, smallest))  # [width, width]
    average = codes.sum(0) / n_tokens
    deviation = np.sqrt(np.maximum(codes.power(2).sum(0) / n_tokens - average**2, 0))
    deviation[deviation == 0] = 1  # a concept that is in no token
    weight = ((joint / n_tokens) @ whiten / deviation[:, None]).astype(np.float32)
    bias = (average / deviation).astype(np.float32)

    targets = (codes / deviation).tocsr().astype(np.float32)
    whiten32, mean32, scale = whiten.astype(np.float32), mean.astype(np.float32), deviation.astype(np.float32)
    parameters = np.concatenate([weight, bias[:, None]], axis=1)
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    rng = np.random.default_rng(key)
    slots = min(k, len(bias))
    batch = min(BATCH, n_tokens)
    order = np.empty(0, np.int64)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = rng.permutation(n_tokens)
        rows, order = np.sort(order[:batch]), order[batch:]
        tokens = np.ones((batch, x.shape[1] + 1), np.float32)
        np.matmul(x[rows] - mean32, whiten32, out=tokens[:, :-1])
        code = np.maximum(tokens @ parameters.T, 0)
        if step > steps * (1 - SELECTING_SHARE) and slots < len(bias):
            size = code * scale
            code[size < np.partition(size, -slots, axis=1)[:, -slots, None]] = 0
        error = code - targets[rows].toarray()
        error[code == 0] = 0  # ReLU and TopK have no gradient there
        gradient = (error.T @ tokens) / np.float32(batch)
        first += np.float32(0.1) * (gradient - first)
        second += np.float32(0.001) * (gradient**2 - second)
        rate = LEARNING_RATE * min(1, step / 50) * (1 - (step - 1) / steps)
        update = first / np.float32(1 - 0.9**step)
        update /= np.sqrt(second / np.float32(1 - 0.999**step)) + np.float32(1e-8)
        parameters -= np.float32(rate) * update

    weight = (parameters[:, :-1] @ whiten32.T).astype(np.float64) * deviation[:, None]
    bias = parameters[:, -1] * deviation - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _fit_decoding(encoders: SupervisedEncoders, truth: Universal) -> None:
    """Fit factors for each concept and encoder, and constants for each decoder, by least squares."""
    means = {name: x.mean(0, dtype=np.float64) for name, x in truth.acts.items()}
    # Models have equal weight: the error of a model is divided by its variance, as in R2.
    variances = {name: x.var(0, dtype=np.float64).sum() for name, x in truth.acts.items()}
    weights = {name: 1 / variance if variance > 0 else 0.0 for name, variance in variances.items()}
    dictionaries = {name: d.astype(np.float64) for name, d in truth.dictionaries.items()}
    gram = sum(weights[name] * (d @ d.T) for name, d in dictionaries.items())
    constants = {name: np.zeros_like(mean) for name, mean in means.items()}
    for source in truth.model_names:
        found = encoders.encode(truth.acts[source], source).to_csr().astype(np.float64)
        average = found.sum(0) / found.shape[0]
        moments = (found.T @ found).toarray() / found.shape[0] - np.outer(average, average)
        target = np.zeros(truth.n_true)
        for name, d in dictionaries.items():
            joint = (found.T @ truth.acts[name]) / found.shape[0] - np.outer(average, means[name])
            target += weights[name] * (joint * d).sum(1)
        fires = moments.diagonal() > 0
        factors = np.ones(truth.n_true)
        system = (moments * gram)[np.ix_(fires, fires)]
        factors[fires] = np.linalg.lstsq(system, target[fires], rcond=None)[0]
        factors = np.maximum(factors, 1e-3)  # so that codes stay positive
        encoders.code_scale[source] = factors.astype(np.float32)
        for name, d in dictionaries.items():
            constants[name] += (means[name] - (average * factors) @ d) / len(means)
    encoders.decoder_bias = {name: constant.astype(np.float32) for name, constant in constants.items()}
