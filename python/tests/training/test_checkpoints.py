"""Checkpoints of `fit` and `fit_stream`: what a run that goes on comes to, and what is in the folder meanwhile.

test_kills.py stops processes from outside.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import types

import numpy as np
import pytest
from conftest import RECIPE, everything

import usae
from usae._data import shuffled_blocks
from usae._files import disk
from usae._saved import saved_folder
from usae._training import checkpointing
from usae._training.delayed_signals import DelayedSignals

STEPS = 30
RECIPES = {
    "default": RECIPE.replace(dead_tokens=50),
    "published": usae.recipes.published(total_steps=STEPS, warmup_steps=4).replace(batch_size=100),
    "matryoshka": usae.recipes.matryoshka(batch_size=128),
    "batchtopk": RECIPE.replace(dead_tokens=50, selection="batchtopk", encoder="batchnorm"),
    "merging": RECIPE.replace(warmup_steps=0, merge_cosine=0.5, merge_every=1),
}


class Crash(Exception):
    pass


def crash(at):
    def callback(report):
        if report.step == at:
            raise Crash

    return callback


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def steps_kept(folder):
    return [int(name.removeprefix("step-")) for name in names(folder) if name.startswith("step-")]


def new(recipe="default", **options):
    return usae.UniversalSAE(24, 3, **{"recipe": RECIPES[recipe], "seed": 3} | options)


def saved(sae, folder):
    sae.save(folder, training_state=True)
    return files(folder)


@pytest.fixture
def few_rows_a_block(monkeypatch):
    """So that a small store has several groups, which is what moves the place in the data."""
    monkeypatch.setattr(shuffled_blocks, "BLOCK_ROWS", 32)
    monkeypatch.setattr(shuffled_blocks, "GROUP_BLOCKS", 4)


@pytest.fixture
def data(request, acts, tmp_path, few_rows_a_block):
    """The same activations in the forms that `fit` reads, and which of its methods takes them."""
    if request.param == "array":
        return "fit", acts
    if request.param == "memory map":
        for name, x in acts.items():
            np.save(tmp_path / f"{name}.npy", x)
        return "fit", {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in acts}
    if request.param == "store":
        with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
            for start in range(0, 600, 100):
                store.append({name: x[start : start + 100] for name, x in acts.items()})
        return "fit", usae.ActivationStore(tmp_path / "acts")
    return "fit_stream", [{name: x[start : start + 70] for name, x in acts.items()} for start in range(0, 600, 70)]


FORMS = pytest.mark.parametrize("data", ["array", "memory map", "store", "stream"], indirect=True)


def learn(sae, data, **options):
    method, given = data
    options = {"steps": STEPS} | options | ({"buffer_tokens": 300} if method == "fit_stream" else {})
    return getattr(sae, method)(given, **options)


# --- The same bits -----------------------------------------------------------------------------------------------------


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
    with pytest.raises(usae.InvalidInputError, match="must be finite"):
        new().fit_stream(batches, steps=50, buffer_tokens=128, checkpoint=tmp_path / "run")
    assert len(steps_kept(tmp_path / "run")) == 1
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == len(usae.Checkpoints(tmp_path / "run").load().history_)


# --- How often, and how many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "kept"), [(1, [12]), (2, [10, 12]), (4, [4, 6, 8, 10, 12][-4:]), (99, [2, 4, 6, 8, 10, 12])])
def test_the_newest_are_kept(acts, tmp_path, keep, kept):
    new().fit(acts, steps=12, checkpoint=usae.Checkpoints(tmp_path / "run", every_steps=2, keep=keep))
    assert steps_kept(tmp_path / "run") == kept
    assert [name for name in names(tmp_path / "run") if "step" not in name] == ["usae-run.json", "writer.lock"]


def test_which_steps_have_one_does_not_depend_on_where_the_run_stopped(acts, tmp_path):
    checkpoints = usae.Checkpoints(tmp_path / "run", every_steps=4, keep=99)
    with pytest.raises(Crash):
        new().fit(acts, steps=12, checkpoint=checkpoints, callbacks=[crash(6)])
    new().fit(acts, steps=12, checkpoint=checkpoints, resume=True)
    assert steps_kept(tmp_path / "run") == [4, 6, 8, 12]


def test_minutes_count_from_the_last_checkpoint(acts, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpointing, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def four_seconds(report):
        now[0] += 4

    checkpoints = usae.Checkpoints(tmp_path / "run", every_steps=7, every_minutes=0.25, keep=99)
    new().fit(acts, steps=15, checkpoint=checkpoints, callbacks=[four_seconds])
    assert steps_kept(tmp_path / "run") == [4, 7, 11, 14, 15]


def test_without_an_interval_there_is_one_at_the_end(acts, tmp_path):
    new().fit(acts, steps=12, checkpoint=usae.Checkpoints(tmp_path / "run", every_minutes=None))
    assert steps_kept(tmp_path / "run") == [12]


# --- Reading ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_save_with_training_state(acts, tmp_path):
    sae = new().fit(acts, steps=6, checkpoint=str(tmp_path / "run"))
    loaded = usae.load(tmp_path / "run" / "step-000000006")
    assert everything(loaded) == everything(sae) == everything(usae.Checkpoints(tmp_path / "run").load(n_threads=2))
    assert loaded.get_params() == sae.get_params() and usae.Checkpoints(tmp_path / "run").load(n_threads=2).n_threads == 2


def test_a_reader_beside_the_run_always_finds_a_whole_one(acts, tmp_path):
    checkpoints, seen, problems = usae.Checkpoints(tmp_path / "run", every_steps=1, keep=1), set(), []

    def read():
        try:
            while not done.is_set():
                seen.add(checkpoints.load().n_steps_)
        except Exception as problem:
            problems.append(problem)

    done, reader = threading.Event(), threading.Thread(target=read)
    new().fit(acts, steps=60, checkpoint=checkpoints, callbacks=[lambda report: report.step == 2 and reader.start()])
    done.set()
    reader.join()
    assert problems == [] and seen


def test_loading_the_folder_of_all_checkpoints_says_how_one_is_loaded(acts, tmp_path):
    new().fit(acts, steps=2, checkpoint=tmp_path / "run")
    with pytest.raises(usae.CheckpointError, match=r"holds checkpoints of a run; use usae.Checkpoints\(path\).load\(\)"):
        usae.load(tmp_path / "run")


@pytest.mark.parametrize("exists", [False, True])
def test_no_checkpoint_yet_is_said(tmp_path, exists):
    if exists:
        (tmp_path / "run").mkdir()
    with pytest.raises(usae.CheckpointError, match="there is no checkpoint yet"):
        usae.Checkpoints(tmp_path / "run").load()


class Stop(BaseException):
    """As if the computer stopped."""


def computer_that_stops(patch, stop_at):
    """Stop at the given call that changes the disk, and clean nothing up."""
    done = []

    def counted(function):
        def wrapper(*arguments, **named):
            if len(done) >= stop_at:
                raise Stop
            done.append(function.__name__)
            return function(*arguments, **named)

        return wrapper

    patch.setattr(saved_folder, "write_tensors", counted(saved_folder.write_tensors))
    patch.setattr(disk, "write_text", counted(disk.write_text))
    patch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
    patch.setattr(pathlib.Path, "replace", counted(pathlib.Path.replace))
    patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    return done


def test_wherever_the_computer_stops_the_newest_checkpoint_is_whole_and_the_run_goes_on_to_the_same_bytes(acts, tmp_path):
    expected = saved(new().fit(acts, steps=6), tmp_path / "whole")
    seen = []
    for stop_at in range(100):
        checkpoints = usae.Checkpoints(tmp_path / str(stop_at), every_steps=1, keep=1)
        with pytest.MonkeyPatch.context() as patch:
            done = computer_that_stops(patch, stop_at)
            with contextlib.suppress(Stop):
                new().fit(acts, steps=6, checkpoint=checkpoints, resume=True)
        there = steps_kept(checkpoints.path)
        seen.append(checkpoints.load().n_steps_ if there else 0)
        assert seen[-1] == max(there, default=0)
        sae = new().fit(acts, steps=6, checkpoint=checkpoints, resume=True)
        assert saved(sae, tmp_path / f"{stop_at} resumed") == expected
        assert names(checkpoints.path) == ["step-000000006", "usae-run.json", "writer.lock"]
        if len(done) < stop_at:
            break
    assert seen == sorted(seen) and set(seen) == set(range(7)) and len(seen) > 30


def flip(file):
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_put_aside(acts, tmp_path):
    expected = saved(new().fit(acts, steps=STEPS), tmp_path / "whole")
    with pytest.raises(Crash):
        new().fit(acts, steps=STEPS, checkpoint=usae.Checkpoints(tmp_path / "run", every_steps=4), callbacks=[crash(14)])
    flip(tmp_path / "run" / "step-000000014" / "model.safetensors")
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == 12
    with pytest.warns(UserWarning, match="damaged, so training goes on from an earlier one: .*step-000000014: model.safetens"):
        sae = new().fit(acts, steps=STEPS, checkpoint=tmp_path / "run", resume=True)
    assert saved(sae, tmp_path / "resumed") == expected
    assert steps_kept(tmp_path / "run") == [12, 30] and "damaged-step-000000014" in names(tmp_path / "run")


def test_where_all_are_damaged_nothing_begins_anew_by_itself(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    flip(tmp_path / "run" / "step-000000004" / "model.safetensors")
    for call in (
        usae.Checkpoints(tmp_path / "run").load,
        lambda: new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True),
    ):
        with pytest.raises(usae.CheckpointError, match="step-000000004: model.safetensors is damaged"):
            call()
    assert steps_kept(tmp_path / "run") == [4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: "{", "usae-run.json is damaged or cut short"),
        (lambda header: "[]", "usae-run.json was not written by usae"),
        (lambda header: json.dumps(header | {"format": "other"}), "was not written by usae"),
        (lambda header: json.dumps(header | {"run": []}), "was not written by usae"),
        (lambda header: json.dumps(header | {"format_version": 2}), "written in format 2 by usae .*; update usae"),
        (None, "there is no usae-run.json in it|holds other things"),
    ],
)
def test_a_damaged_description_of_the_run_is_refused(acts, tmp_path, change, words):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    if change is None:
        file.unlink()
    else:
        file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(usae.CheckpointError, match=words):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


def test_a_run_of_another_version_goes_on_with_a_warning(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"package_version": "0.0.9"}))
    with pytest.warns(UserWarning, match=r"begun with usae 0\.0\.9 and goes on with"):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


# --- Only the same run --------------------------------------------------------------------------------------------------

CHANGES = {
    "seed": (lambda sae, acts, options: sae.set_params(seed=4), "begun with seed 3, but this call has 4"),
    "n_concepts": (lambda sae, acts, options: sae.set_params(n_concepts=25), "begun with n_concepts 24, .* 25"),
    "k": (lambda sae, acts, options: sae.set_params(k=2), "begun with k 3, but this call has 2"),
    "recipe": (
        lambda sae, acts, options: sae.set_params(recipe=RECIPES["default"].replace(beta1=0.8)),
        r"begun with recipe\.beta1 0\.9, but this call has 0\.8",
    ),
    "steps": (lambda sae, acts, options: options.update(steps=31), "begun with steps 30, but this call has 31"),
    "a model's name": (
        lambda sae, acts, options: acts.update(clip=acts.pop("vit")),
        r"begun with models \['dinov2', 'siglip', 'vit'\], but this call has .*'clip'",
    ),
    "order of models": (lambda sae, acts, options: acts.update(dinov2=acts.pop("dinov2")), r"models .*'vit', 'dinov2'"),
    "rows": (
        lambda sae, acts, options: acts.update({name: x[1:] for name, x in acts.items()}),
        r"begun with acts\['dinov2'\]: rows 600, but this call has 599",
    ),
    "columns": (lambda sae, acts, options: acts.update(vit=acts["vit"][:, 1:]), r"acts\['vit'\]: columns 17, .* 16"),
    "elements": (
        lambda sae, acts, options: acts.update(vit=acts["vit"].astype(np.float64)),
        r"acts\['vit'\]: elements 'float32', but this call has 'float64'",
    ),
    "values": (lambda sae, acts, options: acts.update(vit=2 * acts["vit"]), r"acts\['vit'\]: values of rows '[0-9a-f]{64}'"),
    "validation": (lambda sae, acts, options: options.pop("validation"), "validation 'given', but this call has 'not given'"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_another_run_is_refused_by_its_first_difference_and_nothing_changes(acts, held_out, tmp_path, change):
    acts, options = dict(acts), {"steps": STEPS, "validation": dict(held_out), "checkpoint": tmp_path / "run"}
    with pytest.raises(Crash):
        new().fit(acts, callbacks=[crash(5)], **options)
    before = names(tmp_path / "run")
    sae, (make, words) = new(), CHANGES[change]
    make(sae, acts, options)
    if "validation" in options:  # of the same models
        options["validation"] = {name: held_out.get(name, held_out["vit"])[:, : x.shape[1]] for name, x in acts.items()}
    with pytest.raises(usae.InvalidInputError, match=f"resume: the run in '.*/run' was .*{words}"):
        sae.fit(acts, resume=True, **options)
    assert names(tmp_path / "run") == before and not hasattr(sae, "history_")


def test_a_store_of_other_files_is_refused(acts, tmp_path):
    stores = {}
    for factor in (1, 2):
        with usae.ActivationStore.create(tmp_path / str(factor), dtype="float32") as stores[factor]:
            stores[factor].append({name: factor * x for name, x in acts.items()})
    new().fit(stores[1], steps=5, checkpoint=tmp_path / "run")
    for other, words in ((stores[2], r"acts\['dinov2'\]: files '[0-9a-f]{64}'"), (acts, r"acts\['dinov2'\]: (files|values)")):
        with pytest.raises(usae.InvalidInputError, match=words):
            new().fit(other, steps=5, checkpoint=tmp_path / "run", resume=True)


def test_a_stream_that_begins_otherwise_is_refused_and_so_is_another_method_or_buffer(acts, tmp_path):
    stream = [acts]
    new().fit_stream(stream, steps=5, buffer_tokens=200, checkpoint=tmp_path / "run")
    other = [{name: x[::-1] for name, x in acts.items()}]
    options = {"steps": 5, "checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(usae.InvalidInputError, match=r"batches\[0\]\['dinov2'\]: values of first rows"):
        new().fit_stream(other, buffer_tokens=200, **options)
    with pytest.raises(usae.InvalidInputError, match=r"buffer_tokens 200, but this call has 200000|first rows 200, but"):
        new().fit_stream(stream, buffer_tokens=200_000, **options)
    with pytest.raises(usae.InvalidInputError, match="begun with method 'fit_stream', but this call has 'fit'"):
        new().fit(acts, **options)


def test_a_stream_that_cannot_be_gone_through_again_is_refused_before_the_crash_and_not_after_it(acts, tmp_path):
    for batches in (iter([acts]), (batch for batch in [acts])):
        with pytest.raises(usae.InvalidInputError, match="resume=True needs batches that can be gone through again"):
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


class Counted:
    """Batches that can be gone through again, tell how far one went, and may do something on the way."""

    def __init__(self, acts, at=None, do=None):
        self.acts, self.at, self.do, self.taken = acts, at, do, 0

    def __iter__(self):
        while True:
            self.taken += 1
            if self.taken == self.at:
                self.do()
            yield self.acts


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


def test_a_run_that_is_there_is_not_written_over(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    with pytest.raises(usae.InvalidInputError, match="holds a run already, 4 steps of it; pass resume=True to go on with it"):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run")


def test_a_run_without_a_checkpoint_yet_begins_anew_with_whatever_it_is_given(acts, tmp_path):
    with pytest.raises(Crash):  # before anything is kept
        new(seed=9).fit(acts, steps=4, checkpoint=tmp_path / "run", callbacks=[crash(1)])
    shutil.rmtree(tmp_path / "run" / "step-000000001")
    assert new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True).n_steps_ == 4


def test_files_of_the_user_in_the_folder_are_left_alone(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run").save_history(tmp_path / "run" / "history.csv")
    (tmp_path / "run" / ".usae-notes").write_text("mine")
    new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)
    assert {"history.csv", ".usae-notes"} <= set(names(tmp_path / "run"))


# --- Places and arguments -----------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(acts, tmp_path):
    def second(report):
        with pytest.raises(usae.CheckpointFileError, match="cannot write the checkpoints: another writer has it open"):
            new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)
        refused.append(report.step)

    refused = []
    new().fit(acts, steps=2, checkpoint=tmp_path / "run", callbacks=[second])
    assert refused == [1, 2]


def test_a_folder_with_other_things_and_a_missing_parent_are_refused_before_training(acts, trained, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    trained.save(tmp_path / "save")
    for name in ("thesis", "save"):
        before = files(tmp_path / name)
        with pytest.raises(usae.CheckpointFileError, match="the folder holds other things; choose another path"):
            new().fit(acts, steps=2, checkpoint=tmp_path / name, resume=True)
        assert files(tmp_path / name) == before
    with pytest.raises(usae.CheckpointFileError, match="cannot write the checkpoints: No such file .*has to exist before"):
        new().fit(acts, steps=2, checkpoint=tmp_path / "a" / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(usae.CheckpointFileError, match="cannot write the checkpoints"):
        new().fit(acts, steps=2, checkpoint=tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resume": True}, "resume=True needs checkpoint=, .*got None"),
        ({"resume": "run"}, "resume must be True or False, got 'run'; the folder is `checkpoint`"),
        ({"checkpoint": 3}, "checkpoint must be a path, usae.Checkpoints or None, got 3"),
        ({"checkpoint": ""}, "path must name a folder, got ''"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(acts, options, words):
    for call in (new().fit, lambda acts, **options: new().fit_stream([acts], **options)):
        with pytest.raises(usae.InvalidInputError, match=words):
            call(acts, steps=3, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_steps": 0}, "every_steps must be an integer from 1 to .* or None, got 0"),
        ({"every_steps": 1.5}, "every_steps must be"),
        ({"every_minutes": 0}, "every_minutes must be a number above 0, or None, got 0"),
        ({"every_minutes": "10"}, "every_minutes must be"),
        ({"keep": 0}, "keep must be an integer from 1"),
        ({"path": None}, "path must name a folder, got None"),
    ],
)
def test_checkpoints_that_cannot_be_made_are_refused(options, words):
    with pytest.raises(usae.InvalidInputError, match=words):
        usae.Checkpoints(**{"path": "run"} | options)


# --- Signals ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_put_back(acts, tmp_path, handlers):
    new().fit(acts, steps=2, checkpoint=tmp_path / "run")
    with pytest.raises(Crash):
        new().fit(acts, steps=2, checkpoint=tmp_path / "other", callbacks=[crash(1)])
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_handler_of_ones_own_is_called_after_the_step_and_where_it_returns_training_goes_on(acts, tmp_path, handlers):
    def own(number, frame):
        calls.append((number, steps_kept(tmp_path / "run")))

    calls = []
    signal.signal(signal.SIGTERM, own)
    tell = [lambda report: report.step in (3, 5) and signal.raise_signal(signal.SIGTERM)]
    assert new().fit(acts, steps=8, checkpoint=tmp_path / "run", callbacks=tell).n_steps_ == 8
    assert calls == [(signal.SIGTERM, [3]), (signal.SIGTERM, [3, 5])]
    assert signal.getsignal(signal.SIGTERM) is own


def test_what_is_ignored_stays_ignored(acts, tmp_path, handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell = [lambda report: signal.raise_signal(signal.SIGINT)]
    assert new().fit(acts, steps=4, checkpoint=tmp_path / "run", callbacks=tell).n_steps_ == 4
    assert steps_kept(tmp_path / "run") == [4]


def test_a_second_ctrl_c_is_obeyed_at_once_and_makes_no_checkpoint(acts, tmp_path, handlers):
    def twice(report):
        if report.step == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        new().fit(acts, steps=9, checkpoint=usae.Checkpoints(tmp_path / "run", every_steps=2), callbacks=[twice])
    assert steps_kept(tmp_path / "run") == [2, 4]
    assert signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]


def test_ctrl_c_beside_an_error_of_a_callback_is_not_lost(acts, tmp_path):
    def both(report):
        signal.raise_signal(signal.SIGINT)
        raise Crash

    with pytest.raises(KeyboardInterrupt):
        new().fit(acts, steps=9, checkpoint=tmp_path / "run", callbacks=[both])
    assert steps_kept(tmp_path / "run") == [1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_meanwhile_ends_by_sigterm(acts, tmp_path, handlers):
    def fork(report):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"!")  # Python forgets signals that come while it forks
            while True:
                time.sleep(0.01)
        os.read(reading, 1)
        os.close(reading)
        os.close(writing)
        os.kill(child, signal.SIGTERM)
        ends.append(os.waitpid(child, 0)[1])

    ends = []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    new().fit(acts, steps=2, checkpoint=tmp_path / "run", callbacks=[fork])
    assert [os.WTERMSIG(end) for end in ends] == [signal.SIGTERM] * 2


def test_a_handler_that_raises_while_ours_are_set_leaves_none_of_them(handlers, monkeypatch):
    def set_one(number, handler, real=signal.signal):
        if number == signal.SIGTERM and handler is not handlers[number]:
            raise KeyboardInterrupt
        real(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", set_one)
        with pytest.raises(KeyboardInterrupt):
            DelayedSignals().__enter__()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_another_thread_trains_with_checkpoints_and_without_handlers(acts, tmp_path):
    def in_thread():
        sae.fit(acts, steps=6, checkpoint=tmp_path / "run", callbacks=[lambda report: seen.append(signal.getsignal(2))])

    sae, seen = new(), []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert sae.n_steps_ == 6 and steps_kept(tmp_path / "run") == [6]
    assert set(seen) == {signal.getsignal(signal.SIGINT)}


# --- A full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs the right to mount a file system")
def test_a_full_disk_is_a_warning_in_the_middle_and_an_error_at_the_end(acts, tmp_path):
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "usae-test", tmp_path / "disk"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting does not work here")
    expected = saved(new().fit(acts, steps=STEPS), tmp_path / "whole")
    checkpoints = usae.Checkpoints(tmp_path / "disk" / "run", every_steps=5)

    def fill(report):
        if report.step == 12:
            (tmp_path / "disk" / "other").write_bytes(bytes(free(tmp_path / "disk") - 8192))

    try:
        sae = new()
        with (
            pytest.warns(UserWarning, match="has no checkpoint: .*No space left on device") as warnings,
            pytest.raises(usae.CheckpointFileError, match="No space left on device"),
        ):
            sae.fit(acts, steps=STEPS, checkpoint=checkpoints, callbacks=[fill])
        assert [str(warning.message).split(" has")[0] for warning in warnings] == ["step 15", "step 20", "step 25"]
        assert sae.n_steps_ == STEPS and steps_kept(checkpoints.path) == [5, 10]
        assert names(checkpoints.path)[2:] == ["usae-run.json", "writer.lock"]
        (tmp_path / "disk" / "other").unlink()
        assert saved(new().fit(acts, steps=STEPS, checkpoint=checkpoints, resume=True), tmp_path / "resumed") == expected
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


def free(folder):
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
