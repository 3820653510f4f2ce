"""What encoders find that are told the answer."""

import numpy as np
import pytest

from usae import synthetic

pytestmark = pytest.mark.slow


def test_supervised_encoders_find_nearly_all_and_training_beats_ridge_regression():
    truth = synthetic.universal({"a": 30, "b": 40}, n_tokens=6000, n_shared=50, n_private=5)
    held_out = truth.sample(4000)
    ridge, trained = (synthetic.ceiling(truth, 6, held_out, steps=steps) for steps in (0, 300))
    assert trained.dictionary_recovered.all()
    assert trained.code_recovered.mean() > ridge.code_recovered.mean() + 0.1
    assert trained.r2_off_diagonal > ridge.r2_off_diagonal and trained.r2_diagonal > ridge.r2_diagonal
    encoders = synthetic.supervised(truth, 6, steps=20)
    codes = encoders.encode(held_out.acts["b"], "b")
    assert codes.k == 6 and len(codes) == 4000
    assert not np.isin(codes.indices, np.nonzero(~truth.membership[:, 1])[0]).any()  # nothing that b cannot know
    again = synthetic.supervised(truth, 6, steps=20).encode(held_out.acts["b"], "b")
    assert codes == again


def test_the_factors_of_codes_are_the_least_squares_fit():
    truth = synthetic.universal({"a": 30, "b": 40}, n_tokens=3000, n_shared=30, n_private=5)
    encoders = synthetic.supervised(truth, 6, steps=50)

    def error(source):
        codes, total = encoders.encode(truth.acts[source], source), 0.0
        for name, x in truth.acts.items():
            total += (x - encoders.decode(codes, name)).var(0, dtype=float).sum() / x.var(0, dtype=float).sum()
        return total

    best = error("a")
    for concept in (0, 7, 29, 31):
        for factor in (0.95, 1.05):
            encoders.code_scale["a"][concept] *= factor
            assert error("a") > best
            encoders.code_scale["a"][concept] /= factor
