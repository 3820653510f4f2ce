"""Small worlds of known concepts, and who knows them."""

import numpy as np

import usae
from usae import synthetic

SMALL = dict(n_tokens=500, n_shared=10, n_pairwise=2, n_private=3, frequency=0.05, frequency_cap=0.3, private_frequency=0.1)
WIDTHS = {"a": 30, "b": 36, "c": 40}


def small(widths=None, **changes):
    return synthetic.universal(WIDTHS if widths is None else widths, **(SMALL | changes))


class Oracle:
    """Reads codes off noiseless activations: with fewer concepts than dimensions they are the least-squares solution.

    `columns[model]` says which index each true concept has in that model.
    """

    def __init__(self, truth, columns=None, n_concepts=None):
        self.truth = truth
        self.columns = columns or {name: np.arange(truth.n_true) for name in truth.model_names}
        self.n_concepts = n_concepts or truth.n_true

    def true_codes(self, x, model):
        z = (x - self.truth.offsets[model]).astype(float) @ np.linalg.pinv(self.truth.dictionaries[model].astype(float))
        return np.where(z > 1e-3, z, 0)  # float32 activations of size 10: roundings are far below

    def encode(self, x, model):
        z = np.zeros((len(x), self.n_concepts))
        z[:, self.columns[model]] = self.true_codes(x, model)
        order = np.argsort(-z, axis=1)
        values = np.take_along_axis(z, order, 1)
        return usae.Codes(values, np.where(values > 0, order, -1), self.n_concepts)

    def dictionary(self, model, units="standardized"):
        assert units == "model"
        rows = np.zeros((self.n_concepts, self.truth.dictionaries[model].shape[1]), np.float32)
        rows[self.columns[model]] = self.truth.dictionaries[model]
        return rows


class DecodingOracle(Oracle):
    def decode(self, codes, model):
        return codes.to_csr() @ self.dictionary(model, units="model") + self.truth.offsets[model]


def two_models(n_tokens=3000, seed=0):
    """Models "a" and "b" of widths 24 and 32: 4 of 40 concepts in a row, values uniform in .5 to 2, noise .02; float32."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(1)
    codes = np.zeros((n_tokens, 40))
    chosen = random.permuted(np.tile(np.arange(40), (n_tokens, 1)), axis=1)[:, :4]
    np.put_along_axis(codes, chosen, random.uniform(0.5, 2, (n_tokens, 4)), 1)
    acts = {}
    for name, width in {"a": 24, "b": 32}.items():
        rows = directions.standard_normal((40, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        acts[name] = (codes @ rows + 0.02 * random.standard_normal((n_tokens, width))).astype(np.float32)
    return acts


def fit_two(acts, steps=300, **changes):
    """An autoencoder of 64 concepts, 4 of them in a token. On `two_models`, R2 is about [[.91, .85], [.93, .94]]."""
    recipe = usae.recipes.default(batch_size=512, **changes)
    return usae.UniversalSAE(64, 4, recipe=recipe, seed=0).fit(acts, steps=steps, progress=False)
