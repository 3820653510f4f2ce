"""How many of the known concepts were found."""

import json

import numpy as np
import pytest
import scipy.sparse

import usae
from support.autoencoders import RECIPE
from support.refusals import refuses
from support.worlds import WIDTHS, DecodingOracle, Oracle, small
from usae import synthetic

pytestmark = pytest.mark.slow

# --- The score --------------------------------------------------------------------------------------------------------


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


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_refused_with_the_reason():
    truth, other = small(noise=0), small({"a": 31, "b": 36, "c": 40}, noise=0)
    oracle = Oracle(truth)
    for call, argument, got in [
        (lambda: synthetic.score(oracle, None), "truth", "NoneType"),
        (lambda: synthetic.score(None, truth), "sae", "NoneType without encode"),
        (lambda: synthetic.score(oracle, truth, cosine=1.1), "cosine", "1.1"),
        (lambda: synthetic.score(oracle, truth, f1=None), "f1", "None"),
        (lambda: synthetic.score(oracle, truth, truth.acts), "held_out", "dict"),
        (lambda: synthetic.score(oracle, truth, other.sample(9)), "held_out", "25 and {'a': 31, 'b': 36, 'c': 40}"),
        (lambda: synthetic.score(oracle, other), "sae", "[25, 30]"),
        (lambda: truth.sample(0), "n_tokens", "0"),
        (lambda: synthetic.supervised(None, 3), "truth", "NoneType"),
        (lambda: synthetic.ceiling(truth, 0), "k", "0"),
        (lambda: synthetic.supervised(truth, 3, steps=-1), "steps", "-1"),
        (lambda: synthetic.supervised(truth, 3, steps=0).dictionary("d"), "model", ""),
        (
            lambda: synthetic.supervised(truth, 3, steps=0).dictionary("a", "standardized"),
            "units",
            "'standardized'",
        ),
        (lambda: synthetic.supervised(truth, 3, steps=0).encode(np.ones((2, 3)), "a"), "x", "shape [2, 3]"),
    ]:
        with refuses(argument, got):
            call()


def test_scoring_changes_neither_the_world_nor_the_tokens():
    truth = small(noise=0)
    held_out = truth.sample(300)
    before = {name: x.copy() for name, x in held_out.acts.items()}
    codes = scipy.sparse.csr_array(held_out.codes, copy=True)
    synthetic.score(DecodingOracle(truth), truth, held_out)
    assert all(np.array_equal(x, before[name]) for name, x in held_out.acts.items())
    assert (held_out.codes != codes).nnz == 0
