"""When a run makes a checkpoint, how many are kept, and what it is told of them."""

import errno
import os
import shutil
import subprocess
import types

import pytest

import usae
from support.folders import files
from support.refusals import refuses, refuses_place
from support.runs import STEPS, Crash, crash, names, new, saved, steps_kept
from usae._training import checkpointing

# --- How often, and how many ------------------------------------------------------------------------------------------


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


# --- Only the same run ------------------------------------------------------------------------------------------------


def test_a_run_that_is_there_is_not_written_over(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    with refuses("checkpoint", repr(str(tmp_path / "run")), remedy="resume=True"):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run")


def test_a_run_without_a_checkpoint_yet_begins_anew_with_whatever_it_is_given(acts, tmp_path):
    with pytest.raises(Crash):  # before anything is kept
        new(seed=9).fit(acts, steps=4, checkpoint=tmp_path / "run", callbacks=[crash(1)])
    shutil.rmtree(tmp_path / "run" / "step-000000001")
    assert new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True).n_steps_ == 4


# --- Places and arguments ---------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(acts, tmp_path):
    def second(report):
        with refuses_place(tmp_path / "run", errno.EBUSY):
            new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)
        refused.append(report.step)

    refused = []
    new().fit(acts, steps=2, checkpoint=tmp_path / "run", callbacks=[second])
    assert refused == [1, 2]


def test_a_folder_with_other_things_is_refused_before_training(acts, trained, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    trained.save(tmp_path / "save")
    for name in ("thesis", "save"):
        before = files(tmp_path / name)
        with refuses_place(tmp_path / name, errno.EEXIST):
            new().fit(acts, steps=2, checkpoint=tmp_path / name, resume=True)
        assert files(tmp_path / name) == before
    (tmp_path / "file").write_text("")
    with refuses_place(tmp_path / "file", errno.EEXIST):
        new().fit(acts, steps=2, checkpoint=tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "argument", "got"),
    [
        ({"resume": True}, "checkpoint", "None"),
        ({"resume": "run"}, "resume", "'run'"),
        ({"checkpoint": 3}, "checkpoint", "3"),
        ({"checkpoint": ""}, "path", "''"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(acts, options, argument, got):
    for call in (new().fit, lambda acts, **options: new().fit_stream([acts], **options)):
        with refuses(argument, got):
            call(acts, steps=3, **options)


@pytest.mark.parametrize(
    ("options", "argument", "got"),
    [
        ({"every_steps": 0}, "every_steps", "0"),
        ({"every_steps": 1.5}, "every_steps", "1.5"),
        ({"every_minutes": 0}, "every_minutes", "0"),
        ({"every_minutes": "10"}, "every_minutes", "'10'"),
        ({"keep": 0}, "keep", "0"),
        ({"path": None}, "path", "None"),
    ],
)
def test_checkpoints_that_cannot_be_made_are_refused(options, argument, got):
    with refuses(argument, got):
        usae.Checkpoints(**{"path": "run"} | options)


# --- A full disk ------------------------------------------------------------------------------------------------------


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
            pytest.warns(UserWarning, match=os.strerror(errno.ENOSPC)) as warnings,
            pytest.raises(usae.CheckpointFileError),
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
