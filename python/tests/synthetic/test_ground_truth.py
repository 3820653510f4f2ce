"""Activations made of known concepts."""

import numpy as np
import pytest

from support.refusals import refuses
from support.worlds import WIDTHS, small
from usae import synthetic

pytestmark = pytest.mark.slow

# --- The world --------------------------------------------------------------------------------------------------------


def test_a_seed_decides_every_number_and_another_seed_others():
    first, again, other = small(seed=1), small(seed=1), small(seed=2)
    for name in WIDTHS:
        assert np.array_equal(first.acts[name], again.acts[name])
        assert np.array_equal(first.dictionaries[name], again.dictionaries[name])
        assert not np.array_equal(first.dictionaries[name], other.dictionaries[name])
    assert (first.codes != again.codes).nnz == 0
    assert np.array_equal(first.sample(50, seed=3).acts["a"], again.sample(50, seed=3).acts["a"])


def test_samples_are_new_tokens_of_the_same_world():
    truth = small()
    for seed in (0, 1):
        tokens = truth.sample(500, seed=seed)
        assert len(tokens) == 500
        assert (tokens.codes != truth.codes).nnz > 0
        for name, x in tokens.acts.items():
            residual = x - tokens.codes @ truth.dictionaries[name] - truth.offsets[name]
            # 500 * 30 normal numbers or more: their deviation is within 1 / sqrt(30,000) = 0.6 %; five times that.
            assert residual.std() == pytest.approx(truth.noise[name], rel=0.03)


def test_membership_says_which_dictionary_rows_there_are_and_their_norm_is_the_scale():
    truth = small(scale_spread=9)
    assert truth.membership.shape == (10 + 3 * 2 + 3 * 3, 3)
    assert np.array_equal(truth.membership.sum(1), [3] * 10 + [2] * 6 + [1] * 9)
    assert np.array_equal(truth.membership[10:16].sum(0), [4, 4, 4]) and np.array_equal(truth.membership[16:].sum(0), [3, 3, 3])
    for i, (name, scale) in enumerate(zip(WIDTHS, (1 / 3, 1, 3), strict=True)):
        norms = np.linalg.norm(truth.dictionaries[name], axis=1)
        assert np.allclose(norms, scale * truth.membership[:, i], rtol=1e-6)
        assert truth.acts[name].dtype == np.float32 and truth.acts[name].shape == (500, WIDTHS[name])


def test_concepts_come_as_often_and_as_strongly_as_asked():
    truth = synthetic.universal({"a": 8, "b": 8, "c": 8}, n_tokens=20_000, n_shared=200, n_private=20)
    assert np.array_equal(truth.frequencies[200:], np.full(60, 0.01))
    shared = truth.frequencies[:200]
    assert shared.min() >= 0.004 and shared.max() == 0.08  # the chance that none of 200 is capped is below 1 in 1,000
    # A Lomax number with tail 1.5 has median 2^(2/3) - 1; of 200 the sample's median deviates by about 12 % of 1 + median.
    assert np.median(shared) == pytest.approx(0.004 * 2 ** (2 / 3), rel=0.3)
    counts = np.bincount(truth.codes.indices, minlength=truth.n_true)
    expected = 20_000 * truth.frequencies
    # Binomial; the largest of 260 deviations is about 3 standard deviations.
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
    values = truth.codes.data.astype(float)
    error = 5 / np.sqrt(len(values))
    assert values.min() > 0
    assert values.mean() == pytest.approx(2 * 0.6, abs=error * 0.6 * 2**0.5)
    assert values.var() == pytest.approx(2 * 0.36, abs=error * 0.72 * 5**0.5)  # a Gamma(2)'s kurtosis is 6


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_noise_and_offset_are_shares_of_the_signals_deviation(noise):
    truth = small(n_tokens=3000, noise=noise, offset=2.0, widths={"a": 400, "b": 500})
    for name, x in truth.acts.items():
        signal = truth.codes @ truth.dictionaries[name]
        deviation = np.sqrt(signal.var(0).mean())
        assert truth.noise[name] == pytest.approx(noise * deviation, rel=1e-5)
        assert (x - signal - truth.offsets[name]).std() == pytest.approx(noise * deviation, rel=0.01, abs=1e-5)
        assert truth.offsets[name].std() == pytest.approx(2 * deviation, rel=5 / np.sqrt(2 * 400))


def test_correlated_concepts_come_together_within_groups_and_as_often_as_before():
    options = dict(n_tokens=30_000, n_pairwise=0, group_size=4, widths={"a": 4, "b": 4})
    truth = small(**options, correlation=0.7)
    there = (truth.codes.toarray() > 0).astype(float)
    # Tokens are independent, so frequencies are as exact as those of independent concepts.
    assert (np.abs(there.mean(0) - truth.frequencies) < 5 * np.sqrt(truth.frequencies / 30_000)).all()
    correlation = np.corrcoef(there.T)
    same = truth.groups[:, None] == truth.groups
    own = np.eye(len(same), dtype=bool)
    assert correlation[same & ~own].min() > 0.15
    assert np.abs(correlation[~same]).max() < 5 / np.sqrt(30_000)
    independent = np.corrcoef((small(**options).codes.toarray() > 0).T)
    assert np.abs(independent[~own]).max() < 5 / np.sqrt(30_000)


def test_no_dense_array_over_all_tokens_and_concepts_is_made():
    import tracemalloc

    tracemalloc.start()
    truth = synthetic.universal({"a": 2, "b": 2}, n_tokens=100_000, n_shared=300, n_private=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert truth.codes.shape == (100_000, 400)
    assert peak < 100_000 * 400 * 4 / 2  # half of a dense float32 array


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "argument", "got"),
    [
        (dict(widths=[3]), "widths", "[3]"),
        (dict(widths={"a": 0}), "widths['a']", "0"),
        (dict(widths={}), "widths", "an empty mapping"),
        (dict(n_tokens=1), "n_tokens", "1"),
        (dict(n_shared=-1), "n_shared", "-1"),
        (dict(n_shared=0, n_pairwise=0, n_private=0), "n_shared, n_pairwise and n_private", "0, 0 and 0 for 3 models"),
        (dict(noise=-0.1), "noise", "-0.1"),
        (dict(noise=float("nan")), "noise", "nan"),
        (dict(correlation=1.0), "correlation", "1.0"),
        (dict(frequency=0), "frequency", "0"),
        (dict(private_frequency=1.5), "private_frequency", "1.5"),
        (dict(shape=0), "shape", "0"),
        (dict(scale_spread="wide"), "scale_spread", "'wide'"),
        (dict(group_size=0), "group_size", "0"),
        (dict(seed=-1), "seed", "-1"),
    ],
)
def test_arguments_of_a_world_that_cannot_be_are_refused(changes, argument, got):
    with refuses(argument, got):
        small(**changes)
