"""`fit` and `partial_fit`: what is learned, recorded and told."""

import copy
import logging

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import usae
from support.autoencoders import EPS, RECIPE, WIDTHS, everything, small
from support.refusals import refuses
from usae import _usae
from usae._training import loop

# --- Learning ---------------------------------------------------------------------------------------------------------


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
    with refuses("activations of 'vit'", "NaN or infinity"):
        sae.partial_fit(bad)
    with refuses("activations of 'vit'", "NaN or infinity"):
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


class Undecided:
    def __bool__(self):
        raise RuntimeError("a truth value that nobody asked for")


@pytest.mark.parametrize(
    "result", [24, "stop", 1.0, [0], {"loss": 1}, np.ones(3), np.ones(()), torch.ones(2), Undecided(), object()]
)
def test_only_true_ends_the_training(acts, result):
    assert small().fit(acts, steps=3, callbacks=[lambda report: result]).n_steps_ == 3


@pytest.mark.parametrize("result", [True, np.True_, np.array(True), torch.tensor(True)])
def test_a_training_that_a_callback_ends_says_so_in_the_log(acts, result, caplog):
    with caplog.at_level("INFO", logger="usae"):
        assert small().fit(acts, steps=9, callbacks=[lambda report: result]).n_steps_ == 1
    assert "1 of 9" in caplog.text


@pytest.mark.parametrize("progress", ["no", 2, np.ones(3), Undecided()])
def test_a_bad_argument_leaves_no_folder_of_checkpoints(acts, progress, tmp_path):
    with refuses("progress"):
        small().fit(acts, steps=3, checkpoint=tmp_path / "run", progress=progress)
    assert not (tmp_path / "run").exists()


def test_after_an_exception_in_a_callback_the_object_has_what_was_learned(acts):
    error = usae.CheckpointError("which is not taken for one of ours")

    def fail(report):
        if report.step == 4:
            raise error

    sae = small()
    with pytest.raises(usae.CheckpointError) as caught:
        sae.fit(acts, steps=9, callbacks=[fail])
    assert caught.value is error
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
    with refuses("callbacks"):
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
    fitted = copy.deepcopy(trained)._autoencoder
    fitted.history = []
    report = usae.StepReport(**trained.history_[0])
    for step in (1, 9_999, 10_000, 10_001, 10_099, 10_100, 10_150, 1_000_000):
        fitted.record(usae.StepReport(**(report.to_dict() | {"step": step})))
    assert [entry["step"] for entry in fitted.history] == [1, 9_999, 10_000, 10_100, 1_000_000]


def test_progress_is_told_in_lines_where_asked_for_and_not_in_a_pipe(acts, capfd):
    small().fit(acts, steps=3)
    small().fit(acts, steps=3, progress=False)
    assert capfd.readouterr() == ("", "")
    small().fit(acts, steps=3, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "3 of 3" in err and "|" not in err
    with refuses("progress", "'yes'"):
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


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_that_is_over_is_said_once_and_can_be_changed(sae, acts):
    before = sae.dictionary("vit")
    with pytest.warns(UserWarning, match=r"\b30 .*set_total_steps\(None\)") as given:
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
    with refuses("total_steps"):
        sae.set_total_steps(wrong)
    assert everything(sae) == before
