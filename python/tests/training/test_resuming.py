"""What a run that goes on comes to: the bytes of one that did not stop. test_kills.py stops processes from outside."""

import os
import signal

import numpy as np
import pytest

import usae
from support.autoencoders import everything
from support.folders import files
from support.refusals import refuses
from support.runs import RECIPES, STEPS, Counted, Crash, crash, new, saved, steps_kept

pytestmark = pytest.mark.slow  # together: each is short

FORMS = pytest.mark.parametrize("data", ["array", "memory map", "store", "stream"], indirect=True)


def learn(sae, data, **options):
    method, given = data
    options = {"steps": STEPS} | options | ({"buffer_tokens": 300} if method == "fit_stream" else {})
    return getattr(sae, method)(given, **options)


# --- The same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_stops_twice_comes_to_the_bytes_of_one_that_does_not(data, recipe, held_out, tmp_path):
    expected = saved(learn(new(recipe), data, validation=held_out), tmp_path / "whole")
    for at in (7, 8, 23):
        with pytest.raises(Crash):
            learn(new(recipe), data, validation=held_out, checkpoint=tmp_path / "run", resume=True, callbacks=[crash(at)])
        assert steps_kept(tmp_path / "run")[-1] == at
    sae = learn(new(recipe), data, validation=held_out, checkpoint=tmp_path / "run", resume=True)
    assert saved(sae, tmp_path / "resumed") == expected
    assert files(tmp_path / "run" / f"step-{STEPS:09}") == expected


@FORMS
def test_checkpoints_do_not_change_what_is_learned(data, tmp_path):
    expected = saved(learn(new(), data), tmp_path / "whole")
    sae = learn(new(), data, checkpoint=usae.Checkpoints(tmp_path / "run", every_steps=1))
    assert saved(sae, tmp_path / "kept") == expected


@pytest.mark.parametrize("step", [1, 5, 29, 30])
def test_ctrl_c_ends_the_training_after_the_step_and_with_a_checkpoint(acts, held_out, tmp_path, step):
    def ctrl_c(report):
        if report.step == step:
            signal.raise_signal(signal.SIGINT)
            stepped.append(report.step)  # the callback comes to its end

    stepped, expected = [], saved(new().fit(acts, steps=STEPS, validation=held_out), tmp_path / "whole")
    sae = new()
    with pytest.raises(KeyboardInterrupt):
        sae.fit(acts, steps=STEPS, validation=held_out, callbacks=[ctrl_c], checkpoint=tmp_path / "run")
    assert stepped == [step] == steps_kept(tmp_path / "run") and sae.n_steps_ == step
    resumed = new().fit(acts, steps=STEPS, validation=held_out, checkpoint=tmp_path / "run", resume=True)
    assert saved(resumed, tmp_path / "resumed") == expected


def test_a_run_that_a_callback_ended_goes_on_as_if_it_had_not(acts, held_out, tmp_path):
    expected = saved(new().fit(acts, steps=STEPS, validation=held_out), tmp_path / "whole")
    options = {"steps": STEPS, "validation": held_out, "checkpoint": tmp_path / "run", "resume": True}
    ended = new().fit(acts, callbacks=[lambda report: report.step == 11], **options)
    assert ended.n_steps_ == 11 and ended.history_[-1]["validation"]["n_tokens"] == 200
    assert steps_kept(tmp_path / "run") == [11]
    assert saved(new().fit(acts, **options), tmp_path / "resumed") == expected


def test_a_finished_run_is_given_back_without_training(acts, tmp_path):
    sae = new().fit(acts, steps=STEPS, checkpoint=tmp_path / "run")
    again = new().fit(acts, steps=STEPS, checkpoint=tmp_path / "run", resume=True, callbacks=[crash(at) for at in range(99)])
    assert everything(again) == everything(sae)


@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
def test_a_run_may_go_on_with_another_number_of_threads(acts, tmp_path, threads):
    expected = saved(new().fit(acts, steps=STEPS), tmp_path / "whole")
    with pytest.raises(Crash):
        new(n_threads=threads[0]).fit(acts, steps=STEPS, checkpoint=tmp_path / "run", callbacks=[crash(9)])
    sae = new(n_threads=threads[1]).fit(acts, steps=STEPS, checkpoint=tmp_path / "run", resume=True)
    assert saved(sae, tmp_path / "resumed") == expected and sae.n_threads == threads[1]


def test_a_recipe_that_is_left_out_stays_so(acts, tmp_path):
    with pytest.raises(Crash):
        new(recipe="default").set_params(recipe=None).fit(acts, steps=9, checkpoint=tmp_path / "run", callbacks=[crash(3)])
    sae = new().set_params(recipe=None).fit(acts, steps=9, checkpoint=tmp_path / "run", resume=True)
    assert sae.recipe is None and usae.Checkpoints(tmp_path / "run").load().recipe is None


def test_a_step_that_fails_is_not_in_the_checkpoint_but_the_one_before_is(acts, tmp_path):
    batches = [{name: x[:300] for name, x in acts.items()}] * 2 + [{name: x[:300] * np.nan for name, x in acts.items()}]
    with refuses("batches[2]['dinov2']", "NaN or infinity in row 0, column 0"):
        new().fit_stream(batches, steps=50, buffer_tokens=128, checkpoint=tmp_path / "run")
    assert len(steps_kept(tmp_path / "run")) == 1
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == len(usae.Checkpoints(tmp_path / "run").load().history_)


# --- Only the same run ------------------------------------------------------------------------------------------------


def test_a_stream_that_cannot_be_gone_through_again_is_refused_before_the_crash_and_not_after_it(acts, tmp_path):
    for batches in (iter([acts]), (batch for batch in [acts])):
        with refuses("batches"):
            new().fit_stream(batches, steps=3, checkpoint=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    new().fit_stream(iter([acts]), steps=3, buffer_tokens=600, checkpoint=tmp_path / "run")
    assert steps_kept(tmp_path / "run") == [3]


def test_the_report_of_a_stream_that_goes_on_counts_its_own_steps(acts, tmp_path):
    options = {"steps": 20, "buffer_tokens": 300, "checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(Crash):
        new().fit_stream([acts], callbacks=[crash(8)], **options)
    report = new().fit_stream([acts], **options).stream_report_
    assert report.steps == 12 and report.tokens == 12 * 128 and report.epochs > 1


def test_ctrl_c_ends_the_way_to_the_place_where_a_stream_goes_on(acts, tmp_path):
    options = {"steps": 200, "buffer_tokens": 600, "checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(Crash):
        new().fit_stream(Counted(acts), callbacks=[crash(150)], **options)
    batches = Counted(acts, at=10, do=lambda: os.kill(os.getpid(), signal.SIGINT))  # in the other thread
    with pytest.raises(KeyboardInterrupt):
        new().fit_stream(batches, **options)
    assert batches.taken < 25  # of 128 * 150 / 600 = 32
    assert steps_kept(tmp_path / "run") == [150]


def test_a_finished_stream_is_given_back_after_its_first_rows(acts, tmp_path):
    options = {"steps": 200, "buffer_tokens": 600, "checkpoint": tmp_path / "run", "resume": True}
    new().fit_stream(Counted(acts), **options)
    batches = Counted(acts)
    assert new().fit_stream(batches, **options).n_steps_ == 200 and batches.taken < 5
