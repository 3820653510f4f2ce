"""What is in the folder of a run, whatever stopped it or damaged it."""

import contextlib
import errno
import json
import pathlib
import shutil
import threading

import pytest

import usae
from support.autoencoders import everything
from support.refusals import refuses, refuses_place
from support.runs import STEPS, Crash, crash, names, new, saved, steps_kept

# --- Reading ----------------------------------------------------------------------------------------------------------
from support.saves import Stop
from usae._files import disk
from usae._saved import saved_folder


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
    with refuses("usae-run.json", error=usae.CheckpointError):
        usae.load(tmp_path / "run")


@pytest.mark.parametrize("exists", [False, True])
def test_no_checkpoint_yet_is_said(tmp_path, exists):
    if exists:
        (tmp_path / "run").mkdir()
    with refuses(tmp_path / "run", error=usae.CheckpointError):
        usae.Checkpoints(tmp_path / "run").load()


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


@pytest.mark.slow
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
    with pytest.warns(UserWarning, match="step-000000014: model.safetensors"):
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
        with refuses("model.safetensors", error=usae.CheckpointError):
            call()
    assert steps_kept(tmp_path / "run") == [4]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda header: "{", "usae-run.json"),
        (lambda header: "[]", "usae-run.json"),
        (lambda header: json.dumps(header | {"format": "other"}), "usae-run.json"),
        (lambda header: json.dumps(header | {"run": []}), "usae-run.json"),
        (lambda header: json.dumps(header | {"format_version": 2}), "format_version"),
    ],
)
def test_a_damaged_description_of_the_run_is_refused(acts, tmp_path, change, name):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    file.write_text(change(json.loads(file.read_text())))
    with refuses(name, error=usae.CheckpointError):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


def test_checkpoints_without_a_description_of_their_run_are_other_things(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    (tmp_path / "run" / "usae-run.json").unlink()
    with refuses_place(tmp_path / "run", errno.EEXIST):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


def test_a_run_of_another_version_goes_on_with_a_warning(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"package_version": "0.0.9"}))
    with pytest.warns(UserWarning, match=r"\b0\.0\.9\b"):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


# --- Only the same run ------------------------------------------------------------------------------------------------


def test_files_of_the_user_in_the_folder_are_left_alone(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run").save_history(tmp_path / "run" / "history.csv")
    (tmp_path / "run" / ".usae-notes").write_text("mine")
    new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)
    assert {"history.csv", ".usae-notes"} <= set(names(tmp_path / "run"))
