import copy
import logging
import os
import pickle
import signal
import threading
import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.base
import torch
from conftest import RECIPE, WIDTHS, everything, planted

import usae
from usae import Codes, UniversalSAE, _usae
from usae._estimator import universal_sae
from usae._training import loop

EPS = np.finfo(np.float32).eps


def small(**changes):
    return UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3)


# --- The estimator -----------------------------------------------------------------------------------------------------


def test_the_constructor_only_stores_and_scikit_learn_can_clone():
    arguments = {"n_concepts": "many", "k": -1, "recipe": usae.recipes.published(), "seed": None, "n_threads": 0.5}
    sae = UniversalSAE(**arguments)
    assert sae.get_params() == arguments
    copied = sklearn.base.clone(sae)
    assert copied.get_params() == arguments
    assert sae.set_params(k=7) is sae and sae.k == 7
    with pytest.raises(usae.InvalidInputError, match="unknown parameter 'n_concept'; the parameters are n_concepts, k"):
        sae.set_params(k=8, n_concept=3)
    assert sae.k == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_concepts": 0}, "n_concepts must be an integer from 1 to 16777216, got 0"),
        ({"n_concepts": 8.0}, "n_concepts must be an integer"),
        ({"n_concepts": "8"}, "n_concepts must be an integer"),
        ({"n_concepts": 2**31}, "n_concepts must be an integer"),
        ({"k": 0}, "k must be an integer from 1 to .*, got 0"),
        ({"k": 33}, "k must not exceed n_concepts = 32, got 33"),
        ({"k": True}, "k must be an integer"),
        ({"seed": -1}, "seed must be an integer from 0 to .*, got -1"),
        ({"seed": 2**64}, "seed must be"),
        ({"seed": None}, "seed must be"),
        ({"n_threads": 0}, "n_threads must be an integer from 1 to 1024, or None for all cores, got 0"),
        ({"n_threads": "2"}, "n_threads must be"),
        ({"recipe": "published"}, "recipe must be a usae.Recipe or None, got str"),
        ({"recipe": {"loss": "l1"}}, "usae.Recipe.from_dict"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_when_it_is_used_and_nothing_changes(trained, acts, arguments, words):
    sae = copy.deepcopy(trained)
    before = everything(sae)
    sae.set_params(**arguments)
    for call in (lambda: sae.fit(acts, steps=1), lambda: sae.initialize(WIDTHS)):
        with pytest.raises(usae.InvalidInputError, match=words):
            call()
    sae.set_params(**trained.get_params())
    assert everything(sae) == before
    with pytest.raises(usae.InvalidInputError, match=words):
        UniversalSAE(32, 4).set_params(**arguments).partial_fit(acts)


def test_before_there_are_parameters_every_use_says_what_to_do(acts, tmp_path):
    sae = small()
    codes = Codes([[1.0]], [[0]], 32)
    for use in (
        lambda: sae.encode(acts["vit"], "vit"),
        lambda: sae.decode(codes, "vit"),
        lambda: sae.reconstruct(acts["vit"], "vit", "siglip"),
        lambda: sae.preactivations(acts["vit"], "vit"),
        lambda: sae.evaluate(acts),
        lambda: sae.dictionary("vit"),
        lambda: sae.parameters("vit"),
        lambda: sae.set_parameters("vit", {}),
        lambda: sae.gradients(acts, encoder="vit"),
        lambda: sae.save(tmp_path / "run"),
        lambda: sae.model_names_,
        lambda: sae.n_features_in_,
        lambda: sae.recipe_,
        lambda: sae.history_,
        lambda: sae.n_steps_,
    ):
        with pytest.raises(usae.NotInitializedError, match=r"call fit\(acts\), partial_fit\(batch\) or initialize"):
            use()
    assert not hasattr(sae, "history_")
    assert not sae.__sklearn_is_fitted__()
    assert list(tmp_path.iterdir()) == []


def test_models_keep_the_order_in_which_they_were_first_given(acts):
    order = ["vit", "dinov2", "siglip"]
    sae = small().fit({name: acts[name] for name in order}, steps=1)
    assert sae.model_names_ == tuple(order)
    assert sae.n_features_in_ == {name: WIDTHS[name] for name in order}
    assert list(sae.n_features_in_) == order
    sae.partial_fit(acts)
    assert sae.model_names_ == sae.evaluate(acts).model_names == tuple(order)


def test_errors_are_of_the_kinds_that_users_expect():
    assert issubclass(usae.InvalidInputError, ValueError)
    assert issubclass(usae.NotInitializedError, ValueError) and issubclass(usae.NotInitializedError, AttributeError)
    assert issubclass(usae.CheckpointError, ValueError) and issubclass(usae.CheckpointFileError, OSError)
    assert issubclass(usae.UsaeMemoryError, MemoryError)
    assert all(issubclass(getattr(usae, name), usae.UsaeError) for name in usae.__all__ if name.endswith("Error"))


# --- Learning ----------------------------------------------------------------------------------------------------------


def test_training_explains_what_the_models_share(trained, held_out):
    untrained = small().initialize(WIDTHS).evaluate(held_out).r2
    r2 = trained.evaluate(held_out).r2
    assert (r2 > untrained + 0.1).all()


def test_fit_starts_anew_and_partial_fit_goes_on(acts):
    once, twice = small().fit(acts, steps=5), small().fit(acts, steps=9).fit(acts, steps=5)
    assert everything(once) == everything(twice)
    report = once.set_total_steps(None).partial_fit(acts)
    assert report.step == once.n_steps_ == once.history_[-1]["step"] == 6
    assert twice.n_steps_ == 5


def test_fit_is_partial_fit_on_shuffled_batches(acts):
    fitted = small(total_steps=7, warmup_steps=2).fit(acts)
    by_hand = small(total_steps=7, warmup_steps=2)
    by_hand.fit(acts, callbacks=[lambda report: True])  # the first step, and what fit learns before it
    for step in range(1, 7):
        rows = np.empty(128, np.int64)
        _usae.shuffled_rows(3, 600, step * 128, rows)
        by_hand.partial_fit({name: x[rows] for name, x in acts.items()})
    assert everything(by_hand) == everything(fitted)


@hypothesis.given(st.integers(0, 2**64 - 1), st.integers(1, 200), st.integers(0, 10**12), st.data())
def test_batches_visit_each_row_once_in_each_pass(seed, n_rows, epoch, data):
    rows = np.empty(n_rows, np.int64)
    _usae.shuffled_rows(seed, n_rows, epoch * n_rows, rows)
    assert sorted(rows) == list(range(n_rows))
    start = data.draw(st.integers(0, n_rows - 1))
    tail = np.empty(n_rows - start, np.int64)
    _usae.shuffled_rows(seed, n_rows, epoch * n_rows + start, tail)
    assert np.array_equal(tail, rows[start:])


def test_the_seed_decides_and_nothing_else_random_does(acts):
    np.random.seed(0)  # noqa: NPY002
    first = everything(small().fit(acts, steps=5))
    np.random.seed(1)  # noqa: NPY002
    assert everything(small().fit(acts, steps=5)) == first
    other = everything(small().set_params(seed=4).fit(acts, steps=5))
    assert other["parameters"] != first["parameters"]


def test_the_first_partial_fit_takes_models_and_standardisation_from_its_batch(acts):
    sae = small()
    report = sae.partial_fit(acts, encoder="siglip")
    assert (report.encoder, report.step) == ("siglip", 1)
    assert sae.n_features_in_ == WIDTHS
    # The recipe centres by dimension: float32 sums of 600 terms are off by 600 roundings of the largest at the most.
    for name, x in acts.items():
        np.testing.assert_allclose(sae.parameters(name)["mean"], x.mean(0, dtype=float), atol=600 * EPS * np.abs(x).max())


def test_a_bad_first_batch_leaves_the_object_without_parameters(acts):
    sae = small()
    bad = {**acts, "vit": np.full_like(acts["vit"], np.nan)}
    with pytest.raises(usae.InvalidInputError, match="vit"):
        sae.partial_fit(bad)
    with pytest.raises(usae.InvalidInputError, match="vit"):
        sae.fit(bad)
    assert not hasattr(sae, "model_names_")


def test_a_report_says_what_a_step_did(acts):
    reports = []
    sae = small().fit(acts, steps=12, callbacks=[reports.append])
    assert [report.step for report in reports] == list(range(1, 13))
    assert {report.encoder for report in reports} == set(WIDTHS)  # with this seed all are drawn
    for report in reports:
        assert set(report.losses) == set(WIDTHS)
        total = sum(report.losses.values()) + sae.recipe_.aux_coefficient * report.auxiliary_loss
        assert report.loss == pytest.approx(total, rel=1e-6)  # float64 sums of float32 parts
        assert 0 < report.l0 <= 4 and report.dead >= 0
    assert [repr(report.to_dict()) for report in reports] == [repr(entry) for entry in sae.history_]


def test_any_callback_ends_the_training_but_all_see_the_step(acts):
    seen = []
    sae = small().fit(acts, steps=50, callbacks=[lambda report: report.step == 3, seen.append])
    assert len(seen) == sae.n_steps_ == len(sae.history_) == 3


def test_after_an_exception_in_a_callback_the_object_has_what_was_learned(acts):
    def fail(report):
        if report.step == 4:
            raise usae.CheckpointError("from the callback")

    sae = small()
    with pytest.raises(usae.CheckpointError, match="from the callback"):
        sae.fit(acts, steps=9, callbacks=[fail])
    expected = small().fit(acts, steps=9, callbacks=[lambda report: report.step == 4])
    assert everything(sae) == everything(expected)


def test_an_interrupt_leaves_what_was_learned(acts):
    def interrupt(report):
        if report.step == 4:
            raise KeyboardInterrupt

    sae = small().fit(acts, steps=2)
    with pytest.raises(KeyboardInterrupt):
        sae.fit(acts, steps=9, callbacks=[interrupt])
    assert sae.n_steps_ == 4
    assert sae.partial_fit(acts).step == 5


@pytest.mark.parametrize("callbacks", [3, print, [print, 3], None])
def test_callbacks_that_are_no_list_of_callables_are_refused(acts, callbacks):
    with pytest.raises(usae.InvalidInputError, match="callbacks must be"):
        small().fit(acts, callbacks=callbacks)


def test_held_out_activations_are_evaluated_into_the_history(acts, held_out, monkeypatch):
    monkeypatch.setattr(loop, "VALIDATION_TOKENS", 50)
    sae = small().fit(acts, steps=10, validation=held_out)
    validations = {entry["step"]: entry["validation"] for entry in sae.history_ if "validation" in entry}
    assert list(validations) == [2, 4, 6, 8, 10]
    assert [validation["n_tokens"] for validation in validations.values()] == [50, 50, 50, 50, 200]
    final = sae.evaluate(held_out)
    assert validations[10] == {"n_tokens": 200, "r2": final.r2.tolist(), "l0": final.l0.tolist()}
    without = small().fit(acts, steps=10)
    assert everything(without)["parameters"] == everything(sae)["parameters"]


def test_a_run_that_a_callback_ends_is_evaluated_too(acts, held_out):
    sae = small().fit(acts, steps=10, validation=held_out, callbacks=[lambda report: report.step == 3])
    assert sae.history_[-1]["step"] == 3 and sae.history_[-1]["validation"]["n_tokens"] == 200


def test_held_out_rows_for_the_middle_of_training_are_aligned_whatever_their_shape():
    from usae._data.activations import as_aligned

    x = np.arange(1200.0).reshape(600, 2)
    given = as_aligned({"flat": x, "images": x.reshape(6, 100, 2)}, "acts")
    thin = {name: activations.thinned(48) for name, activations in given.items()}
    assert thin["flat"].n_tokens == 600 // 13 + 1  # every 13th
    assert np.array_equal(thin["flat"].array, thin["images"].array)
    assert np.array_equal(given["flat"].thinned(10_000).array, x)


def test_history_stays_short_in_long_runs(trained):
    autoencoder = copy.deepcopy(trained)._autoencoder
    autoencoder.history = []
    report = usae.StepReport(**trained.history_[0])
    for step in (1, 9_999, 10_000, 10_001, 10_099, 10_100, 10_150, 1_000_000):
        autoencoder.record(usae.StepReport(**(report.to_dict() | {"step": step})))
    assert [entry["step"] for entry in autoencoder.history] == [1, 9_999, 10_000, 10_100, 1_000_000]


def test_the_bar_shows_where_asked_for_and_not_in_a_pipe(acts, capfd):
    small().fit(acts, steps=3)
    small().fit(acts, steps=3, progress=False)
    assert capfd.readouterr() == ("", "")
    small().fit(acts, steps=3, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "training" in err and "3/3" in err and "loss" in err
    with pytest.raises(usae.InvalidInputError, match="progress must be"):
        small().fit(acts, progress="yes")


def test_the_plan_and_the_dead_threshold_are_logged(acts, caplog):
    caplog.set_level(logging.INFO, "usae")
    small().fit(acts, steps=30)
    (record,) = caplog.records
    assert "30 steps of 128 tokens" in record.getMessage()
    assert f"dead in a model after {round(0.05 * 30 * 128 / 3)} tokens" in record.getMessage()


def test_one_model_alone_is_a_sparse_autoencoder(acts):
    sae = small().fit({"vit": acts["vit"]}, steps=60)
    evaluation = sae.evaluate({"vit": acts["vit"]})
    assert evaluation.r2.shape == (1, 1) and evaluation.r2[0, 0] > 0.3
    assert np.isnan(evaluation.firing_entropy).all()


def test_widths_are_checked(trained):
    before = everything(trained)
    for widths, words in (
        ({}, "at least one model"),
        (["vit"], "mapping from model names to integers, got list"),
        ({"vit": 0}, r"widths\['vit'\] must be an integer from 1 to 1048576, got 0"),
        ({"vit": 3.0}, r"widths\['vit'\] must be an integer"),
        ({"vit": True}, r"widths\['vit'\] must be an integer"),
        ({"": 3}, "name must be text"),
    ):
        with pytest.raises(usae.InvalidInputError, match=words):
            trained.initialize(widths)
    assert everything(trained) == before


def test_initialize_makes_a_working_autoencoder_without_data(acts):
    sae = small().initialize(WIDTHS)
    assert (sae.n_steps_, sae.history_, sae.recipe_.dead_tokens) == (0, [], 1_000_000)
    for name in WIDTHS:
        parameters = sae.parameters(name)
        assert (parameters["mean"] == 0).all() and (parameters["scale"] == 1).all()
        assert sae.decode(sae.encode(acts[name], name), name).shape == acts[name].shape
    assert everything(small().initialize(WIDTHS)) == everything(sae)


# --- Use ---------------------------------------------------------------------------------------------------------------


def affine_encoder(sae, model):
    """Encoder weight and bias that take a model's own units, BatchNorm and standardisation folded in, float64."""
    p = {name: values.astype(float) for name, values in sae.parameters(model).items()}
    gain = p["bn_weight"] / np.sqrt(p["bn_running_var"] + 1e-5) if "bn_weight" in p else np.ones_like(p["encoder_bias"])
    weight = gain[:, None] * p["encoder_weight"] / p["scale"]
    bias = gain * (p["encoder_bias"] - p.get("bn_running_mean", 0)) + p.get("bn_bias", 0) - weight @ p["mean"]
    return weight, bias


def test_preactivations_are_what_the_parameters_say(sae, acts):
    for name, x in acts.items():
        weight, bias = affine_encoder(sae, name)
        got = sae.preactivations(x, name)
        # One chain of d fused multiply-adds, d roundings; some ten more standardise and fold. Each is relative to the
        # largest partial sum, so to the sum of magnitudes.
        magnitude = np.abs(x) @ np.abs(weight).T + np.abs(bias) + np.abs(weight) @ np.abs(sae.parameters(name)["mean"])
        assert got.dtype == np.float32 and got.shape == (600, 32)
        assert (np.abs(got - (x @ weight.T + bias)) <= (WIDTHS[name] + 10) * EPS * magnitude).all()


def test_codes_are_the_largest_positive_preactivations_in_order(sae, acts):
    for name, x in acts.items():
        pre, codes = sae.preactivations(x, name), sae.encode(x, name)
        order = np.argsort(-pre, axis=1, kind="stable")[:, :4]  # stable: ties to the lower index
        values = np.take_along_axis(pre, order, 1)
        assert np.array_equal(codes.indices, np.where(values > 0, order, -1))
        assert np.array_equal(codes.values, np.maximum(values, 0))


def test_fewer_than_k_positive_preactivations_leave_slots_unused(sae, acts):
    bias = np.full(32, -1e6, np.float32)
    bias[5] = 1e6
    name = "encoder_bias" if "bn_bias" not in sae.parameters("vit") else "bn_bias"
    sae.set_parameters("vit", {name: bias})
    codes = sae.encode(acts["vit"], "vit")
    assert (codes.indices == [5, -1, -1, -1]).all() and (codes.values[:, 1:] == 0).all()


def test_decoding_is_the_sum_of_dictionary_rows_in_the_models_units(sae, acts):
    codes = sae.encode(acts["vit"], "vit")
    for name in WIDTHS:
        rows, mean = sae.dictionary(name, units="model").astype(float), sae.parameters(name)["mean"]
        got = sae.decode(codes, name)
        dense = codes.to_dense()
        # k products and sums, and scale, mean and the norm of the row: each rounds once relative to the magnitudes.
        magnitude = dense @ np.abs(rows) + np.abs(mean)
        assert got.dtype == np.float32
        assert (np.abs(got - (dense @ rows + mean)) <= (4 + 10) * EPS * magnitude).all()


def test_codes_made_by_hand_are_decoded_whatever_their_slots(trained):
    rows, mean = trained.dictionary("vit", units="model").astype(float), trained.parameters("vit")["mean"]
    codes = Codes([[0.5, -2.0, 9.0, 0.25, 1.5]], [[3, 31, -1, 3, 0]], 32)
    expected = mean + 0.75 * rows[3] - 2 * rows[31] + 1.5 * rows[0]
    # Six roundings of the products and sums and four of units, relative to the magnitudes.
    magnitude = np.abs(mean) + 0.75 * np.abs(rows[3]) + 2 * np.abs(rows[31]) + 1.5 * np.abs(rows[0])
    assert (np.abs(trained.decode(codes, "vit")[0] - expected) <= 10 * EPS * magnitude).all()
    assert np.array_equal(trained.decode(Codes([[1.0]], [[-1]], 32), "vit")[0], mean)
    assert np.array_equal(trained.decode(Codes(np.empty((2, 0)), np.empty((2, 0), int), 32), "vit"), [mean, mean])
    assert trained.decode(codes[:0], "vit").shape == (0, WIDTHS["vit"])


def test_what_is_no_code_of_this_autoencoder_is_not_decoded(trained):
    with pytest.raises(usae.InvalidInputError, match="codes must be usae.Codes.*got ndarray"):
        trained.decode(np.zeros((1, 32)), "vit")
    with pytest.raises(usae.InvalidInputError, match="codes must be of 32 concepts.*got 33"):
        trained.decode(Codes([[1.0]], [[0]], 33), "vit")


def test_reconstruct_is_encode_and_decode(sae, acts):
    expected = sae.decode(sae.encode(acts["vit"], "vit"), "siglip")
    assert np.array_equal(sae.reconstruct(acts["vit"], "vit", "siglip"), expected)


def test_dense_preactivations_are_refused_above_a_size(trained, monkeypatch):
    monkeypatch.setattr(universal_sae, "LARGEST_PREACTIVATIONS", 4 * 32 * 100)
    assert trained.preactivations(np.zeros((100, 17), np.float32), "vit").shape == (100, 32)
    with pytest.raises(usae.InvalidInputError, match="pre-activations of 101 tokens.*at most 100 rows at a time"):
        trained.preactivations(np.zeros((101, 17), np.float32), "vit")
    with pytest.raises(usae.InvalidInputError, match="at most 100 rows"):  # before the array is looked at
        trained.preactivations(np.broadcast_to(np.float32(0), (10**12, 17)), "vit")


def test_dictionary_rows_have_norm_one_and_models_units_are_their_scale(sae):
    for name, width in WIDTHS.items():
        rows = sae.dictionary(name)
        assert rows.shape == (32, width) and rows.dtype == np.float32
        # A float32 sum of d squares rounds d times, the root halves that, the division adds one; epsilon is 1e-8.
        assert np.abs(np.linalg.norm(rows.astype(float), axis=1) - 1).max() <= (width / 2 + 2) * EPS
        assert np.array_equal(sae.dictionary(name, units="model"), rows * sae.parameters(name)["scale"])
    with pytest.raises(usae.InvalidInputError, match='units must be "standardized" or "model"'):
        sae.dictionary("vit", units="raw")


# --- Parameters --------------------------------------------------------------------------------------------------------


def test_parameters_can_be_carried_to_another_autoencoder(sae, acts):
    other = UniversalSAE(32, 4, recipe=sae.recipe).initialize(WIDTHS)
    for name in WIDTHS:
        other.set_parameters(name, sae.parameters(name))
    for name, x in acts.items():
        assert other.encode(x, name) == sae.encode(x, name)
        assert np.array_equal(other.reconstruct(x, name, "vit"), sae.reconstruct(x, name, "vit"))


def test_parameters_have_the_shapes_that_are_documented(sae):
    batchnorm = {name: (32,) for name in ("bn_weight", "bn_bias", "bn_running_mean", "bn_running_var")}
    for name, width in WIDTHS.items():
        expected = {"mean": (width,), "scale": (width,), "encoder_weight": (32, width), "encoder_bias": (32,)}
        expected |= {"dictionary": (32, width)} | (batchnorm if sae.recipe_.encoder == "batchnorm" else {})
        assert {key: values.shape for key, values in sae.parameters(name).items()} == expected
        assert all(values.dtype == np.float32 for values in sae.parameters(name).values())


def test_parameters_are_copies(trained):
    before = everything(trained)
    trained.parameters("vit")["mean"][:] = 5
    trained.dictionary("vit")[:] = 5
    assert everything(trained) == before


def test_parameters_may_be_of_any_float_type(sae):
    new = np.arange(WIDTHS["vit"]) / 8
    for values in (new, new.astype(np.float16), torch.tensor(new), torch.tensor(new).bfloat16(), new[::-1].copy()[::-1]):
        sae.set_parameters("vit", {"mean": np.zeros(WIDTHS["vit"])})
        sae.set_parameters("vit", {"mean": values})
        assert np.array_equal(sae.parameters("vit")["mean"], new)


GOOD = {"encoder_bias": np.ones(32), "mean": np.ones(17)}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"bias": np.ones(32)}, "unknown name 'bias'; this recipe has mean, scale, encoder_weight"),
        ({"dictionary": np.ones((32, 16))}, r"parameters\['dictionary'\] must have shape \[32, 17\], got \[32, 16\]"),
        ({"dictionary": np.ones((32, 17), int)}, r"parameters\['dictionary'\].*got int64"),
        ({"encoder_weight": np.full((32, 17), np.nan)}, r"must be finite as float32, got nan at \[0, 0\]"),
        ({"encoder_weight": np.full((32, 17), 1e39)}, "must be finite as float32, got inf"),
        ({"scale": np.zeros(17)}, "scale"),
        ({"scale": -np.ones(17)}, "scale"),
        ({"scale": None}, r"parameters\['scale'\]"),
    ],
)
def test_bad_parameters_are_refused_and_none_is_set(trained, bad, words):
    before = everything(trained)
    with pytest.raises(usae.InvalidInputError, match=words):
        trained.set_parameters("vit", GOOD | bad)
    with pytest.raises(usae.InvalidInputError, match=words):
        trained.set_parameters("vit", bad | GOOD)
    assert everything(trained) == before
    with pytest.raises(usae.InvalidInputError, match="mapping from names to arrays"):
        trained.set_parameters("vit", [np.ones(3)])


def test_batchnorm_parameters_belong_to_the_batchnorm_encoder(acts, trained):
    with pytest.raises(usae.InvalidInputError, match="unknown name 'bn_bias'"):
        trained.set_parameters("vit", {"bn_bias": np.ones(32)})
    sae = small(encoder="batchnorm").fit(acts, steps=1)
    before = everything(sae)
    with pytest.raises(usae.InvalidInputError, match="var"):
        sae.set_parameters("vit", GOOD | {"bn_running_var": -np.ones(32)})
    assert everything(sae) == before


@pytest.mark.parametrize("update", ["all", "encoder"])
def test_gradients_are_those_of_the_tensors_that_a_step_would_change_and_change_nothing(acts, update):
    sae = small(encoder="batchnorm", update=update).fit(acts, steps=3)
    before = everything(sae)
    report, gradients = sae.gradients(acts, encoder="siglip")
    assert everything(sae) == before
    assert report.encoder == "siglip" and report.loss > 0
    own = {"encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary"}
    expected = {"siglip": own} if update == "encoder" else {"dinov2": {"dictionary"}, "siglip": own, "vit": {"dictionary"}}
    assert {name: set(tensors) for name, tensors in gradients.items()} == expected
    for name, tensors in gradients.items():
        parameters = sae.parameters(name)
        for tensor, values in tensors.items():
            assert values.shape == parameters[tensor].shape and np.isfinite(values).all()
            assert tensor == "encoder_bias" or np.abs(values).max() > 0  # a bias in front of BatchNorm has none
    assert sae.partial_fit(acts, encoder="siglip").loss == report.loss


# --- Plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_that_is_over_is_said_once_and_can_be_changed(sae, acts):
    before = sae.dictionary("vit")
    with pytest.warns(UserWarning, match=r"planned 30 steps are over.*set_total_steps\(None\)") as given:
        assert sae.partial_fit(acts).learning_rate == 0
        sae.partial_fit(acts)
    assert len(given) == 1
    assert np.abs(sae.dictionary("vit") - before).max() <= EPS  # rows are brought back to norm 1 again
    sae.set_total_steps(None)
    assert sae.partial_fit(acts).learning_rate == RECIPE.learning_rate
    assert np.abs(sae.dictionary("vit") - before).max() > 1e-4
    sae.set_total_steps(40)
    assert sae.recipe_.total_steps == 40
    assert 0 < sae.partial_fit(acts).learning_rate < RECIPE.learning_rate


@pytest.mark.parametrize("wrong", [29, 0, -1, 1.5, "40", True, 2**60])
def test_a_plan_shorter_than_what_is_done_is_refused(sae, wrong):
    before = everything(sae)
    with pytest.raises(usae.InvalidInputError, match="total_steps must be an integer from 30"):
        sae.set_total_steps(wrong)
    assert everything(sae) == before


# --- Several threads and processes -------------------------------------------------------------------------------------


def test_training_gets_its_turn_while_others_encode(trained, acts):
    sae = copy.deepcopy(trained).set_total_steps(None)
    stop = threading.Event()

    def encode():
        while not stop.is_set():
            sae.encode(acts["vit"], "vit")

    others = [threading.Thread(target=encode) for _ in range(3)]
    for thread in others:
        thread.start()
    training = threading.Thread(target=lambda: [sae.partial_fit(acts) for _ in range(20)])
    training.start()
    training.join(30)
    finished = not training.is_alive()
    stop.set()
    for thread in (training, *others):
        thread.join()
    assert finished and sae.n_steps_ == trained.n_steps_ + 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_works_with_what_was_at_rest_and_is_told_what_was_not(acts):
    """The child has the parent's memory, but not the thread that trains."""
    resting, busy = small().fit(acts, steps=2), small().fit(acts, steps=2).set_total_steps(None)
    expected = resting.encode(acts["vit"], "vit")
    stop = threading.Event()
    training = threading.Thread(target=lambda: [busy.partial_fit(acts) for _ in iter(stop.is_set, True)])
    training.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs is a failure, not a hang
                good = resting.encode(acts["vit"], "vit") == expected and small().fit(acts, steps=2).n_steps_ == 2
                try:
                    busy.encode(acts["vit"], "vit")
                except usae.InvalidInputError as error:  # it was in the middle of a step
                    good = good and "forked" in str(error)
                os._exit(0 if good else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        training.join()


# --- Copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [copy.deepcopy, lambda sae: pickle.loads(pickle.dumps(sae))])
def test_a_copy_is_independent_and_goes_on_like_the_original(sae, acts, how):
    sae.set_total_steps(None)  # or the plan would be over, and a step would change nothing
    copied, original = how(sae), everything(sae)
    assert everything(copied) == original
    copied.partial_fit(acts)
    assert everything(sae) == original != everything(copied)
    sae.partial_fit(acts)
    assert everything(sae) == everything(copied)
    assert how(small()).get_params() == small().get_params()


def test_no_warning_is_given_without_a_reason(acts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = small().fit(planted(300, 5), steps=3).set_total_steps(None)
        sae.partial_fit(acts)
        sae.evaluate(acts)
