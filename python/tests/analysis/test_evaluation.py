import json
import sys

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS
from support.refusals import refuses

EPS = np.finfo(np.float32).eps
NAMES = tuple(WIDTHS)


def reference_r2(sae, acts, source, target, units):
    """R2 of one pair from codes and parameters in float64, and how far float32 may be from it."""
    codes = sae.encode(acts[source], source).to_dense().astype(float)
    p = {name: values.astype(float) for name, values in sae.parameters(target).items()}
    rows = p["dictionary"] / np.maximum(np.linalg.norm(p["dictionary"], axis=1, keepdims=True), 1)
    x = (acts[target].astype(float) - p["mean"]) / p["scale"]
    # Roundings relative to the magnitudes: k products and sums of the decoder, and some ten for standardising both ways.
    slack = (sae.k + 10) * EPS * (codes @ np.abs(rows) + (np.abs(acts[target]) + np.abs(p["mean"])) / p["scale"])
    error = x - codes @ rows
    if units == "model":
        x, error, slack = x * p["scale"], error * p["scale"], slack * p["scale"]
    total = ((x - (x.mean() if units == "scalar mean" else x.mean(0))) ** 2).sum()
    # (|e| + |s|)^2 - |e|^2 for the squared error; the variance has roundings of the same kind.
    off = (2 * np.linalg.norm(error) * np.linalg.norm(slack) + (slack**2).sum()) / total
    return 1 - (error**2).sum() / total, 2 * off, (error**2).mean()


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_every_number_agrees_with_numpy(sae, held_out, threshold):
    evaluation = sae.evaluate(held_out, threshold=threshold)
    dense = np.stack([sae.encode(held_out[name], name).to_dense() for name in NAMES])
    fires = dense > threshold
    assert (evaluation.model_names, evaluation.n_tokens, evaluation.threshold) == (NAMES, 200, threshold)
    assert np.array_equal(evaluation.firing_counts, fires.sum(1))
    assert np.array_equal(evaluation.cofire_counts, fires.all(0).sum(0))
    assert np.array_equal(evaluation.union_counts, fires.any(0).sum(0))
    assert np.array_equal(evaluation.pair_cofire_counts, (fires[:, None] & fires[None]).sum(2))
    assert np.array_equal(evaluation.max_activation, dense.max(1))
    # Float64 sums of at most 200 positive numbers: 200 roundings.
    assert np.allclose(evaluation.mean_activation, dense.mean(1, dtype=float), rtol=200 * 2**-52, atol=0)
    products = np.einsum("itc,jtc->ijc", dense, dense, dtype=float)
    assert np.allclose(evaluation.code_products, products, rtol=200 * 2**-52, atol=0)
    assert np.allclose(evaluation.l0, (dense > 0).sum((1, 2)) / 200, rtol=2**-50, atol=0)
    for i, source in enumerate(NAMES):
        for j, target in enumerate(NAMES):
            r2, off, mse = reference_r2(sae, held_out, source, target, "model")
            assert abs(evaluation.r2[i, j] - r2) <= off
            assert evaluation.mse[i, j] == pytest.approx(mse, rel=off / max(1e-3, 1 - r2) + 1e-9)
            r2, off, _ = reference_r2(sae, held_out, source, target, "standardized")
            assert abs(evaluation.r2_standardized[i, j] - r2) <= off
            r2, off, _ = reference_r2(sae, held_out, source, target, "scalar mean")
            assert abs(evaluation.r2_scalar_mean[i, j] - r2) <= off


def test_predicting_the_mean_scores_zero_and_the_scalar_mean_flatters_it():
    # Two values as far above the mean as below it, all exact in float32, so that nothing is rounded.
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (64, 6)).astype(np.float32)
    acts = {"a": np.concatenate([signs, -signs]) + np.arange(6, dtype=np.float32)}
    sae = usae.UniversalSAE(8, 2).initialize({"a": 6})
    sae.set_parameters("a", {"mean": np.arange(6.0), "encoder_bias": np.full(8, -100.0)})
    evaluation = sae.evaluate(acts)
    assert evaluation.l0[0] == 0
    assert evaluation.r2[0, 0] == evaluation.r2_standardized[0, 0] == 0
    assert evaluation.mse[0, 0] == 1
    sae.set_parameters("a", {"mean": np.zeros(6)})  # now zero, not the mean, is predicted
    evaluation = sae.evaluate(acts)
    assert evaluation.mse[0, 0] == pytest.approx(1 + np.mean(np.arange(6.0) ** 2))
    assert evaluation.r2[0, 0] == pytest.approx(-np.mean(np.arange(6.0) ** 2))


def test_the_scalar_mean_counts_what_dimensions_means_explain():
    acts = {"a": np.array([[0.0, 10.0], [2.0, 12.0]], np.float32)}
    sae = usae.UniversalSAE(4, 1).initialize({"a": 2})
    sae.set_parameters("a", {"mean": [1.0, 11.0], "encoder_bias": np.full(4, -1000.0)})
    evaluation = sae.evaluate(acts)
    # Standardised: rows (-1, -1), (1, 1), mean 0 of either kind. Zero is predicted: 1 - 4/4.
    assert evaluation.r2_scalar_mean[0, 0] == 0
    sae.set_parameters("a", {"mean": [0.0, 0.0]})
    evaluation = sae.evaluate(acts)
    # Zero predicted for 0, 10, 2, 12: squared error 248; about the scalar mean 6 the squares are 36+16+16+36 = 104, about
    # the dimensions' means 1 and 11 they are 4.
    assert evaluation.r2_scalar_mean[0, 0] == pytest.approx(1 - 248 / 104)
    assert evaluation.r2_standardized[0, 0] == pytest.approx(1 - 248 / 4)


def test_rows_in_pieces_or_whole_give_the_same_counts(trained, held_out):
    whole = trained.evaluate(held_out)
    pieces = [trained.evaluate({name: x[part] for name, x in held_out.items()}) for part in (slice(77), slice(77, None))]
    assert np.array_equal(whole.firing_counts, sum(piece.firing_counts for piece in pieces))
    assert np.array_equal(whole.cofire_counts, sum(piece.cofire_counts for piece in pieces))
    assert np.array_equal(whole.max_activation, np.maximum(*(piece.max_activation for piece in pieces)))


def test_evaluating_changes_nothing(trained, held_out):
    first, again = trained.evaluate(held_out), trained.evaluate(held_out)
    assert first.to_dict() == again.to_dict()


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), 10**400, "0", None, True])
def test_a_threshold_that_is_no_number_from_zero_up_is_refused(trained, held_out, threshold):
    with refuses("threshold"):
        trained.evaluate(held_out, threshold=threshold)


def evaluation_of(firing, cofire, **changes):
    """By hand; what is not given is consistent as far as the properties under test look at it."""
    firing, cofire = np.asarray(firing), np.asarray(cofire)
    n_models, n_concepts = firing.shape
    pairs = np.zeros((n_models, n_models))
    fields = dict(
        model_names=tuple("abcdef"[:n_models]), n_tokens=100, threshold=0.0, r2=pairs, r2_standardized=pairs,
        r2_scalar_mean=pairs, mse=pairs, l0=np.zeros(n_models), firing_counts=firing, cofire_counts=cofire,
        pair_cofire_counts=np.where(np.eye(n_models, dtype=bool)[..., None], firing, cofire), union_counts=firing.max(0),
        mean_activation=np.zeros((n_models, n_concepts)), max_activation=np.zeros((n_models, n_concepts), np.float32),
        code_products=np.zeros((n_models, n_models, n_concepts)),
    )  # fmt: skip
    return usae.Evaluation(**(fields | changes))


def test_firing_entropy_has_the_values_of_the_paper():
    evaluation = evaluation_of([[5, 7, 3, 0], [5, 7, 0, 0], [5, 0, 0, 0]], [5, 0, 0, 0])
    assert evaluation.firing_entropy[:3] == pytest.approx([1, np.log(2) / np.log(3), 0])
    assert round(np.log(2) / np.log(3), 3) == 0.631
    assert np.isnan(evaluation.firing_entropy[3])
    assert not np.signbit(evaluation.firing_entropy[2])


@hypothesis.given(
    hnp.arrays(np.int64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.integers(0, 2**40)), st.randoms()
)
def test_firing_entropy_is_between_0_and_1_and_blind_to_order_and_amount(firing, random):
    entropy = evaluation_of(firing, firing.min(0)).firing_entropy
    fires = firing.sum(0) > 0
    assert np.array_equal(np.isnan(entropy), ~fires)
    # M terms, each rounded a few times.
    assert ((entropy[fires] >= 0) & (entropy[fires] <= 1 + 1e-14)).all()
    order = random.sample(range(len(firing)), len(firing))
    other = evaluation_of(3 * firing[order], firing.min(0)).firing_entropy
    assert np.allclose(entropy, other, rtol=0, atol=1e-14, equal_nan=True)


def test_cofire_proportion_dead_concepts_and_energy():
    evaluation = evaluation_of([[4, 0, 8], [2, 0, 0]], [2, 0, 0], mean_activation=np.array([[3.0, 0, 1], [0.5, 0, 0]]))
    assert np.array_equal(evaluation.cofire_proportion, [[0.5, np.nan, 0], [1, np.nan, np.nan]], equal_nan=True)
    assert evaluation.dead.tolist() == [[False, True, False], [False, True, True]]
    assert evaluation.dead_everywhere.tolist() == [False, True, False]
    assert evaluation.energy.tolist() == [[9, 0, 1], [0.25, 0, 0]]


def test_three_tokens_by_hand():
    # Encoders and dictionaries copy, so codes are the activations. Concept 0: a 1 0 2, b 2 0 0; concept 1: a 0 3 0, b 0 1 4.
    sae = usae.UniversalSAE(3, 2).initialize({"a": 3, "b": 3})
    for name in ("a", "b"):
        sae.set_parameters(name, {"encoder_weight": np.eye(3), "encoder_bias": np.zeros(3), "dictionary": np.eye(3)})
    acts = {
        "a": np.array([[1, 0, 0], [0, 3, 0], [2, 0, 0]], np.float32),
        "b": np.array([[2, 0, 0], [0, 1, 0], [0, 4, 0]], np.float32),
    }
    evaluation = sae.evaluate(acts)
    assert evaluation.firing_counts.tolist() == [[2, 1, 0], [1, 2, 0]]
    assert evaluation.cofire_counts.tolist() == evaluation.pair_cofire_counts[0, 1].tolist() == [1, 1, 0]
    assert evaluation.union_counts.tolist() == [2, 2, 0]
    assert evaluation.code_products.tolist() == [[[5, 9, 0], [2, 3, 0]], [[2, 3, 0], [4, 17, 0]]]
    assert np.array_equal(evaluation.cofire_iou, [0.5, 0.5, np.nan], equal_nan=True)
    assert np.array_equal(evaluation.pair_cofire_iou[0, 1], [0.5, 0.5, np.nan], equal_nan=True)
    # Concept 0: covariance 2/3 - 1 * 2/3 = 0. Concept 1: 3/3 - 1 * 5/3 = -2/3; variances 9/3 - 1 = 2 and 17/3 - 25/9 = 26/9.
    assert evaluation.correlation[0, 1, :2] == pytest.approx([0, -2 / 3 / np.sqrt(2 * 26 / 9)])
    assert np.isnan(evaluation.correlation[..., 2]).all()
    # a is copied; b's codes decoded to a: residuals (-1, 0, 0), (0, 2, 0), (2, -4, 0), squares 25. a about its means (1, 1, 0):
    # 2 + 6 = 8.
    assert evaluation.r2[0, 0] == 1 and evaluation.r2[1, 0] == pytest.approx(1 - 25 / 8)


def test_correlation_is_pearsons(sae, held_out):
    stats = pytest.importorskip("scipy.stats")
    correlation = sae.evaluate(held_out).correlation
    dense = np.stack([sae.encode(held_out[name], name).to_dense() for name in NAMES]).astype(float)
    varies = np.ptp(dense, 1) > 0
    for (i, j, concept), r in np.ndenumerate(correlation):
        if varies[i, concept] and varies[j, concept]:
            # 200 terms lose at most 600 roundings of the second moment, which variances of codes are not far below.
            assert r == pytest.approx(stats.pearsonr(dense[i, :, concept], dense[j, :, concept])[0], abs=1e-10)
        else:
            assert np.isnan(r)
    assert (np.isnan(correlation[0, 0]) | (np.diagonal(correlation) == 1).T[0]).all()


def test_a_code_that_never_changes_has_no_correlation():
    # 0.1 and its square are no sums of powers of two, so sums of a thousand of them are rounded.
    sae = usae.UniversalSAE(1, 1).initialize({"a": 1, "b": 1})
    for name in ("a", "b"):
        sae.set_parameters(name, {"encoder_weight": [[1.0]], "encoder_bias": [0.0]})
    acts = {"a": np.full((1000, 1), 0.1, np.float32), "b": np.random.default_rng(0).random((1000, 1), np.float32)}
    correlation = sae.evaluate(acts).correlation[..., 0]
    assert np.isnan(correlation[0]).all() and np.isnan(correlation[:, 0]).all() and correlation[1, 1] == 1


def test_energy_is_of_what_the_dictionary_rows_add(acts, held_out):
    recipe = RECIPE.replace(dictionary_norm="bounded", weight_decay=3.0)
    sae = usae.UniversalSAE(32, 4, recipe=recipe, seed=3).fit(acts, steps=60)
    evaluation = sae.evaluate(held_out)
    for i, name in enumerate(NAMES):
        parts = evaluation.mean_activation[i][:, None] * sae.dictionary(name).astype(float)
        np.testing.assert_allclose(evaluation.energy[i], (parts**2).sum(1), rtol=1e-12)
        np.testing.assert_array_equal(evaluation.to_frame()[f"dictionary_norm[{name}]"], evaluation.dictionary_norms[i])
    assert evaluation.dictionary_norms.max() <= 1 + 1e-5 and evaluation.dictionary_norms.min() < 0.9
    read = json.loads(json.dumps(evaluation.to_dict()))
    np.testing.assert_allclose(usae.Evaluation(**read).energy, evaluation.energy)


def test_the_energy_fit_is_a_line_through_logarithms(trained, held_out):
    stats = pytest.importorskip("scipy.stats")
    evaluation = trained.evaluate(held_out)
    for least in (1, 5):
        fit = evaluation.energy_fit(least)
        chosen = evaluation.cofire_counts >= least
        assert fit.n_concepts == chosen.sum() > 3
        for i in range(len(NAMES)):
            line = stats.linregress(np.log10(evaluation.cofire_counts[chosen]), np.log10(evaluation.energy[i, chosen]))
            assert [fit.correlation[i], fit.slope[i], fit.intercept[i]] == pytest.approx(
                [line.rvalue, line.slope, line.intercept], rel=1e-9, abs=1e-9
            )
    assert np.array_equal(evaluation.energy_cofire_correlation, evaluation.energy_fit().correlation)
    assert np.array_equal(evaluation.energy_cofire_slope, evaluation.energy_fit().slope)
    with refuses("least_cofires", "0"):
        evaluation.energy_fit(0)


def test_there_is_no_line_through_fewer_than_two_counts():
    for cofire in ([0, 0, 0], [4, 0, 0], [4, 4, 0]):
        fit = evaluation_of([[4, 4, 8], [4, 4, 0]], cofire, mean_activation=np.ones((2, 3))).energy_fit()
        assert all(np.isnan(values).all() for values in fit[:3])


def test_the_frame_has_a_row_for_each_concept(trained, held_out):
    pytest.importorskip("pandas")
    evaluation = trained.evaluate(held_out)
    frame = evaluation.to_frame()
    assert len(frame) == 32 and frame.index.name == "concept"
    assert np.array_equal(frame["firing_entropy"], evaluation.firing_entropy, equal_nan=True)
    assert np.array_equal(frame["energy[vit]"], evaluation.energy[NAMES.index("vit")])
    i, j = NAMES.index("dinov2"), NAMES.index("vit")
    assert np.array_equal(frame["correlation[dinov2, vit]"], evaluation.correlation[i, j], equal_nan=True)
    assert np.array_equal(frame["pair_cofire_counts[dinov2, vit]"], evaluation.pair_cofire_counts[i, j])


def test_without_pandas_the_error_says_how_to_get_it(trained, held_out, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pandas"):
        trained.evaluate(held_out).to_frame()


def test_energy_is_the_squared_norm_of_what_a_concept_adds_to_the_mean(trained, held_out):
    evaluation = trained.evaluate(held_out)
    for i, name in enumerate(NAMES):
        mean_code = trained.encode(held_out[name], name).to_dense().mean(0, dtype=float)
        contribution = mean_code[:, None] * trained.dictionary(name)
        # Rows have norm 1 but for d / 2 + 2 roundings (see the test of `dictionary`), twice that squared.
        expected = (contribution.astype(float) ** 2).sum(1)
        assert np.allclose(evaluation.energy[i], expected, rtol=(WIDTHS[name] + 4) * EPS, atol=0)


def test_the_dictionary_form_is_json_and_complete(trained, held_out):
    evaluation = trained.evaluate(held_out)
    read = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert usae.Evaluation(**read).r2 == evaluation.r2.tolist()
    assert read["firing_counts"] == evaluation.firing_counts.tolist()
    assert read["model_names"] == list(NAMES)


def test_the_summary_shows_the_matrix_under_the_models_names(trained, held_out):
    evaluation = trained.evaluate(held_out)
    lines = evaluation.summary().splitlines()
    assert lines[1].split()[-3:] == list(NAMES)
    for line, name, values in zip(lines[2:5], NAMES, evaluation.r2, strict=True):
        assert line.split() == [name, *(f"{value:.3f}" for value in values)]
    assert len({len(line) for line in lines[1:5]}) == 1  # columns line up
    assert f"{int((evaluation.cofire_counts > 0).sum())} in all models at once" in lines[-1]
    assert max(len(line) for line in lines) < 120 and len(repr(evaluation)) < 120
