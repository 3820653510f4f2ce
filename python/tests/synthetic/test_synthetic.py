import json

import numpy as np
import pytest
import scipy.sparse
from conftest import RECIPE

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


# --- The world -------------------------------------------------------------------------------------------------------------


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


# --- The score -------------------------------------------------------------------------------------------------------------


def test_who_knows_the_codes_scores_one_everywhere():
    truth = small(noise=0)
    score = synthetic.score(DecodingOracle(truth), truth)
    assert score.universally_recovered == 1 and score.duplicates == 0 and score.entropy_auroc == 1
    for half in (score.recovered, score.dictionary_recovered, score.code_recovered, score.firing_recovered):
        assert half.all()
    assert np.array_equal(score.found, truth.membership)
    assert np.array_equal(score.n_indices, np.ones(25)) and score.n_labelled == (10, 9)
    assert score.r2_diagonal == pytest.approx(1, abs=1e-6)
    assert score.r2_off_diagonal < 0.99  # private concepts of the target cannot be known


def test_concepts_at_other_indices_in_one_model_are_found_in_each_model_but_not_universally():
    truth = small(noise=0)
    columns = {name: np.arange(25) for name in WIDTHS}
    columns["b"] = np.roll(np.arange(25), 1)
    score = synthetic.score(Oracle(truth, columns), truth)
    assert score.universally_recovered == 0
    assert not (score.dictionary_recovered | score.code_recovered | score.firing_recovered)[score.shared].any()
    assert np.array_equal(score.found, truth.membership)
    assert score.recovered[score.private].all()
    assert score.recovered[score.partial].tolist() == (~truth.membership[10:16, 1]).tolist()
    assert (score.n_indices[score.shared] == 2).all()
    assert np.isnan(score.r2).all()


class Splitting(Oracle):
    """Has every true vector twice, in every model; the last model fires the second of them."""

    def __init__(self, truth):
        super().__init__(truth, n_concepts=2 * truth.n_true)
        self.columns = dict(self.columns, c=np.arange(truth.n_true) + truth.n_true)

    def dictionary(self, model, units="standardized"):
        return np.tile(self.truth.dictionaries[model], (2, 1))


def test_duplicate_concepts_have_the_right_dictionary_and_no_common_code():
    truth = small(noise=0)
    score = synthetic.score(Splitting(truth), truth)
    assert score.dictionary_recovered.all()
    assert not score.code_recovered[score.shared].any() and score.universally_recovered == 0
    assert np.array_equal(score.found, truth.membership)
    assert np.array_equal(score.n_indices, 1 + (truth.membership[:, 2] & truth.membership[:, :2].any(1)))
    assert score.duplicates == np.mean(score.n_indices == 2) == (10 + 4) / 25
    with pytest.warns(DeprecationWarning, match="duplicates"):
        assert score.twins == score.duplicates
    # Half of the shared concepts' indices fire in two models, the others in one, as all indices of private ones do.
    assert score.entropy_auroc == 0.5 * 1 + 0.5 * 0.5


def test_correlations_f1_and_entropy_agree_with_dense_numpy_and_a_real_autoencoder_is_taken():
    truth = small()
    held_out = truth.sample(3000, seed=4)
    sae = usae.UniversalSAE(40, 4, recipe=RECIPE.replace(scale="dimension"), seed=3, n_threads=1).fit(truth.acts, steps=300)
    score = synthetic.score(sae, truth, held_out, correlation=0.5)
    true = held_out.codes.toarray()
    vector, code, fires, counts = [], [], [], []
    for i, name in enumerate(WIDTHS):
        z = sae.encode(held_out.acts[name], name).to_dense()
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.nan_to_num(np.corrcoef(true.T, z.T)[:25, 25:])
        lives = truth.membership[:, i, None]
        rows = sae.dictionary(name, units="model")
        norms = [np.linalg.norm(vectors, axis=1) + 1e-30 for vectors in (truth.dictionaries[name], rows)]
        cosine = (truth.dictionaries[name] @ rows.T) / np.outer(*norms)
        both = (true > 0).T.astype(float) @ (z > 0)
        f1 = 2 * both / np.maximum((true > 0).sum(0)[:, None] + (z > 0).sum(0), 1)
        vector.append(np.where(lives, cosine > 0.9, True))
        code.append(np.where(lives, correlation > 0.5, True))
        fires.append(np.where(lives, f1 > 0.5, True))
        counts.append((z > 0).sum(0))
    assert np.array_equal(score.dictionary_recovered, np.all(vector, 0).any(1))
    assert np.array_equal(score.code_recovered, np.all(code, 0).any(1)) and score.code_recovered.any()
    assert np.array_equal(score.firing_recovered, np.all(fires, 0).any(1))
    assert np.array_equal(score.recovered, (np.all(vector, 0) & np.all(code, 0)).any(1))
    evaluation = sae.evaluate(held_out.acts)
    assert np.allclose(score.r2, evaluation.r2, rtol=0, atol=1e-4)
    assert np.array_equal(evaluation.firing_counts, counts)


def test_directions_are_compared_in_the_models_units():
    # Dimensions of very different size: the true direction, divided by them, is another direction.
    truth = small(noise=0)
    sae = usae.UniversalSAE(25, 4, recipe=usae.recipes.default(scale="dimension"), n_threads=1).initialize(WIDTHS)
    for name, width in WIDTHS.items():
        scale = np.geomspace(0.01, 100, width)
        sae.set_parameters(name, {"scale": scale, "dictionary": truth.dictionaries[name] / scale + 1e-30})
    dictionary = sae.dictionary("a")
    true = truth.dictionaries["a"][0] / np.linalg.norm(truth.dictionaries["a"][0])
    assert abs(true @ dictionary[0]) < 0.9
    assert synthetic.score(sae, truth).dictionary_recovered.all()


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    [([1, 1], [0, 0], 1), ([0], [1], 0), ([0.5], [0.5], 0.5), ([1, 0], [0], 0.75), ([], [1], None), ([1], [np.nan], None)],
)
def test_auroc_counts_pairs_and_half_of_the_ties(higher, lower, expected):
    from usae.synthetic._recovery import _auroc

    result = _auroc(np.array(higher, float), np.array(lower, float))
    assert np.isnan(result) if expected is None else result == expected


def test_the_dictionary_form_is_json_and_the_summary_has_a_row_for_each_kind():
    truth = small(noise=0)
    score = synthetic.score(Oracle(truth), truth)
    read = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert read["universally_recovered"] == 1 and read["r2_off_diagonal"] is None
    assert read["kinds"]["in several"]["concepts"] == 6
    lines = score.summary().splitlines()
    assert [line.split("  ")[0] for line in lines[2:6]] == ["in all models", "in several", "in one model", "all"]
    assert len({len(line) for line in lines[1:6]}) == 1 and max(map(len, lines)) < 120
    assert "AUROC 1.000" in lines[-2]


def test_one_model_alone_can_be_scored():
    truth = small({"a": 30}, noise=0)
    score = synthetic.score(DecodingOracle(truth), truth)
    assert score.universally_recovered == 1 and score.shared.all() and not score.private.any()
    assert np.isnan(score.entropy_auroc) and np.isnan(score.r2_off_diagonal) and score.r2_diagonal > 0.999


# --- The ceiling -----------------------------------------------------------------------------------------------------------


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


# --- Errors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(widths=[3]), "widths must be a mapping from model names to integers"),
        (dict(widths={"a": 0}), r"widths\['a'\] must be an integer from 1 to"),
        (dict(widths={}), "widths must hold at least one model"),
        (dict(n_tokens=1), "n_tokens must be an integer from 2 to .*got 1"),
        (dict(n_shared=-1), "n_shared must be an integer from 0"),
        (dict(n_shared=0, n_pairwise=0, n_private=0), "must leave at least one concept"),
        (dict(noise=-0.1), "noise must be a finite share"),
        (dict(noise=float("nan")), "noise must be a finite share"),
        (dict(correlation=1.0), "correlation must be a number at least 0 and below 1, got 1.0"),
        (dict(frequency=0), "frequency must be a number above 0 and at most 1, got 0"),
        (dict(private_frequency=1.5), "private_frequency must be a number above 0 and at most 1"),
        (dict(shape=0), "shape must be a number above 0"),
        (dict(scale_spread="wide"), "scale_spread must be a number above 0 .*got 'wide'"),
        (dict(group_size=0), "group_size must be an integer from 1"),
        (dict(seed=-1), "seed must be an integer from 0"),
    ],
)
def test_arguments_of_a_world_that_cannot_be_are_refused(changes, message):
    with pytest.raises(usae.InvalidInputError, match=message):
        small(**changes)


def test_what_cannot_be_scored_is_refused_with_the_reason():
    truth, other = small(noise=0), small({"a": 31, "b": 36, "c": 40}, noise=0)
    oracle = Oracle(truth)
    for call, message in [
        (lambda: synthetic.score(oracle, None), "truth must be what usae.synthetic.universal returns, got NoneType"),
        (lambda: synthetic.score(None, truth), "sae must have encode.*got NoneType without encode"),
        (lambda: synthetic.score(oracle, truth, cosine=1.1), "cosine must be a number from 0 to 1, got 1.1"),
        (lambda: synthetic.score(oracle, truth, f1=None), "f1 must be a number from 0 to 1, got None"),
        (lambda: synthetic.score(oracle, truth, truth.acts), "held_out must be what truth.sample returns"),
        (lambda: synthetic.score(oracle, truth, other.sample(9)), "held_out must be of the same world as truth"),
        (lambda: synthetic.score(oracle, other), r"the dictionary of model 'a' must be \[n_concepts, 31\]"),
        (lambda: truth.sample(0), "n_tokens must be an integer from 1"),
        (lambda: synthetic.supervised(None, 3), "truth must be what usae.synthetic.universal returns"),
        (lambda: synthetic.ceiling(truth, 0), "k must be an integer from 1"),
        (lambda: synthetic.supervised(truth, 3, steps=-1), "steps must be an integer from 0"),
        (lambda: synthetic.supervised(truth, 3, steps=0).dictionary("d"), "unknown model 'd'"),
        (lambda: synthetic.supervised(truth, 3, steps=0).dictionary("a", "standardized"), 'units must be "model"'),
        (lambda: synthetic.supervised(truth, 3, steps=0).encode(np.ones((2, 3)), "a"), "x must have 30 columns"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            call()


def test_scoring_changes_neither_the_world_nor_the_tokens():
    truth = small(noise=0)
    held_out = truth.sample(300)
    before = {name: x.copy() for name, x in held_out.acts.items()}
    codes = scipy.sparse.csr_array(held_out.codes, copy=True)
    synthetic.score(DecodingOracle(truth), truth, held_out)
    assert all(np.array_equal(x, before[name]) for name, x in held_out.acts.items())
    assert (held_out.codes != codes).nnz == 0
