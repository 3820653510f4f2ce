"""`Evaluation.universal`, and the co-fire proportion that every summary reports."""

import json
import pickle
import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

import usae
from support.autoencoders import RECIPE, identity_sae
from support.refusals import refuses
from usae.analysis import cofiring
from usae.cli.evaluate import _report

pytestmark = pytest.mark.slow

N = 4000
RATES = {"shared": 0.05, "half shared": 0.05, "apart": 0.05, "dense apart": 0.6, "dense shared": 0.6}


def fires(rng, n_models, n_tokens=N):
    """Where known concepts fire, bool [M, N, m], and their names.

    In each model: shared concepts, and those that are shared half of the time; those that fire as often but apart; three tokens
    that are shared; one fires in one model only, one in all but the last, one unevenly, one never.
    """
    names, columns = [], []
    for name, rate in RATES.items():
        common = rng.random(n_tokens) < rate
        own = rng.random((n_models, n_tokens)) < rate
        together = {"shared": 0.9, "half shared": 0.5, "dense shared": 0.9}.get(name, 0)
        columns.append(np.where(rng.random((n_models, n_tokens)) < together, common, own))
        names.append(name)
    one = np.zeros((n_models, n_tokens), bool)
    one[0] = rng.random(n_tokens) < 0.05
    most = np.repeat(rng.random((1, n_tokens)) < 0.05, n_models, 0)
    most[-1] = False
    uneven = np.repeat(rng.random((1, n_tokens)) < 0.3, n_models, 0)
    uneven[1:] &= np.arange(n_tokens) % 30 == 0
    rare, never = np.zeros((2, n_models, n_tokens), bool)
    rare[:, rng.permutation(n_tokens)[:3]] = True
    return np.stack([*columns, one, most, uneven, rare, never], -1), [*names, "private", "of most", "uneven", "rare", "dead"]


def evaluated(firing, shape=None):
    acts = {name: x.astype(np.float32).reshape(*(shape or (len(x),)), -1) for name, x in zip("abcdef", firing, strict=False)}
    sae = identity_sae(firing.shape[-1], list(acts), firing.shape[-1])
    return sae, acts, sae.evaluate(acts)


@pytest.mark.parametrize("n_models", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_concepts_that_are_known_to_be_shared_are_universal_and_no_others(n_models, seed):
    firing, names = fires(np.random.default_rng([n_models, seed]), n_models)
    evaluation = evaluated(firing)[2]
    found = {names[c] for c in np.flatnonzero(evaluation.universal())}
    assert found == {"shared", "half shared", "dense shared", "rare"}  # three tokens of 4,000 that are the same are no chance
    # Entropy alone would have called these universal.
    even = {names[c] for c in np.flatnonzero(evaluation.firing_entropy >= 0.9)}
    assert {"apart", "dense apart"} <= even
    half = {names[c] for c in np.flatnonzero(evaluation.universal(share=0.5))}
    assert "half shared" not in half and {"shared", "dense shared"} <= half
    assert "uneven" in {names[c] for c in np.flatnonzero(evaluation.universal(share=0, entropy=0))}


@pytest.mark.parametrize("n_models", [2, 3])
def test_by_chance_at_most_one_concept_in_twenty_evaluations_is_universal(n_models):
    rng = np.random.default_rng(n_models)
    called = 0
    for _ in range(40):
        rates = rng.choice([0.002, 0.02, 0.2, 0.7], 200)
        firing = rng.random((n_models, 1000, 200)) < rates
        called += evaluated(firing)[2].universal(share=0).any()
    assert called <= 4  # of 40 with probability .05 or less each, 5 or more come in fewer than 5 % of the runs


@hypothesis.given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), min_size=2, max_size=5)))
)
def test_the_p_value_is_never_smaller_than_the_exact_probability(given):
    n, firing = given
    distribution = np.zeros(n + 1)  # of co-fires: that of the first model alone, then hypergeometric in each further one
    distribution[firing[0]] = 1
    for other in firing[1:]:
        counts = np.arange(n + 1)
        distribution = distribution @ scipy.stats.hypergeom.pmf(counts[None], n, counts[:, None], other)
    for cofires in range(min(firing) + 1):
        bound = np.exp(cofiring.log_cofire_p_values(np.array(firing)[:, None], np.array([cofires]), n))[0]
        assert bound >= distribution[cofires:].sum() * (1 - 1e-9) and bound <= 1


def test_p_values_by_hand_and_at_the_ends():
    def p(firing, cofires, n):
        return np.exp(cofiring.log_cofire_p_values(np.array(firing)[:, None], np.array([cofires]), n))[0]

    # Both fire in 2 of 4 tokens, together in both: given the first's, the bound is (2 / 4)^2; exactly it is 1 / 6.
    assert p([2, 2], 2, 4) == pytest.approx(1 / 4)
    # 10 and 20 of 100, 6 together: exp(-10 KL(.6 || .2)) is below exp(-20 KL(.3 || .1)), by half.
    assert p([10, 20], 6, 100) == pytest.approx(np.exp(-10 * (0.6 * np.log(3) + 0.4 * np.log(0.5))))
    assert p([10, 20], 2, 100) == p([10, 20], 0, 100) == 1  # not above what is expected
    assert p([100, 100], 100, 100) == p([7, 100], 7, 100) == 1  # cannot be otherwise
    assert np.isnan(p([0, 3], 0, 100))
    assert p([1, 1], 1, 100) == pytest.approx(1 / 100)
    assert p([10**9] * 3, 10**9, 10**12) == 0  # too small for float64


def test_one_model_shares_nothing():
    firing, _ = fires(np.random.default_rng(0), 2)
    evaluation = evaluated(firing[:1])[2]
    with refuses("evaluation", "one"):
        evaluation.universal()
    assert "universal" not in evaluation.summary()
    assert evaluation.cofire_p_value[0] == 1  # all its firing is co-firing, which is no wonder


@pytest.mark.parametrize(
    ("argument", "value"),
    [("share", -0.1), ("share", 1.1), ("share", "0.1"), ("share", np.nan), ("entropy", 2), ("entropy", None)]
    + [("error_rate", 0), ("error_rate", 1), ("error_rate", True), ("null", 0.5), ("null", "images")],
)
def test_arguments_out_of_range_are_refused(argument, value):
    evaluation = evaluated(fires(np.random.default_rng(0), 2)[0])[2]
    with refuses(argument):
        evaluation.universal(**{argument: value})


def test_too_few_tokens_are_told_in_words_and_as_a_warning():
    firing, _ = fires(np.random.default_rng(0), 2)
    evaluation = evaluated(firing[:, :6])[2]
    with pytest.warns(UserWarning, match="6 tokens"):
        assert not evaluation.universal().any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = evaluation.summary().splitlines()
        told = _report(evaluation)
    alive = int((~evaluation.dead).all(0).sum())
    assert any(line.startswith(f"{alive} of the {alive} concepts") for line in lines)
    assert told["concepts_universal"] == 0 and told["concepts_too_rare_to_tell"] == alive
    several = evaluated(firing)[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several.universal()
        # Nothing is alive in both: there is nothing that more rows would tell.
        assert not evaluated(np.stack([firing[0] & [True, False] * 5, firing[1] & [False, True] * 5]))[2].universal().any()


def shuffled_images(rng, firing, n_images):
    """The same firing with the images of each model in another order."""
    images = firing.reshape(len(firing), n_images, -1, firing.shape[-1])
    return np.stack([x[rng.permutation(n_images)] for x in images]).reshape(firing.shape)


def test_tokens_of_an_image_that_are_alike_need_the_null_of_images():
    # All 25 tokens of an image fire alike, so 200 images are 200 observations, not 5,000.
    rng = np.random.default_rng(0)
    by_image = rng.random((2, 200, 100)) < 0.3
    by_image[1, :, 0] = by_image[0, :, 0]
    firing = np.repeat(by_image, 25, axis=1)
    sae, acts, evaluation = evaluated(firing, (200, 25))
    null = usae.controls(sae, acts, include=["images"], n_permutations=100, progress=False).images
    assert np.flatnonzero(evaluation.universal(null=null)).tolist() == [0]
    assert evaluation.universal().sum() > 5  # as its docstring says: rows are taken as independent
    # Shuffled, nothing is left, in all but .05 of the cases.
    called = 0
    for _ in range(10):
        sae, acts, evaluation = evaluated(shuffled_images(rng, firing, 200), (200, 25))
        null = usae.controls(sae, acts, include=["images"], n_permutations=50, progress=False).images
        called += evaluation.universal(share=0, null=null).any()
    assert called <= 2


def test_a_concept_of_one_place_in_all_images_is_not_universal_by_the_null_of_images():
    rng = np.random.default_rng(0)
    place = np.zeros((100, 9, 3), bool)
    place[:, 4, 0] = True
    place[rng.random(100) < 0.5, 3, 1] = True
    place[..., 2] = rng.random((100, 9)) < 0.1
    firing = np.stack([place.reshape(900, 3)] * 2)
    sae, acts, evaluation = evaluated(firing, (100, 9))
    null = usae.controls(sae, acts, include=["images"], progress=False).images
    assert evaluation.universal().tolist() == [True, True, True]
    assert evaluation.universal(null=null).tolist() == [False, True, True]


def test_a_null_that_says_nothing_of_this_evaluation_is_refused():
    firing, _ = fires(np.random.default_rng(0), 2)
    sae, acts, evaluation = evaluated(firing, (40, 100))
    result = usae.controls(sae, acts, include=["tokens", "images", "concepts"], n_permutations=18, progress=False)
    assert np.array_equal(evaluation.universal(null=result.tokens), evaluation.universal())
    with refuses("null", "18", "n_permutations"):
        evaluation.universal(null=result.images)
    assert evaluation.universal(null=result.images, error_rate=0.1).any()  # 10 draws are enough
    with refuses("null", "concepts", "usae.controls"):
        evaluation.universal(null=result.concepts)
    other = evaluated(fires(np.random.default_rng(1), 2)[0])[2]
    with refuses("null", "one with other co-fires"):
        other.universal(null=result.images)
    assert "universal" in result.summary()


def test_the_share_of_draws_is_counted_with_the_observation_among_them():
    draws = -np.arange(1.0, 20)  # 19 draws: only what is below all of them is one of 20
    limit = cofiring.log_limit_of_draws(draws, 0.05)
    assert -19 > limit > -19.001 and cofiring.log_limit_of_draws(draws[:18], 0.05) == -np.inf
    assert cofiring.log_limit_of_draws(-np.arange(1.0, 40), 0.05) == np.nextafter(-38, -np.inf)


# --- One meaning everywhere -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide():
    """More concepts than those over which co-fire proportions are averaged, some of which never fire."""
    rng = np.random.default_rng(0)
    rates, together = np.geomspace(0.3, 0.02, 1100), np.where(np.arange(1100) < 900, 0.7, 0.1)
    common = rng.random((600, 1100)) < rates
    firing = np.stack([np.where(rng.random((600, 1100)) < together, common, rng.random((600, 1100)) < rates) for _ in range(2)])
    firing[:, :, ::50] = False
    sae, acts, evaluation = evaluated(firing, (60, 10))
    return evaluation, usae.controls(sae, acts, include=["tokens", "images", "concepts"], progress=False, n_permutations=20)


def test_every_summary_has_the_same_co_fire_proportion(wide):
    plt = pytest.importorskip("matplotlib.pyplot")
    evaluation, result = wide
    proportion = evaluation.mean_cofire_proportion()
    assert not np.allclose(proportion, np.nanmean(evaluation.cofire_proportion, 1), rtol=0.01)  # of all concepts it is another
    for null in (result.tokens, result.images, result.concepts):
        assert np.array_equal(null.proportion, proportion)
    assert result.table()["this autoencoder"]["cofire_proportion"] == proportion.mean()
    assert np.array_equal(_report(evaluation)["mean_cofire_proportion"], proportion)
    cells = [line.split()[-2:] for line in evaluation.summary().splitlines() if line.startswith("co-fire proportion  ")]
    assert cells == [[f"{value:.3f}" for value in proportion]]
    legend = usae.plot.cofire_proportion(evaluation, null=result.tokens).get_legend().get_texts()
    told = [text.get_text().split()[-1] for text in legend]
    assert told == [f"{value:.2f}" for value in [*proportion, *result.tokens.proportion_mean]]
    plt.close("all")


def test_nulls_average_over_the_same_concepts(wide):
    evaluation, result = wide
    for null in (result.tokens, result.images):
        order = np.argsort(-evaluation.energy, axis=1, kind="stable")[:, :1000]
        with np.errstate(invalid="ignore"):
            shares = np.take_along_axis(null.mean / evaluation.firing_counts, order, 1)
        assert null.proportion_mean == pytest.approx(np.nanmean(shares, 1), rel=0.02)  # one is exact, the other of 1,000 draws


def test_weights_give_the_mean_proportion(wide):
    evaluation, _ = wide
    factors = cofiring.weights(evaluation.firing_counts, evaluation.energy)
    assert factors @ evaluation.cofire_counts == pytest.approx(evaluation.mean_cofire_proportion(), rel=1e-12)
    assert np.isnan(cofiring.weights(np.array([[0, 0], [1, 0]]), np.zeros((2, 2)))).tolist() == [[True, True], [False, False]]


def test_controls_of_a_model_that_never_fires_say_so_and_are_json():
    firing = np.random.default_rng(0).random((3, 400, 5)) < 0.2
    firing[2] = False
    sae, acts, _ = evaluated(firing, (100, 4))
    result = usae.controls(sae, acts, include=["tokens", "images", "concepts"], n_permutations=20, progress=False)
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.table()["this autoencoder"]["cofire_proportion"] == 0 and result.table()["this autoencoder"]["universal"] == 0
    assert np.isnan(result.tokens.proportion).tolist() == [False, False, True] and "nan" not in result.summary().split("R2")[0]
    repr(result.images)


def test_the_same_concepts_are_universal_in_every_place(wide, tmp_path):
    for needed in ("pandas", "matplotlib", "skimage"):
        pytest.importorskip(needed)
    from usae.cli import evaluate as command
    from usae.demo.concepts import universal_concepts

    evaluation, result = wide
    universal = evaluation.universal()
    assert 0 < universal.sum() < 1000
    frame = evaluation.to_frame()
    assert frame["universal"].dtype == bool and np.array_equal(frame["universal"], universal)
    assert np.array_equal(frame["cofire_p_value"], evaluation.cofire_p_value, equal_nan=True)
    assert any(line.startswith(f"{universal.sum():,} concepts universal") for line in evaluation.summary().splitlines())
    assert command._report(evaluation)["concepts_universal"] == universal.sum()
    assert command._report(evaluation)["concepts_too_rare_to_tell"] == 1  # it fires in few tokens of one model
    command._write_numbers(evaluation, tmp_path)
    with np.load(tmp_path / "evaluation.npz") as arrays:
        assert np.array_equal(arrays["universal"], universal)
    assert sorted(universal_concepts(evaluation, 2000)) == np.flatnonzero(universal).tolist()
    assert result.table()["this autoencoder"]["universal"] == universal.mean()
    axes = usae.plot.firing_entropy(evaluation)
    assert f"{universal.sum():,} universal" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_evaluations_and_nulls_of_before_still_load(wide):
    evaluation, result = wide
    read = usae.Evaluation(**json.loads(json.dumps(evaluation.to_dict())))  # lists, as JSON has them
    again = usae.Evaluation(**{name: np.asarray(value) for name, value in vars(read).items()})
    assert np.array_equal(again.universal(), evaluation.universal())
    state = dict(vars(result.images))
    del state["smallest_log_p"]  # what earlier versions did not have
    old = usae.CofireNull.__new__(usae.CofireNull)
    old.__dict__.update(state)
    old = pickle.loads(pickle.dumps(old))
    assert old.share_above == result.images.share_above and old.to_dict()["smallest_log_p"] is None
    with refuses("null", remedy="usae.controls"):
        evaluation.universal(null=old)


def test_shuffled_pairs_have_about_no_universal_concepts(acts, held_out):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=1).fit(acts, steps=300)
    result = usae.controls(sae, held_out, train=acts, include=["shuffled"], progress=False)
    table = result.table()
    assert table["this autoencoder"]["universal"] > 0.3
    # One of 32 in twenty would be a chance.
    assert (
        table["trained on shuffled pairs"]["universal"] <= 1 / 32
        and table["the same, on shuffled pairs"]["universal"] <= 1 / 32
    )
