"""What training says of itself: which runs it warns of, of which it does not, and with which remedy."""

import dataclasses
import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS, everything, planted, small
from support.commands import run
from usae._core.reports import StepReport
from usae._data.activations import as_activations
from usae._training.watch import Watch

pytestmark = pytest.mark.slow

WILD = RECIPE.replace(learning_rate=1.0)


def said(call):
    """What the call warns of training, with the model and the step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [warning for warning in caught if ", step " in str(warning.message)]


def texts(call):
    return [str(warning.message) for warning in said(call)]


def wild(**changes):
    return usae.UniversalSAE(32, 4, recipe=WILD.replace(**changes), seed=3)


def partial_fits(sae, batch, n):
    for _ in range(n):
        sae.partial_fit(batch)


# --- Steps that are too large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("changes", [{}, {"loss": "l1"}, {"prefix_loss": "mean"}, {"initialization": "tied"}])
def test_too_large_steps_are_one_warning_that_names_model_step_and_rate(acts, held_out, validated, changes):
    validation = held_out if validated else None
    (warning,) = said(lambda: wild(**changes).fit(acts, steps=120, validation=validation))
    text = str(warning.message)
    assert warning.category is UserWarning and warning.filename == __file__
    assert any(text.startswith(f"model {name!r}, step ") for name in WIDTHS)
    assert "learning_rate" in text and "0.5 or 0.33 in place of 1" in text


def test_streams_and_steps_by_hand_are_watched_too(acts):
    batches = [{name: x[start : start + 200] for name, x in acts.items()} for start in (0, 200, 400)]
    assert len(texts(lambda: wild().fit_stream(batches, steps=120, buffer_tokens=600))) == 1
    sae = wild(warmup_steps=10)
    assert len(texts(lambda: partial_fits(sae, acts, 120))) == 1
    assert texts(lambda: partial_fits(sae, acts, 40)) == []  # once in a run


def test_the_command_train_is_watched(acts, tmp_path):
    for name, x in acts.items():
        np.save(tmp_path / f"{name}.npy", x)
    files = [f"{name}={tmp_path / f'{name}.npy'}" for name in acts]
    call = ["train", "--acts", *files, "--output", tmp_path / "model", "--n-concepts", "32", "--k", "4", "--steps", "120"]
    assert len(texts(lambda: run(*call, "--learning-rate", "1", "--batch-size", "128"))) == 1


def test_only_one_of_the_processes_that_train_together_warns(acts):
    sae = wild(warmup_steps=10)
    sae.partial_fit(acts)
    sae._autoencoder.is_watched = False
    assert texts(lambda: partial_fits(sae, acts, 120)) == []


def test_training_that_is_continued_is_compared_with_its_start(acts, tmp_path):
    """A saved autoencoder that was good, and is trained on at a high rate, gets worse than it was, and not than its start."""
    good = small().fit(acts, steps=120)
    good.save(tmp_path / "good", training_state=True)
    loaded = usae.load(tmp_path / "good").set_total_steps(None)
    assert texts(lambda: partial_fits(loaded, acts, 40)) == []

    wild(warmup_steps=10).fit(acts, steps=60, checkpoint=tmp_path / "run", callbacks=[lambda report: report.step == 20])
    resumed = wild(warmup_steps=10)
    assert len(texts(lambda: resumed.fit(acts, steps=60, checkpoint=tmp_path / "run", resume=True))) == 1


def test_a_warning_that_is_an_error_leaves_what_was_learned(acts, tmp_path):
    sae = wild(warmup_steps=10)
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="learning_rate"):
        warnings.filterwarnings("error", message=".*learning_rate")
        sae.fit(acts, steps=120, checkpoint=tmp_path / "run")
    assert 10 < sae.n_steps_ < 120
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == sae.n_steps_


def test_watching_changes_no_bit(acts, held_out):
    def after_training(watched):
        sae = wild(warmup_steps=10)
        sae.partial_fit(acts)
        sae._autoencoder.is_watched = watched
        said(lambda: partial_fits(sae, acts, 60))
        return everything(sae)

    assert after_training(True) == after_training(False)


# --- Healthy runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [12, 60, 150])
@pytest.mark.parametrize("changes", [{}, {"loss": "l1"}, {"selection": "batchtopk"}, {"initialization": "tied"}])
def test_healthy_runs_are_quiet(acts, held_out, steps, changes):
    assert texts(lambda: small(**changes).fit(acts, steps=steps, validation=held_out)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [usae.recipes.default(), usae.recipes.matryoshka(), usae.recipes.agreeing(), usae.recipes.published(total_steps=500)],
)
def test_the_recipes_are_quiet_on_activations_of_networks(recipe):
    train, held_out = usae.demo.activations()
    sae = usae.UniversalSAE(256, 12, recipe=recipe, seed=0)
    assert texts(lambda: sae.fit(train, steps=recipe.total_steps or 200, validation=held_out)) == []


def test_wrongly_paired_rows_are_no_fault_of_training(acts, held_out):
    shuffled = {name: np.random.default_rng(i).permutation(x) for i, (name, x) in enumerate(acts.items())}
    sae = small()
    assert texts(lambda: sae.fit(shuffled, steps=150, validation=held_out)) == []
    r2 = np.array(sae.history_[-1]["validation"]["r2"])
    assert r2[~np.eye(3, dtype=bool)].mean() < 0.05  # what the watch must not take for a fault


def test_rows_of_single_models_that_drive_codes_apart_need_more_steps_of_aligned_ones():
    train, held_out = usae.demo.activations()
    rows = {name: x.reshape(-1, x.shape[-1]) for name, x in train.items()}
    weak = usae.WeaklyPaired({name: x[:400] for name, x in rows.items()}, *[{name: x[400:]} for name, x in rows.items()])
    apart = usae.recipes.default(batch_size=256, encoded_models="one", dictionary_norm="unit", input_noise=0.0)
    sae = usae.UniversalSAE(256, 12, recipe=apart, seed=0)
    (text,) = texts(lambda: sae.fit(weak, steps=200, validation=held_out))
    assert "usae.WeaklyPaired" in text and "step 200" in text


def test_few_rows_and_models_alone_are_quiet(acts):
    for rows in (8, 40):
        assert texts(lambda rows=rows: small().fit({name: x[:rows] for name, x in acts.items()}, steps=60)) == []
    assert texts(lambda: small().fit({"vit": acts["vit"]}, steps=100)) == []


def test_activations_that_grow_are_compared_with_their_own_mean(acts):
    """Later batches are three times as long, with losses nine times as large, and explained as well."""
    means = {name: x.mean(0) for name, x in acts.items()}
    longer = {name: 3 * (x - means[name]) + means[name] for name, x in acts.items()}
    sae = small()
    partial_fits(sae, acts, 60)
    before = sae.history_[-1]["losses"]
    assert texts(lambda: partial_fits(sae, longer, 60)) == []
    assert all(sae.history_[-1]["losses"][name] > 2 * before[name] for name in before)


def test_activations_without_statistics_are_compared_with_their_own_mean():
    centred = {name: 10 * (x - x.mean(0)) for name, x in planted(600, seed=0).items()}
    sae = small(initialization="tied").initialize(WIDTHS)
    assert texts(lambda: partial_fits(sae, centred, 60)) == []


# --- The judgement itself -----------------------------------------------------------------------------------------------


class Run:
    """A watch that is told of made-up losses of one model, on batches whose mean has a loss of about 1."""

    def __init__(self, acts, **changes):
        self.sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(warmup_steps=5, **changes))
        self.sae.partial_fit({"vit": acts["vit"]})
        self.watch, self.step = Watch(self.sae._autoencoder), 0
        self.batch = {"vit": as_activations(acts["vit"], "acts")}, None
        self.said = []

    def losses(self, *losses):
        for loss in losses:
            self.step += 1
            report = StepReport(self.step, "vit", loss, 0, 4, 3e-3, 0, 0, 32, {"vit": loss})
            self.said += texts(lambda report=report: self.watch.step(report, self.batch))
        self.last = report
        return self

    def validation(self, r2, last=False):
        self.said += texts(lambda: self.watch.validation(self.step, [[r2]], last))
        return self

    def end(self):
        self.said += texts(lambda: self.watch.end(self.last, self.batch))
        return self

    def remedies(self):
        return ["length" if "more steps" in text else "rate" if "learning_rate" in text else "data" for text in self.said]


def falling(start, end, n=40):
    return np.geomspace(start, end, n).tolist()


def test_odd_batches_do_not_warn(acts):
    assert Run(acts).losses(*falling(0.5, 0.3), 30, 0.3, 0.3, 25, 0.3, *[0.3] * 20).said == []


def test_losses_above_those_of_the_start_or_the_mean_warn_once(acts):
    assert Run(acts).losses(*[0.5] * 10, *[0.7] * 30).remedies() == ["rate"]
    assert Run(acts).losses(*falling(0.5, 0.2), *[0.55] * 10).remedies() == []  # worse than it was, but not than its start
    assert Run(acts).losses(*falling(3, 0.5), *[1.2] * 10).remedies() == ["rate"]  # worse than the mean again
    assert Run(acts).losses(*falling(3, 1.2)).remedies() == []  # on its way


def test_a_dictionary_that_starts_with_every_row_may_lose_some(acts):
    assert Run(acts).losses(*[1e-4] * 10, *[0.05] * 30).said == []


def test_a_validation_below_the_mean_is_told_apart_by_the_training_loss(acts):
    swings = Run(acts).losses(*[0.5] * 4, *[0.65] * 6).validation(-0.4)
    assert swings.remedies() == ["rate"]
    assert Run(acts).losses(*falling(0.5, 0.2)).validation(-0.4).remedies() == ["data"]
    early = Run(acts).losses(*falling(2, 1.5)).validation(-0.4)
    assert early.remedies() == [] and early.validation(-0.3, last=True).remedies() == ["length"]
    assert Run(acts).losses(*[0.5] * 3).validation(-0.4).said == []  # in the warm-up
    assert Run(acts).losses(0.5, 9, 9, 9, 9, 9).validation(-8).remedies() == ["rate"]  # after few steps


def test_a_validation_far_below_its_best_is_overfitting_if_the_loss_falls(acts):
    run = Run(acts).losses(*falling(0.5, 0.3)).validation(0.6)
    run.losses(*falling(0.3, 0.1)).validation(0.55).validation(0.4, last=True)
    assert run.remedies() == ["data"] and "step 40" in run.said[0]
    run = Run(acts).losses(*falling(0.5, 0.3)).validation(0.6).losses(*[0.5] * 12).validation(0.4, last=True)
    assert run.remedies() == ["rate"]
    assert Run(acts).losses(*falling(0.5, 0.1)).validation(0.6).validation(0.55, last=True).said == []


def test_a_run_that_ends_above_the_mean_is_too_short(acts):
    assert Run(acts).losses(*falling(3, 1.5)).end().remedies() == ["length"]
    assert Run(acts).losses(*falling(3, 0.8)).end().said == []


def test_steps_of_shorter_prefixes_are_not_counted(acts):
    run = Run(acts).losses(*[0.5] * 10)
    report = dataclasses.replace(run.last, prefix=8, losses={"vit": 5.0})
    assert texts(lambda: [run.watch.step(dataclasses.replace(report, step=11 + i), run.batch) for i in range(30)]) == []
