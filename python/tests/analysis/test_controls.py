import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model

import usae
from support.autoencoders import RECIPE, WIDTHS, identity_sae, planted
from support.refusals import refuses
from usae._data.activations import as_aligned
from usae.analysis import baselines, nulls

pytestmark = pytest.mark.slow


def codes(rng, n_tokens, rates):
    """float32 [n_tokens, concepts]: 1 where a concept fires."""
    return (rng.random((n_tokens, len(rates))) < rates).astype(np.float32)


def counts(dense):
    fires = np.stack([x > 0 for x in dense])
    return fires.sum(1), fires.all(0).sum(0)


def null(dense, **changes):
    options = {"level": 0.95, "n_draws": 2000, "seed": 0, "progress": False} | changes
    options["energy"] = np.square(np.mean(dense, 1))
    return nulls.tokens_null(*counts(dense), len(dense[0]), **options)


# --- Tokens permuted -------------------------------------------------------------------------------------------------------


def test_four_tokens_by_hand():
    # Model a fires in tokens 0 and 1, b in 0 and 1 as well. Of the 6 places b's two can have, 1 hits both, 4 hit one, 1 none.
    result = null([np.array([[1], [1], [0], [0]])] * 2)
    assert result.observed.tolist() == [2] and result.mean.tolist() == [1]
    assert result.p_value == pytest.approx([1 / 6])
    assert (result.low.tolist(), result.high.tolist()) == ([0], [2])
    assert result.z == pytest.approx([1 / np.sqrt(1 / 3)])  # variance (1 + 0 + 1) / 6
    assert result.proportion.tolist() == [1, 1]
    assert result.share_above == 0 == result.above_by_chance
    # 4/6 of the time the share is 1/2; the standard error of 2,000 draws is sqrt(1/3)/2/sqrt(2000) = .0065.
    assert result.proportion_mean == pytest.approx([0.5, 0.5], abs=0.03)


@pytest.mark.parametrize("n_models", [2, 3, 4])
def test_distributions_are_those_of_explicit_permutations(n_models):
    rng = np.random.default_rng(n_models)
    dense = [codes(rng, 60, [0.2, 0.5, 0.8]) for _ in range(n_models)]
    result = null(dense, n_draws=4000)
    drawn = np.empty((4000, 3), int)
    for draw in drawn:
        draw[:] = np.logical_and.reduce([x[rng.permutation(60)] > 0 for x in dense]).sum(0)
    # Standard errors of 4,000 draws, four of them.
    assert np.all(np.abs(result.mean - drawn.mean(0)) < 4 * drawn.std(0) / np.sqrt(4000))
    deviation = (result.observed - result.mean) / result.z
    assert deviation == pytest.approx(drawn.std(0), rel=4 / np.sqrt(2 * 4000) + 0.01)
    share = (drawn >= result.observed).mean(0)
    assert np.all(np.abs(result.p_value - share) < 4 * np.sqrt(2 * share * (1 - share) / 4000) + 1e-3)
    for limit, q in ((result.low, 0.025), (result.high, 0.975)):
        assert np.all((drawn < limit).mean(0) < q + 0.012) and np.all((drawn <= limit).mean(0) > q - 0.012)


def test_two_models_are_exact_and_agree_with_fisher():
    dense = [codes(np.random.default_rng(i), 200, [0.1, 0.3, 0.02]) for i in range(2)]
    result = null(dense)
    for k in range(3):
        a, b = dense[0][:, k] > 0, dense[1][:, k] > 0
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert result.p_value[k] == pytest.approx(scipy.stats.fisher_exact(table, alternative="greater").pvalue)


@pytest.mark.parametrize("n_models", [2, 3])
def test_independent_codes_give_uniform_p_values_and_shared_ones_are_rejected(n_models):
    rng = np.random.default_rng(5)
    rates = np.full(400, 0.3)
    independent = [codes(rng, 2000, rates) for _ in range(n_models)]
    result = null(independent)
    # p-values of counts are a little larger than uniform; with a standard deviation of 14 or more co-fires, by 3 % at most.
    assert scipy.stats.kstest(result.p_value, "uniform").pvalue > 0.01
    # 400 concepts: standard error of a share of 2.5 % is .8 %.
    assert result.share_above < 0.05 and result.above_by_chance < 0.027
    assert np.abs(result.z).max() < 5 and abs(result.z.std() - 1) < 0.15

    common = codes(rng, 2000, rates)
    shared = [np.where(rng.random(common.shape) < 0.8, common, codes(rng, 2000, rates)) for _ in range(n_models)]
    result = null(shared)
    assert result.share_above == 1 and result.p_value.max() < 1e-3 and result.z.min() > 5
    assert np.all(result.proportion > result.proportion_high)


def test_a_concept_that_is_silent_in_a_model_has_no_null():
    dense = [np.array([[1, 1, 0], [1, 0, 0]]), np.array([[0, 1, 0], [0, 1, 0]])]
    result = null(dense)
    for values in (result.mean, result.low, result.high, result.z, result.p_value):
        assert np.isnan(values).tolist() == [True, False, True]
    assert result.proportion.tolist() == [0.5, 0.5]  # model a: concepts 0 and 1 with 0 and 1; model b: concept 1 with 1/2
    json.dumps(result.to_dict(), allow_nan=False)


# --- Images and concepts permuted ------------------------------------------------------------------------------------------


def run(dense, **options):
    acts = {name: x for name, x in zip("abc", dense, strict=False)}
    sae = identity_sae(dense[0].shape[-1], list(acts), dense[0].shape[-1])
    return usae.controls(sae, acts, n_permutations=options.pop("n_permutations", 200), progress=False, **options)


def test_permuting_images_of_one_token_is_permuting_tokens():
    rng = np.random.default_rng(0)
    dense = [codes(rng, 300, [0.2, 0.4, 0.6, 0.3]) for _ in range(3)]
    result = run(dense, include=["tokens", "images"], tokens_per_image=1, n_permutations=1000)
    spread = (result.tokens.observed - result.tokens.mean) / result.tokens.z
    assert np.all(np.abs(result.images.mean - result.tokens.mean) < 4 * spread / np.sqrt(1000))
    assert np.all(np.abs(result.images.low - result.tokens.low) <= 1) and np.all(
        np.abs(result.images.high - result.tokens.high) <= 1
    )
    assert np.allclose(result.images.proportion_mean, result.tokens.proportion_mean, rtol=0.02)


def test_tokens_of_an_image_stay_together_and_widen_the_band():
    rng = np.random.default_rng(1)
    dense = [np.repeat(codes(rng, 50, np.full(30, 0.3)), 16, axis=0).reshape(50, 16, 30) for _ in range(2)]
    result = run(dense, include=["tokens", "images"])
    # All 16 tokens of an image fire together: as if there were a sixteenth of the tokens, the band is 4 times as wide.
    widths = [null.high - null.low for null in (result.images, result.tokens)]
    assert np.median(widths[0] / widths[1]) == pytest.approx(4, rel=0.25)
    assert np.all(result.images.high % 16 == 0)
    assert result.images.share_above <= 0.15 < result.tokens.share_above  # the tokens are not independent, and it shows


def test_places_in_the_image_are_kept_when_images_are_permuted():
    place = np.zeros((40, 9, 2), np.float32)
    place[:, 0, 0] = place[:, 4, 1] = 1  # concepts of a place, in every image
    result = run([place, place], include=["tokens", "images"])
    assert result.images.mean.tolist() == result.images.observed.tolist() == [40, 40]
    assert result.images.z.tolist() == [0, 0] and result.images.p_value.tolist() == [1, 1]
    assert result.tokens.p_value.max() < 1e-10


def test_concepts_permuted_are_counted_as_by_hand():
    # Two concepts, so a permutation swaps or does not: 0 co-fires with itself in 3 tokens, with the other concept in 1.
    a = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    b = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]], np.float32)
    result = run([a, b], include=["concepts"], n_permutations=400).concepts
    assert result.observed.tolist() == [3, 2]
    # Swapped: concept 0 of a with 1 of b in token 2, concept 1 of a with 0 of b in none. Half the draws: errors of 2 in 20.
    assert result.mean == pytest.approx([2, 1], abs=0.2)
    assert (result.low.tolist(), result.high.tolist()) == ([1, 0], [3, 2])
    assert result.p_value == pytest.approx([0.5, 0.5], abs=0.1)


def test_concepts_permuted_agree_with_explicit_permutations_over_chunks(monkeypatch):
    rng = np.random.default_rng(2)
    dense = [codes(rng, 500, rng.uniform(0.05, 0.5, 40)) for _ in range(3)]
    whole = run(dense, include=["concepts"], n_permutations=50).concepts
    monkeypatch.setattr("usae._data.chunks.chunks.__defaults__", (1, 64))
    monkeypatch.setattr("usae._data.chunks.n_chunks.__defaults__", (1, 64))
    parts = run(dense, include=["concepts"], n_permutations=50).concepts
    assert whole.to_dict() == parts.to_dict()
    drawn = np.stack([
        np.logical_and.reduce([dense[0] > 0, *(x[:, rng.permutation(40)] > 0 for x in dense[1:])]).sum(0) for _ in range(400)
    ])  # fmt: skip
    # 40 concepts are one stratum, so any may meet any. Four standard errors of the difference of the two means.
    assert np.all(np.abs(whole.mean - drawn.mean(0)) < 4 * drawn.std(0) * np.sqrt(1 / 50 + 1 / 400) + 0.5)


def test_concepts_are_permuted_among_those_that_fire_about_as_often():
    counts = np.r_[0, np.random.default_rng(0).permutation(np.arange(1, 641)), 0]
    new = nulls._permuted_among_neighbours(counts, np.random.default_rng(1))
    assert sorted(new) == list(range(642)) and new[0] == 0 and new[-1] == 641
    assert np.abs(counts[new] - counts).max() < 64 and np.mean(new == np.arange(642)) < 0.1


# --- Baselines --------------------------------------------------------------------------------------------------------------


def test_the_linear_baseline_is_ridge_regression(acts, held_out):
    train, test = (as_aligned(x, "acts") for x in (acts, held_out))
    result = baselines.linear_baseline(test, train, False, np.array([1e-3]))
    assert result.penalty.tolist() == [[1e-3] * 3] * 3
    for i, source in enumerate(WIDTHS):
        x = acts[source].astype(float)
        unit = np.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0))).mean()
        for j, target in enumerate(WIDTHS):
            y = held_out[target].astype(float)
            model = sklearn.linear_model.Ridge(alpha=1e-3 * unit, solver="cholesky").fit(x, acts[target].astype(float))
            expected = 1 - ((model.predict(held_out[source].astype(float)) - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
            # Sums of products in float64 lose what they have in front of a residual: 1e-16 times 1e3 rows.
            assert result.r2[i, j] == pytest.approx(expected, abs=1e-9)


def test_the_penalty_is_the_one_that_predicts_other_training_rows_best():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 40))
    y = x[:, :5] + 3 * rng.standard_normal((60, 5))  # few rows, much noise: without a penalty worse than the mean
    train = as_aligned({"x": x, "y": y}, "train")
    new = rng.standard_normal((2000, 40))
    test = as_aligned({"x": new, "y": new[:, :5] + 3 * rng.standard_normal((2000, 5))}, "acts")
    chosen = baselines.linear_baseline(test, train, False)
    for (source, target), linear in baselines.linear_maps(train, False).items():
        x, y = (test[name].array.astype(float) for name in (source, target))
        error = np.square((x - linear.source_mean) @ linear.weights + linear.target_mean - y).sum()
        i, j = list(train).index(source), list(train).index(target)
        assert 1 - error / np.square(y - y.mean(0)).sum() == pytest.approx(chosen.r2[i, j], abs=1e-9)
    none = baselines.linear_baseline(test, train, False, np.array([1e-7]))
    assert chosen.penalty[0, 1] > 0.01 and chosen.penalty[0, 0] < 1e-5
    assert none.r2[0, 1] < -0.3 < -0.15 < chosen.r2[0, 1]
    assert chosen.r2[0, 0] == pytest.approx(1, abs=1e-4)


def test_images_lie_on_one_side_of_the_split_and_constant_dimensions_do_no_harm():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((12, 5, 3)), np.ones((12, 5, 1))], axis=2)
    acts = as_aligned({"a": x, "b": x[..., :2].copy()}, "acts")
    result = baselines.linear_baseline(acts, acts, False)
    assert result.r2[0] == pytest.approx(1, abs=1e-6) and np.isfinite(result.r2).all()


def test_training_with_one_order_for_all_models_is_fit(acts, trained):
    sae = baselines.before_training(trained, as_aligned(acts, "train"), None, 3)
    baselines.train_in_orders(sae, as_aligned(acts, "train"), [3, 3, 3], 60, False, "training")
    for name in WIDTHS:
        for tensor, values in trained.parameters(name).items():
            assert np.array_equal(sae.parameters(name)[tensor], values)


def test_shuffled_pairs_teach_each_model_but_nothing_across(acts, held_out):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=1).fit(acts, steps=300)
    result = usae.controls(sae, held_out, train=acts, include=["shuffled", "initial", "random"], progress=False)
    off = ~np.eye(3, dtype=bool)
    ours, paired, apart = result.evaluation, result.shuffled.paired, result.shuffled.shuffled
    assert np.diag(paired.r2).min() > 0.4 and paired.r2[off].max() < 0.2 < ours.r2[off].min()
    assert apart.r2[off].max() < 0.2 and np.allclose(np.diag(apart.r2), np.diag(paired.r2))  # the same 200 rows each
    assert np.array_equal(apart.firing_counts, paired.firing_counts)
    table = result.table()
    assert table["trained on shuffled pairs"]["cofire_proportion"] < 0.5 * table["this autoencoder"]["cofire_proportion"]
    assert table["random"]["r2_other"] < 0 and table["before training"]["r2_same"] < table["this autoencoder"]["r2_same"]
    assert result.shuffled.sae.n_steps_ == 300 and result.shuffled.sae.recipe_ == sae.recipe_


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
def test_all_controls_together_repeat_for_a_seed_and_change_nothing(acts, held_out, encoder):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(encoder=encoder), seed=3).fit(acts, steps=20)
    shaped = {name: x.reshape(50, 4, -1) for name, x in held_out.items()}
    before = {name: sae.parameters(name) for name in WIDTHS}
    options = {"train": acts, "n_draws": 50, "n_permutations": 10, "progress": False}
    first, again = (usae.controls(sae, shaped, seed=1, **options) for _ in range(2))
    other = usae.controls(sae, shaped, seed=2, **options)
    assert first.to_dict() == again.to_dict()
    for name in ("tokens", "images", "concepts"):
        assert not np.array_equal(getattr(first, name).proportion_mean, getattr(other, name).proportion_mean)
    assert not np.array_equal(first.shuffled.paired.r2, other.shuffled.paired.r2)
    assert all(np.array_equal(sae.parameters(name)[tensor], v) for name in WIDTHS for tensor, v in before[name].items())
    json.dumps(first.to_dict(), allow_nan=False)
    text = first.summary()
    for row in ("this autoencoder", "trained on shuffled pairs", "images permuted", "ridge regression", "two seeds"):
        assert row in text
    assert len(first.seeds.independent.models) == len(first.consistency.models) == 3
    assert max(first.seeds.independent[name].mean for name in WIDTHS) < 0.999  # not the same seed twice


def test_what_is_given_is_not_trained_again(trained, acts, held_out):
    independent = usae.fit_independent(acts, like=trained, steps=5)
    alone = usae.controls(trained, held_out, independent=independent, include=[])
    assert alone.consistency.to_dict() == usae.consistency(trained, independent).to_dict()
    assert alone.tokens is alone.seeds is None
    ceiling = usae.controls(trained, held_out, train=acts, independent=independent, include=["seeds"], steps=5)
    again = usae.fit_independent(acts, like=trained, seed=trained.seed + 2, steps=5)
    assert ceiling.seeds.independent.to_dict() == usae.consistency(independent, again).to_dict()


def test_what_is_run_by_default_depends_on_what_is_there(trained, acts, held_out):
    few = {"n_draws": 2, "n_permutations": 2, "progress": False}
    assert "tokens, concepts, random)" in repr(usae.controls(trained, held_out, **few))
    result = usae.controls(trained, held_out, tokens_per_image=4, **few)
    assert "tokens, images, concepts, random)" in repr(result)


def test_a_bfloat16_tensor_and_images_count_as_their_rows(trained, held_out):
    import torch

    tensors = {name: torch.from_numpy(x).bfloat16() for name, x in held_out.items()}
    floats = {name: x.float().numpy().reshape(20, 10, -1) for name, x in tensors.items()}
    options = {"include": ["concepts", "images", "linear"], "tokens_per_image": 10, "n_permutations": 5, "progress": False}
    one = usae.controls(trained, tensors, train=tensors, **options).to_dict()
    other = usae.controls(trained, floats, train={n: x.reshape(200, -1) for n, x in floats.items()}, **options).to_dict()
    assert one == other


@pytest.mark.parametrize(
    ("change", "argument", "got"),
    [
        ({"include": "tokens"}, "include", "'tokens'"),
        ({"include": ["token"]}, "include", ""),
        ({"include": ["seeds"], "train": None}, "train", "None"),
        ({"include": ["images"]}, "tokens_per_image", "None"),
        ({"tokens_per_image": 7}, "tokens_per_image", "7"),
        ({"tokens_per_image": 0}, "tokens_per_image", "0"),
        ({"level": 95}, "level", "95"),
        ({"n_draws": 0}, "n_draws", "0"),
        ({"n_permutations": 0.5}, "n_permutations", "0.5"),
        ({"threshold": -1}, "threshold", "-1"),
        ({"seed": -1}, "seed", "-1"),
        ({"steps": 0, "include": ["shuffled"]}, "steps", "0"),
        ({"progress": "yes", "include": ["tokens"]}, "progress", "'yes'"),
        ({"train": {"vit": np.ones((3, 17))}}, "train", "none for dinov2, siglip"),
        ({"train": {n: np.full((9, w), np.nan) for n, w in WIDTHS.items()}}, "activations of 'dinov2'", "NaN or infinity"),
        ({"sae": "run1"}, "sae", "str"),
        ({"sae": usae.UniversalSAE(4, 2).initialize({"vit": 17})}, "sae", "one, 'vit'"),
        ({"independent": {"vit": np.ones((3, 17))}, "include": ["seeds"]}, "independent", "vit"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_run(trained, acts, held_out, change, argument, got, monkeypatch):
    monkeypatch.setattr(usae.UniversalSAE, "fit", lambda *_, **__: pytest.fail("trained"))
    arguments = {"sae": trained, "train": acts} | change
    with refuses(argument, got):
        usae.controls(arguments.pop("sae"), held_out, **arguments)


def test_controls_end_at_ctrl_c_and_leave_the_autoencoder_as_it_was(trained, acts, held_out, monkeypatch):
    before = trained.evaluate(held_out).to_dict()
    step = usae._core.autoencoder.Autoencoder.step

    def interrupted(self, *arguments):
        report = step(self, *arguments)
        if report.step == 3:
            raise KeyboardInterrupt
        return report

    monkeypatch.setattr(usae._core.autoencoder.Autoencoder, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        usae.controls(trained, held_out, train=acts, include=["shuffled"])
    assert trained.evaluate(held_out).to_dict() == before and trained.n_steps_ == 60


def test_controls_are_imported_when_they_are_asked_for():
    script = """
import sys, usae
print("usae.analysis.controls" in sys.modules)
usae.controls
print("usae.analysis.controls" in sys.modules, "scipy" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\nTrue False\n"


@pytest.mark.slow
def test_more_tokens_take_no_more_memory():
    import tracemalloc

    peaks = []
    for n_tokens in (40_000, 160_000):
        acts = planted(200, seed=0)
        acts = {name: np.broadcast_to(x, (n_tokens // 200, *x.shape)) for name, x in acts.items()}  # a view
        sae = usae.UniversalSAE(32, 4, recipe=RECIPE).fit(planted(200, seed=0), steps=2)
        tracemalloc.start()
        usae.controls(sae, acts, train=acts, include=["concepts", "linear", "shuffled"], n_permutations=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
