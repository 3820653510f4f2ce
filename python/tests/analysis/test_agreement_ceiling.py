import json

import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model

import usae
from support.autoencoders import RECIPE, WIDTHS, identity_sae
from support.refusals import refuses
from support.stores import written
from usae import synthetic
from usae._data.activations import as_aligned
from usae.analysis import agreement, predicted_codes
from usae.analysis.ridge import Ridge
from usae.analysis.supervised_encoder import SupervisedEncoder

pytestmark = pytest.mark.slow
K = 6


@pytest.fixture
def few_steps(monkeypatch):
    """For tests that do not look at what the encoders have learned."""
    monkeypatch.setattr(predicted_codes, "STEPS", 10)


def known_world():
    """Models "a" and "b" with 24 shared concepts and 8 private ones each, in more dimensions than concepts; little noise."""
    return synthetic.universal(
        {"a": 40, "b": 48}, n_tokens=6000, n_shared=24, n_private=8, noise=0.02, frequency=0.05, frequency_cap=0.15,
        private_frequency=0.08, seed=2,
    )  # fmt: skip


def oracle(truth, k=K, **recipe):
    """An autoencoder whose code is the true one: the least-squares solution, less a little, so that noise is not selected."""
    recipe = usae.recipes.default(**recipe)
    sae = usae.UniversalSAE(truth.n_true, k, recipe=recipe, n_threads=1)
    sae.initialize({n: x.shape[1] for n, x in truth.acts.items()})
    for i, (name, dictionary) in enumerate(truth.dictionaries.items()):
        members = truth.membership[:, i]
        weight, bias = np.zeros(dictionary.shape), np.full(truth.n_true, -1e3)
        weight[members] = np.linalg.pinv(dictionary[members].astype(float)).T
        bias[members] = -weight[members] @ truth.offsets[name] - 0.2
        sae.set_parameters(name, {"encoder_weight": weight, "encoder_bias": bias, "dictionary": dictionary + 1e-3})
    return sae


@pytest.fixture(scope="module")
def world():
    truth = known_world()
    return truth, oracle(truth), truth.sample(6000)


def ceiling_of(sae, acts, train, **options):
    return usae.controls(sae, acts, train=train, include=["agreement"], progress=False, **options)


def test_shared_concepts_have_a_ceiling_near_one_and_private_ones_near_zero(world):
    truth, sae, held_out = world
    found = ceiling_of(sae, held_out.acts, truth.acts).agreement
    shared = truth.membership.all(1)
    for i, j in ((0, 1), (1, 0)):
        private = truth.membership[:, i] & ~shared
        assert found.known[i, shared].all() and found.known[i, private].all()
        assert found.ceiling[i, j, shared].min() > 0.9 and found.agreement[i, j, shared].min() > 0.9
        # 6,000 tokens: the standard error of a correlation of independent codes is .013. Six of them, for two predictions.
        assert np.abs(found.ceiling[i, j, private]).max() < 0.08
        assert np.isnan(found.share[i, j, private]).all() and np.all(found.share[i, j, shared] > 0.9)
        # The other model's own concepts do not fire here, so nothing is known of them.
        assert not found.known[i, ~truth.membership[:, i]].any() and np.isnan(found.ceiling[i, j, ~found.known[i]]).all()
    assert found.mean_share > 0.95 and found.unknown.tolist() == [0, 0]


def test_an_encoder_that_got_worse_agrees_less_and_leaves_the_ceiling_where_it_was(world):
    truth, sae, held_out = world
    before = ceiling_of(sae, held_out.acts, truth.acts).agreement
    worse = oracle(truth)
    weight, random = worse.parameters("b")["encoder_weight"], np.random.default_rng(0)
    noise = random.standard_normal(weight.shape).astype(np.float32) * np.linalg.norm(weight, axis=1, keepdims=True)
    worse.set_parameters("b", {"encoder_weight": weight + 0.25 * noise})
    result = ceiling_of(worse, held_out.acts, truth.acts)
    after, shared = result.agreement, truth.membership.all(1)
    assert np.all(after.agreement[0, 1, shared] < after.ceiling[0, 1, shared])
    assert after.mean()[0, 1] < 0.85 * before.mean()[0, 1]
    # The code of a is to be predicted from the activations of b, neither of which has changed.
    assert np.array_equal(after.ceiling[0, 1], before.ceiling[0, 1], equal_nan=True)
    assert result.table()["ceiling of agreement"]["agreement"] == pytest.approx(np.nanmean(after.mean("ceiling")))
    assert all(line in result.summary() for line in ("ceiling of agreement", "code of", "all pairs"))


@pytest.mark.parametrize("norm", ["unit", "bounded"])
def test_agreement_is_the_evaluations_correlation_and_its_mean_is_weighted_by_energy(world, few_steps, norm):
    truth, _, held_out = world
    sae = oracle(truth, dictionary_norm=norm)
    if norm == "bounded":  # rows shorter than 1: the model has less of the concept
        lengths = np.random.default_rng(0).uniform(0.1, 1, (truth.n_true, 1))
        rows = sae.parameters("a")["dictionary"]
        sae.set_parameters("a", {"dictionary": lengths * rows / np.linalg.norm(rows, axis=1, keepdims=True)})
    result = ceiling_of(sae, held_out.acts, truth.acts)
    found, evaluation = result.agreement, result.evaluation
    known = found.known[0]
    assert np.allclose(found.agreement[0, 1, known], np.nan_to_num(evaluation.correlation[0, 1, known]), atol=1e-12)
    expected = np.average(found.agreement[0, 1, known], weights=evaluation.energy[0, known])
    assert found.mean()[0, 1] == pytest.approx(expected)
    assert evaluation.mean_agreement()[0, 1] == pytest.approx(expected)
    assert np.allclose(np.diag(evaluation.mean_agreement()), 1) and np.isnan(np.diag(found.mean())).all()


def test_a_concept_that_is_dead_in_the_other_model_does_not_agree():
    fires = np.zeros((200, 3), np.float32)
    fires[::4, 0] = fires[::5, 1] = fires[:3, 2] = 1
    other = fires * np.array([1, 0, 1], np.float32)
    evaluation = identity_sae(3, "ab", 3).evaluate({"a": fires, "b": other})
    mean = evaluation.mean_agreement()
    energy = evaluation.energy[0]  # concept 2 fires in 3 tokens only, concept 1 not at all in b
    assert mean[0, 1] == pytest.approx(energy[0] / (energy[0] + energy[1])) and mean[1, 0] == pytest.approx(1)
    assert np.isnan(evaluation.mean_agreement(least_firings=100)).all()
    with refuses("least_firings", "0"):
        evaluation.mean_agreement(least_firings=0)


# --- Against plain implementations -------------------------------------------------------------------------------------------


def dense_prediction(x, z, x_new, penalty):
    """scikit-learn's ridge regression of one concept, with ReLU. The penalty is a multiple of the mean variance."""
    centred = x - x.mean(0)
    unit = np.trace(centred.T @ centred) / x.shape[1]
    return np.maximum(sklearn.linear_model.Ridge(alpha=penalty * unit, solver="cholesky").fit(x, z).predict(x_new), 0)


def test_ridge_is_scikit_learns_with_the_penalty_that_predicts_a_tenth_of_the_rows_best(trained, acts, held_out, few_steps):
    found = ceiling_of(trained, held_out, acts).agreement
    i, j, names = 0, 2, list(WIDTHS)
    p = trained.parameters(names[j])
    x, x_new = (
        (rows[names[j]].astype(float) - p["mean"].astype(float)) / p["scale"].astype(float) for rows in (acts, held_out)
    )
    z, z_new = (trained.encode(rows[names[i]], names[i]).to_dense().astype(float) for rows in (acts, held_out))
    assert found.known[i].sum() > 5
    part = np.arange(len(x)) // (len(x) // predicted_codes.PARTS) % predicted_codes.PARTS == 1
    for c in np.flatnonzero(found.known[i]):
        linear = [  # the penalty is chosen without ReLU
            sklearn.linear_model.Ridge(alpha=penalty * x[~part].var(0).mean() * (~part).sum(), solver="cholesky")
            .fit(x[~part], z[~part, c]).predict(x[part])
            for penalty in predicted_codes.PENALTIES
        ]  # fmt: skip
        errors = [((z[part, c] - each) ** 2).sum() for each in linear]
        assert found.penalty[i, j, c] == predicted_codes.PENALTIES[np.argmin(errors)]
        expected = np.corrcoef(dense_prediction(x, z[:, c], x_new, found.penalty[i, j, c]), z_new[:, c])[0, 1]
        assert found.ridge[i, j, c] == pytest.approx(expected, abs=1e-5)  # predictions are float32


def test_one_penalty_for_each_target_is_that_of_each_target_alone():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((60, 8)), random.standard_normal((60, 3))
    ridge, penalties = Ridge(x.T @ x), np.array([1e-3, 1.0, 10.0])
    together = ridge.weights(x.T @ y, penalties)
    for c, penalty in enumerate(penalties):
        assert np.allclose(together[:, c], ridge.weights(x.T @ y[:, [c]], penalty)[:, 0])
        expected = np.linalg.solve(x.T @ x + penalty * np.trace(x.T @ x) / 8 * np.eye(8), x.T @ y[:, c])
        assert np.allclose(together[:, c], expected)


def test_a_step_of_the_encoder_is_adam_on_the_squared_error_where_either_code_is_active():
    import torch

    random = np.random.default_rng(0)
    weights, biases = random.standard_normal((12, 5)), random.standard_normal(12)
    dense = np.where(random.random((30, 12)) < 0.2, random.random((30, 12)), 0).astype(np.float32)
    x = random.standard_normal((30, 5)).astype(np.float32)
    encoder = SupervisedEncoder(weights, biases, 3, 1.0, 40.0, 1)
    parameters = torch.from_numpy(encoder.parameters.astype(float)).requires_grad_()
    adam = torch.optim.Adam([parameters])
    target = torch.from_numpy(dense.astype(float))
    for number in range(1, 5):
        pre = torch.from_numpy(x.astype(float)) @ parameters[:, :-1].T + parameters[:, -1]
        values, columns = torch.topk(torch.relu(pre), 3, dim=1)
        own = torch.zeros_like(pre).scatter(1, columns, values)
        active = (own > 0) | (target > 0)
        loss = (((pre - target) * active) ** 2).sum() / 2 / len(x)
        adam.zero_grad()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = encoder.rate * number / 50 * (1 - (number - 1) / 4)
        adam.step()
        encoder.step(x, scipy.sparse.csr_array(dense), number, 4)
        # Adam divides by the root of squared gradients, so roundings of 1e-7 of small gradients show in steps of some 1e-4.
        assert np.allclose(encoder.parameters, parameters.detach().numpy(), atol=1e-6)


def test_training_the_encoder_brings_its_code_nearer(world):
    truth, sae, held_out = world
    found = ceiling_of(sae, held_out.acts, truth.acts).agreement
    assert found.mean("encoder")[0, 1] > found.mean("ridge")[0, 1] - 0.02
    start = np.isfinite(found.encoder[0, 1]).sum()
    assert start == found.known[0].sum() == truth.membership[:, 0].sum()


# --- How it is run -----------------------------------------------------------------------------------------------------------


def test_chunks_images_stores_and_masks_give_the_same_numbers(trained, acts, held_out, tmp_path, monkeypatch, few_steps):
    expected = ceiling_of(trained, held_out, acts).agreement
    store = written(tmp_path / "train", {name: x.reshape(-1, 1, x.shape[1]) for name, x in acts.items()}, dtype="float32")
    stored = ceiling_of(trained, held_out, store).agreement
    assert stored.to_dict() == expected.to_dict()
    padded = {name: np.concatenate([np.full((7, x.shape[1]), np.nan, x.dtype), x]) for name, x in held_out.items()}
    masked = ceiling_of(trained, padded, acts, mask=np.arange(len(padded["vit"])) >= 7).agreement
    assert masked.to_dict() == expected.to_dict()
    monkeypatch.setattr(predicted_codes, "CHUNK", 64)
    monkeypatch.setattr(predicted_codes, "PREDICTED", 16)
    parts = ceiling_of(trained, held_out, acts).agreement
    # Other chunks: sums of float64 in another order. (600 training rows are in ten chunks of 60 either way.)
    assert np.array_equal(parts.penalty, expected.penalty, equal_nan=True)
    for name in ("agreement", "ridge", "encoder"):
        assert np.allclose(getattr(parts, name), getattr(expected, name), atol=1e-6, equal_nan=True)


def test_of_many_rows_chunks_are_taken_that_are_spread_evenly(trained, acts, held_out, monkeypatch, few_steps):
    every = predicted_codes._spread(1000, 1, 100, 10**6)
    assert [part.start for part in every] == list(range(0, 1000, 100))
    some = predicted_codes._spread(1000, 1, 100, 350)
    assert [part.start for part in some] == [0, 400, 900]
    monkeypatch.setattr(predicted_codes, "EVALUATED_ROWS", 120)
    monkeypatch.setattr(predicted_codes, "CHUNK", 40)
    assert ceiling_of(trained, held_out, acts).agreement.n_tokens == 120


def test_a_seed_repeats_and_units_do_not_matter(trained, acts, held_out, few_steps):
    first, again = (ceiling_of(trained, held_out, acts, seed=1).agreement for _ in range(2))
    other = ceiling_of(trained, held_out, acts, seed=2).agreement
    assert first.to_dict() == again.to_dict()
    assert np.array_equal(first.ridge, other.ridge, equal_nan=True)
    scaled = usae.UniversalSAE(32, 4, recipe=trained.recipe, seed=3).initialize({n: x.shape[1] for n, x in acts.items()})
    for name in WIDTHS:
        parameters = trained.parameters(name)
        scaled.set_parameters(name, parameters | {tensor: parameters[tensor] * 2.0**40 for tensor in ("mean", "scale")})
    times = [{name: x * np.float32(2.0**40) for name, x in rows.items()} for rows in (held_out, acts)]
    found = ceiling_of(scaled, *times, seed=1).agreement
    assert np.allclose(found.ridge, first.ridge, atol=1e-6, equal_nan=True)


def test_rows_too_few_for_any_concept_leave_everything_unknown(trained, acts, held_out, few_steps):
    few = {name: x[:5] for name, x in acts.items()}
    for result in (ceiling_of(trained, few, acts), ceiling_of(trained, held_out, few)):
        found = result.agreement
        assert not found.known.any() and np.isnan(found.ceiling).all() and np.isnan(found.mean_share)
        assert found.unknown.min() > 0
        json.dumps(result.to_dict(), allow_nan=False)
        assert "nan" not in result.summary()


def test_a_model_whose_activations_do_not_vary_predicts_nothing(few_steps):
    fires = np.random.default_rng(0).random((400, 4)).round().astype(np.float32)
    sae = identity_sae(4, "ab", 4)
    acts = {"a": fires, "b": np.ones_like(fires)}
    found = ceiling_of(sae, acts, acts).agreement
    assert found.known[0].all() and not found.known[1].any()  # in b a concept always fires, and never varies
    assert np.all(found.ceiling[0, 1] == 0) and np.all(found.agreement[0, 1] == 0)


def test_shuffled_pairs_stand_beside_the_agreement_in_every_table(trained, acts, held_out, few_steps):
    pandas = pytest.importorskip("pandas")
    result = usae.controls(trained, held_out, train=acts, include=["agreement", "shuffled", "tokens"], progress=False)
    table = result.table()
    assert table["trained on shuffled pairs"]["agreement"] < 0.5 * table["this autoencoder"]["agreement"]
    assert table["this autoencoder"]["agreement"] < table["ceiling of agreement"]["agreement"]
    assert "shuffled pairs" in result.agreement.summary(result.shuffled.paired.mean_agreement())
    frame = result.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 32
    assert np.array_equal(frame["ceiling[vit, siglip]"], result.agreement.ceiling[2, 1], equal_nan=True)
    assert np.array_equal(frame["null_high[tokens]"], result.tokens.high, equal_nan=True)
    assert frame.filter(like="share[").shape[1] == 6 == len(result.agreement.to_frame().filter(like="ridge[").columns)
    with refuses("name", "'r2'"):
        result.agreement.mean("r2")


@pytest.mark.parametrize("changes", [{"selection": "batchtopk"}, {"encoder": "batchnorm"}])
def test_any_kind_of_autoencoder_has_a_ceiling(acts, held_out, changes, few_steps):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3).fit(acts, steps=60, progress=False)
    found = ceiling_of(sae, held_out, acts).agreement
    assert found.known.any(1).all() and 0 < found.mean_share < 1
    assert np.all(np.nan_to_num(found.ceiling, nan=1) >= np.nan_to_num(found.ridge, nan=1))


def test_a_mean_of_energies_that_no_float_squares_is_a_number():
    values, counts = np.full((2, 2, 3), 0.5), np.ones((2, 3), bool)
    assert np.allclose(agreement.mean_of_pairs(values, counts, np.full((2, 3), 1e300)), 0.5)
    assert np.isnan(agreement.mean_of_pairs(values, ~counts, np.ones((2, 3)))).all()


def test_more_tokens_take_no_more_memory(few_steps):
    import tracemalloc

    peaks = []
    random = np.random.default_rng(0)
    rows = {"a": random.standard_normal((500, 8)).astype(np.float32), "b": random.standard_normal((500, 9)).astype(np.float32)}
    sae = usae.UniversalSAE(16, 2, n_threads=1).fit(rows, steps=2, progress=False)
    for repeats in (80, 320):
        acts = as_aligned({name: np.broadcast_to(x, (repeats, *x.shape)) for name, x in rows.items()}, "acts")  # a view
        tracemalloc.start()
        predicted_codes.agreement_ceiling(sae, acts, acts, dictionary_norms=None, threshold=0.0, seed=0, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
