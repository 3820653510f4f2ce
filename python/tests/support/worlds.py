"""A small world of known concepts, and who knows them."""

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
