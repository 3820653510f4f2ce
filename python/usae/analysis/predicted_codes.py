"""How well a model's activations predict another model's code of each concept: the ceiling of the agreement of codes.

Every pass is over chunks of rows. What is kept are sums for each concept, and for one model at a time sums of products of its
dimensions with each other and with the other models' codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae import _usae
from usae._base.progress import progress_bar
from usae._data.activations import Activations
from usae._data.chunks import CHUNK, chunks, rows_of, tokens_per_image
from usae.analysis import correlations
from usae.analysis.agreement import LEAST_FIRINGS, AgreementCeiling
from usae.analysis.ridge import Ridge
from usae.analysis.supervised_encoder import SupervisedEncoder

if TYPE_CHECKING:
    import scipy.sparse

    from usae._estimator.universal_sae import UniversalSAE

EVALUATED_ROWS, FITTED_ROWS = 2**17, 2**19
"""Most rows that are predicted, and that ridge regression is fitted to. Of more rows, chunks are taken, spread evenly."""

PARTS = 10
"""The training rows are split into this many parts, one of which is used to choose the ridge penalties."""

PENALTIES = 10.0 ** np.arange(-5, 2)
"""Ridge penalties to choose from, as multiples of the mean variance of the source's dimensions."""

STEPS, BATCH = 300, 2048
"""Steps of training an encoder, and tokens of a step."""

PREDICTED = 1024
"""Tokens whose codes are predicted at once: 25 MB for 6,144 concepts."""


def agreement_ceiling(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    train: Mapping[str, Activations],
    *,
    dictionary_norms: np.ndarray | None,
    threshold: float,
    seed: int,
    progress: bool | None,
) -> AgreementCeiling:
    """Fit predictors of codes on `train` and correlate what they predict of `acts` with the codes; see `AgreementCeiling`.

    `dictionary_norms` are those of `Evaluation`, which energies take into account.
    """
    names = sae.model_names_
    n_models, n_concepts = len(names), sae._initialized().n_concepts
    n_train = next(iter(train.values())).n_tokens
    held_out = _spread(next(iter(acts.values())).n_tokens, 1, CHUNK, EVALUATED_ROWS)
    multiple = tokens_per_image(train) or 1  # tokens of one image stay in one part
    multiple = multiple if n_train // multiple >= 2 else 1
    fitted = _spread(n_train, multiple, min(CHUNK, max(1, n_train // PARTS)), FITTED_ROWS)
    total = (1 + n_models) * (len(held_out) + len(fitted)) + n_models * STEPS
    with progress_bar(total, progress, "ceiling of agreement", "part") as bar:
        codes = _CodeSums.zero(n_models, n_concepts)
        for rows in held_out:
            codes.add([_codes(sae, name, x, rows) for name, x in acts.items()], threshold)
            bar.update()
        fires = np.zeros((n_models, n_concepts), np.int64)
        for rows in fitted:
            for count, (name, x) in zip(fires, train.items(), strict=True):
                count += _fires(_codes(sae, name, x, rows), threshold)
            bar.update()
        known = (codes.fires >= LEAST_FIRINGS) & (fires >= LEAST_FIRINGS) & ~np.isnan(codes.variances())
        targets = [np.flatnonzero(each) for each in known]
        agreement, ridge, encoder, penalty = (np.full((n_models, n_models, n_concepts), np.nan) for _ in range(4))
        others = known[:, None] & ~np.eye(n_models, dtype=bool)[..., None]
        agreement[others] = np.nan_to_num(codes.agreement())[others]
        for j in range(n_models):
            wanted = {i: targets[i] for i in range(n_models) if i != j and len(targets[i])}
            if not wanted:
                continue
            source = _Source(sae, j, wanted, train, bar)
            predictors = source.fit(fitted, PENALTIES)
            source.train_encoders(predictors, STEPS, seed)
            for i, sums in source.predict(predictors, acts, held_out).items():
                place = (i, j, targets[i])
                penalty[place] = predictors[i].penalty
                for result, predicted in ((ridge, sums["ridge"]), (encoder, sums["encoder"])):
                    result[place] = codes.correlation(i, targets[i], predicted)
    energy = (codes.mean if dictionary_norms is None else codes.mean * dictionary_norms) ** 2
    return AgreementCeiling(names, codes.n, known, energy, agreement, ridge, encoder, penalty)


def _spread(n_tokens: int, multiple: int, size: int, most: int) -> list[slice]:
    """Return chunks of rows: all, or so many that are spread evenly that they have about `most` rows."""
    every = list(chunks(n_tokens, multiple, size))
    count = max(1, most // (every[0].stop - every[0].start))
    return every if count >= len(every) else [every[i] for i in np.linspace(0, len(every) - 1, count).round().astype(int)]


def _codes(sae: UniversalSAE, name: str, x: Activations, rows: slice | np.ndarray) -> scipy.sparse.csr_array:
    return sae.encode(rows_of(x, rows), name).to_csr()


def _fires(codes: scipy.sparse.csr_array, threshold: float) -> np.ndarray:
    """Count the tokens in which each concept fires."""
    return np.bincount(codes.indices[codes.data > threshold], minlength=codes.shape[1])


def _column_sums(matrix: scipy.sparse.csr_array) -> np.ndarray:
    return np.bincount(matrix.indices, matrix.data, matrix.shape[1])


@dataclasses.dataclass
class _CodeSums:
    """Sums over held-out tokens of all models' codes, [M, m], and of products of two models' codes, [M, M, m]."""

    n: int
    fires: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, n_models: int, n_concepts: int) -> _CodeSums:
        each = (n_models, n_concepts)
        return cls(0, np.zeros(each, np.int64), np.zeros(each), np.zeros((n_models, *each)))

    def add(self, codes: list[scipy.sparse.csr_array], threshold: float) -> None:
        self.n += codes[0].shape[0]
        wide = [code.astype(float) for code in codes]
        for i, first in enumerate(wide):
            self.fires[i] += _fires(codes[i], threshold)
            self.sums[i] += _column_sums(first)
            for j, second in enumerate(wide[: i + 1]):
                self.products[i, j] += _column_sums(first.multiply(second).tocsr())
                self.products[j, i] = self.products[i, j]

    @property
    def mean(self) -> np.ndarray:
        return self.sums / self.n

    @property
    def second(self) -> np.ndarray:
        """Means of squared codes, [M, m]."""
        return self.products[np.arange(len(self.sums)), np.arange(len(self.sums))] / self.n

    def variances(self) -> np.ndarray:
        return correlations.variances(self.mean, self.second, self.n)

    def agreement(self) -> np.ndarray:
        """Correlations of the same concept in two models, [M, M, m]."""
        mean, second = self.mean, self.second
        return correlations.pearson(mean[:, None], second[:, None], mean, second, self.products / self.n, self.n)

    def correlation(self, model: int, targets: np.ndarray, predicted: _PredictedSums) -> np.ndarray:
        """Correlations of a model's codes of some concepts with predictions; 0 where these do not vary."""
        mean, second = self.mean[model, targets], self.second[model, targets]
        sums, squares, products = predicted.sums / self.n, predicted.squares / self.n, predicted.products / self.n
        return np.nan_to_num(correlations.pearson(mean, second, sums, squares, products, self.n))


@dataclasses.dataclass
class _PredictedSums:
    """Sums over held-out tokens of predictions, of their squares, and of their products with the codes, [n targets]."""

    sums: np.ndarray
    squares: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, n: int) -> _PredictedSums:
        return cls(np.zeros(n), np.zeros(n), np.zeros(n))

    def add(self, predicted: np.ndarray, codes: scipy.sparse.csr_array) -> None:
        """Add dense predictions and sparse codes, both [n, n targets]."""
        self.sums += predicted.sum(0, dtype=float)
        self.squares += np.einsum("tc,tc->c", predicted, predicted, dtype=float)
        tokens = np.repeat(np.arange(len(predicted)), np.diff(codes.indptr))
        self.products += np.bincount(codes.indices, codes.data * predicted[tokens, codes.indices].astype(float), len(self.sums))

    def add_sparse(self, predicted: scipy.sparse.csr_array, codes: scipy.sparse.csr_array) -> None:
        predicted = predicted.astype(float)
        self.sums += _column_sums(predicted)
        self.squares += _column_sums(predicted.multiply(predicted).tocsr())
        self.products += _column_sums(predicted.multiply(codes).tocsr())


@dataclasses.dataclass
class _Moments:
    """Sums over rows of a source's standardised activations x and of some of another model's codes z, in float64."""

    n: int
    x: np.ndarray  # sum x, [width]
    xx: np.ndarray  # sum x x^T, [width, width]
    z: dict[int, np.ndarray]  # sum z of each other model, [n targets]
    xz: dict[int, np.ndarray]  # sum x z^T, [width, n targets]
    squares: dict[int, float]  # sum z^2 and number of codes, for their size
    active: dict[int, int]

    @classmethod
    def zero(cls, width: int, targets: Mapping[int, np.ndarray]) -> _Moments:
        sizes = {i: len(each) for i, each in targets.items()}
        return cls(
            0, np.zeros(width), np.zeros((width, width)), {i: np.zeros(n) for i, n in sizes.items()},
            {i: np.zeros((width, n)) for i, n in sizes.items()}, dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0),
        )  # fmt: skip

    def add(self, x: np.ndarray, codes: Mapping[int, scipy.sparse.csr_array]) -> None:
        self.n += len(x)
        self.x += x.sum(0)
        self.xx += x.T @ x
        for i, code in codes.items():
            self.z[i] += _column_sums(code)
            self.xz[i] += (code.T @ x).T
            self.squares[i] += float(code.data @ code.data)
            self.active[i] += code.nnz

    def merge(self, other: _Moments) -> None:
        """Add the sums of other rows, and empty those: there is memory for one of each."""
        self.n += other.n
        self.x += other.x
        self.xx += other.xx
        for i in self.z:
            self.z[i] += other.z[i]
            self.xz[i] += other.xz.pop(i)
            self.squares[i] += other.squares[i]
            self.active[i] += other.active[i]

    def gram(self, mean: np.ndarray) -> np.ndarray:
        """Return sums of products of distances of x from `mean`."""
        cross = np.outer(self.x, mean)
        return self.xx - cross - cross.T + self.n * np.outer(mean, mean)

    def cross(self, i: int, mean: np.ndarray, z_mean: np.ndarray) -> np.ndarray:
        """Return sums of products of distances of x from `mean` and of z from `z_mean`, [width, n targets]."""
        return self.xz[i] - np.outer(mean, self.z[i]) - np.outer(self.x - self.n * mean, z_mean)


@dataclasses.dataclass
class _Predictor:
    """Predicts a model's codes of some concepts from the source's standardised activations, [..., width]."""

    weights: np.ndarray  # float32 [n targets, width]
    biases: np.ndarray  # float32 [n targets]
    penalty: np.ndarray  # [n targets]
    encoder: SupervisedEncoder

    def ridge(self, x: np.ndarray) -> np.ndarray:
        predicted = x @ self.weights.T
        predicted += self.biases
        return np.maximum(predicted, 0, out=predicted)


class _Source:
    """The model whose activations predict the codes of the others, and the concepts to predict of each of those."""

    def __init__(
        self, sae: UniversalSAE, model: int, targets: Mapping[int, np.ndarray], train: Mapping[str, Activations], bar: Any
    ):
        autoencoder = sae._initialized()
        self.sae, self.targets, self.train, self.bar = sae, targets, train, bar
        self.names, self.name, self.width = (
            autoencoder.names,
            autoencoder.names[model],
            list(autoencoder.widths.values())[model],
        )
        self.k = autoencoder.whole_k
        self.mean, self.scale = autoencoder.exact_mean(model), autoencoder.read(model, "scale").astype(float)

    def _read(
        self, acts: Mapping[str, Activations], rows: slice | np.ndarray
    ) -> tuple[np.ndarray, dict[int, scipy.sparse.csr_array]]:
        """Return standardised activations, float64 [n, width], and the codes to predict, float64 [n, n targets] each."""
        x = (rows_of(acts[self.name], rows).astype(float) - self.mean) / self.scale
        names = {i: self.names[i] for i in self.targets}
        codes = {i: _codes(self.sae, name, acts[name], rows)[:, self.targets[i]].astype(float) for i, name in names.items()}
        return x, codes

    def fit(self, rows: list[slice], penalties: np.ndarray) -> dict[int, _Predictor]:
        """Fit ridge regressions, whose penalties are chosen on a tenth of the chunks, and start encoders from them."""
        learning, choosing = (_Moments.zero(self.width, self.targets) for _ in range(2))
        for number, part in enumerate(rows):
            (choosing if number % PARTS == 1 else learning).add(*self._read(self.train, part))
            self.bar.update()
        mean = learning.x / learning.n
        choice, gram = Ridge(learning.gram(mean)), choosing.gram(mean)
        best = {}
        for i, z in learning.z.items():
            z_mean = z / learning.n
            cross, other = learning.cross(i, mean, z_mean), choosing.cross(i, mean, z_mean)
            best[i] = choice.best_penalties(cross, gram, other, penalties)
        learning.merge(choosing)
        whole, mean = learning, learning.x / learning.n
        gram = whole.gram(mean)
        final, spread = Ridge(gram), np.trace(gram)
        dimensions = spread**2 / (gram**2).sum() if spread > 0 else 1.0
        predictors = {}
        for i, z in whole.z.items():
            z_mean = z / whole.n
            weights = final.weights(whole.cross(i, mean, z_mean), best[i]).T
            biases = z_mean - weights @ mean
            size = (whole.squares[i] / whole.active[i]) ** 0.5
            encoder = SupervisedEncoder(weights, biases, self.k, size, dimensions, self.sae.n_threads)
            predictors[i] = _Predictor(weights.astype(np.float32), biases.astype(np.float32), best[i], encoder)
        return predictors

    def train_encoders(self, predictors: Mapping[int, _Predictor], steps: int, seed: int) -> None:
        n_tokens = self.train[self.name].n_tokens
        order = int(np.random.SeedSequence([seed, 5]).generate_state(1, np.uint64)[0])
        rows = np.empty(min(BATCH, n_tokens), np.int64)
        for number in range(1, steps + 1):
            _usae.shuffled_rows(order, n_tokens, (number - 1) * len(rows), rows)
            x, codes = self._read(self.train, np.sort(rows))
            for i, predictor in predictors.items():
                predictor.encoder.step(x.astype(np.float32), codes[i], number, steps)
            self.bar.update()

    def predict(
        self, predictors: Mapping[int, _Predictor], acts: Mapping[str, Activations], rows: list[slice]
    ) -> dict[int, dict[str, _PredictedSums]]:
        """Return sums of the predictions of held-out tokens."""
        sums = {i: {kind: _PredictedSums.zero(len(each)) for kind in ("ridge", "encoder")} for i, each in self.targets.items()}
        for part in rows:
            x, codes = self._read(acts, part)
            single = x.astype(np.float32)
            for i, predictor in predictors.items():
                sums[i]["encoder"].add_sparse(predictor.encoder.encode(single), codes[i])
                for piece in chunks(len(single), size=PREDICTED):
                    sums[i]["ridge"].add(predictor.ridge(single[piece]), codes[i][piece])
            self.bar.update()
        return sums
