"""What is in the folder of a run, whatever stopped it or damaged it."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import threading

import pytest

import usae
from support.autoencoders import everything, planted
from support.folders import files
from support.refusals import refuses, refuses_place
from support.runs import RECIPES, STEPS, Crash, crash, names, new, saved, steps_kept
from support.saves import Stop, rewrite_json, without_later_fields
from usae._files import disk, regular_files
from usae._saved import saved_folder
from usae._saved.header import fields_since
from usae._training import checkpoint_files

pytestmark = pytest.mark.slow

# --- Reading ----------------------------------------------------------------------------------------------------------


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
    with pytest.warns(UserWarning, match="step-000000014: model.safetensors"):
        assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == 12
    with pytest.warns(UserWarning, match="step-000000014: model.safetensors"):
        sae = new().fit(acts, steps=STEPS, checkpoint=tmp_path / "run", resume=True)
    assert saved(sae, tmp_path / "resumed") == expected
    assert steps_kept(tmp_path / "run") == [12, 30] and "damaged-step-000000014" in names(tmp_path / "run")


def of_another(change):
    """A way to put what is not of the run in the place of a checkpoint."""

    def put(place):
        shutil.rmtree(place)
        change(place)

    return put


def other_run(change_recipe=None, steps=14, training_state=True, **options):
    def put(place):
        recipe = RECIPES["default"].replace(**change_recipe or {})
        sae = usae.UniversalSAE(**{"n_concepts": 24, "k": 3, "recipe": recipe, "seed": 3} | options)
        sae.fit(planted(600, seed=0), steps=STEPS, callbacks=[lambda report: report.step == steps])
        sae.save(place, training_state=training_state)

    return of_another(put)


def in_the_file(name, make):
    def put(place):
        (place / name).unlink()
        make(place / name)

    return put


UNUSABLE = {
    "other k": other_run(k=2),
    "other seed": other_run(seed=4),
    "other rate": other_run({"learning_rate": 0.01}),
    "other encoder": other_run({"encoder": "batchnorm"}),
    "other number of concepts": other_run(n_concepts=25),
    "other step": other_run(steps=13),
    "without training state": other_run(training_state=False),
    "file": of_another(lambda place: place.write_text("")),
    "FIFO": of_another(os.mkfifo),
    "empty folder": of_another(pathlib.Path.mkdir),
    "dangling link": of_another(lambda place: place.symlink_to("nowhere")),
    "link to itself": of_another(lambda place: place.symlink_to(place.name)),
    "header that is a FIFO": in_the_file("usae.json", os.mkfifo),
    "header that is a folder": in_the_file("usae.json", os.mkdir),
    "tensors that are a FIFO": in_the_file("model.safetensors", os.mkfifo),
    "tensors that are a dangling link": in_the_file("model.safetensors", lambda file: file.symlink_to("nowhere")),
    "without tensors": in_the_file("model.safetensors", lambda file: None),
}


@pytest.fixture(scope="module")
def stopped_at_14(acts, tmp_path_factory):
    """A run with checkpoints of steps 12 and 14, and the save of the same run when it is over."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Crash):
        new().fit(acts, steps=STEPS, checkpoint=usae.Checkpoints(folder / "run", every_steps=4), callbacks=[crash(14)])
    return folder / "run", saved(new().fit(acts, steps=STEPS), folder / "whole")


@pytest.mark.parametrize("put", UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_checkpoint_of_the_run_is_passed_over_and_put_aside(acts, stopped_at_14, tmp_path, put):
    run, expected = shutil.copytree(stopped_at_14[0], tmp_path / "run"), stopped_at_14[1]
    put(run / "step-000000014")
    with pytest.warns(UserWarning, match="step-000000014"):
        assert usae.Checkpoints(run).load().n_steps_ == 12
    with pytest.warns(UserWarning, match="step-000000014"):
        sae = new().fit(acts, steps=STEPS, checkpoint=run, resume=True)
    assert saved(sae, tmp_path / "resumed") == expected
    assert steps_kept(run) == [12, 30] and "damaged-step-000000014" in names(run)


def test_a_disk_that_fails_at_the_newest_checkpoint_is_passed_over_and_what_the_user_can_mend_is_not(
    acts, stopped_at_14, tmp_path, monkeypatch
):
    run, read = shutil.copytree(stopped_at_14[0], tmp_path / "run"), regular_files.read
    for number, is_told in ((errno.EIO, False), (errno.ESTALE, False), (errno.EACCES, True), (errno.EMFILE, True)):

        def failing(file, most, label="", number=number):
            if "step-000000014" in str(file):
                raise OSError(number, "failing", str(file))
            return read(file, most, label)

        monkeypatch.setattr(regular_files, "read", failing)
        if is_told:
            with refuses_place(run / "step-000000014", number):
                usae.Checkpoints(run).load()
        else:
            with pytest.warns(UserWarning, match="step-000000014"):
                assert usae.Checkpoints(run).load().n_steps_ == 12


def test_names_that_a_run_does_not_give_are_no_checkpoints(acts, stopped_at_14, tmp_path):
    run = shutil.copytree(stopped_at_14[0], tmp_path / "run")
    odd = ("step-0000000015", "step-٠٠٠٠٠٠٠١٥", "step-000000000", "step-000000014 (copy)", "step-15", "step-00000001x")
    for name in odd:
        shutil.copytree(run / "step-000000012", run / name)
    assert usae.Checkpoints(run).load().n_steps_ == 14
    assert saved(new().fit(acts, steps=STEPS, checkpoint=run, resume=True), tmp_path / "resumed") == stopped_at_14[1]
    assert set(odd) <= set(names(run))
    shutil.copytree(run / "step-000000030", run / f"step-{'9' * 30}")
    with pytest.warns(UserWarning, match="step-9999"):
        assert usae.Checkpoints(run).load().n_steps_ == 30


def test_a_checkpoint_that_is_a_link_is_read_and_later_only_the_link_is_removed(acts, stopped_at_14, tmp_path):
    run, elsewhere = shutil.copytree(stopped_at_14[0], tmp_path / "run"), tmp_path / "elsewhere"
    (run / "step-000000014").rename(elsewhere)
    (run / "step-000000014").symlink_to(elsewhere)
    (run / ".usae-step-000000008").symlink_to(elsewhere)  # what an older version left where it failed at a link
    before = files(elsewhere)
    checkpoints = usae.Checkpoints(run, every_steps=4, keep=1)
    for _ in range(2):
        sae = new().fit(acts, steps=STEPS, checkpoint=checkpoints, resume=True)
        assert saved(sae, tmp_path / "resumed") == stopped_at_14[1]
    assert steps_kept(run) == [30] and ".usae-step-000000008" not in names(run) and files(elsewhere) == before


def test_a_link_in_the_place_of_the_next_checkpoint_is_not_followed(acts, stopped_at_14, tmp_path):
    run, elsewhere = shutil.copytree(stopped_at_14[0], tmp_path / "run"), tmp_path / "elsewhere"
    (run / "step-000000014").rename(elsewhere)
    autoencoder = usae.load(elsewhere)._initialized()
    for target in (tmp_path / "nowhere", tmp_path):
        (run / "step-000000014").symlink_to(target)
        checkpoint_files.write(run, autoencoder)
        assert not (run / "step-000000014").is_symlink() and not (tmp_path / "nowhere").exists()
        shutil.rmtree(run / "step-000000014")


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
        (lambda header: json.dumps(header | {"format_version": 3}), "format_version"),
        (lambda header: json.dumps(header | {"format_version": 2}), "usae-run.json"),
        (lambda header: json.dumps(header, indent=2).replace('"k": 3', '"k": 2'), "usae-run.json"),
    ],
)
def test_a_damaged_description_of_the_run_is_refused(acts, tmp_path, change, name):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    file.write_text(change(json.loads(file.read_text())))
    with refuses(name, error=usae.CheckpointError):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


def test_a_run_of_a_version_without_checksums_is_resumed(acts, stopped_at_14, tmp_path):
    run = shutil.copytree(stopped_at_14[0], tmp_path / "run")

    def as_format_1(header):
        header["format_version"] = 1
        for field in fields_since(2):
            del header["run"][f"recipe.{field}"]

    rewrite_json(run / "usae-run.json", as_format_1, sign=False)
    for step in (12, 14):
        rewrite_json(run / f"step-0000000{step}" / "usae.json", lambda header: without_later_fields(header, 2), sign=False)
    assert usae.Checkpoints(run).load().n_steps_ == 14
    with refuses("resume", "5.0"):
        new().fit(acts, steps=STEPS, checkpoint=run, resume=True)  # whose recipe has what that version did not
    like_then = new().set_params(recipe=RECIPES["default"].replace(outlier_multiple=None, aux_every=1))
    resumed, expected = like_then.fit(acts, steps=STEPS, checkpoint=run, resume=True), new().fit(acts, steps=STEPS)
    for name in expected.model_names_:  # no row of these is outlying
        for key, values in expected.parameters(name).items():
            assert resumed.parameters(name)[key].tobytes() == values.tobytes()


def test_checkpoints_without_a_description_of_their_run_are_other_things(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    (tmp_path / "run" / "usae-run.json").unlink()
    with refuses_place(tmp_path / "run", errno.EEXIST):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


def test_a_run_of_another_version_goes_on_with_a_warning(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run")
    file = tmp_path / "run" / "usae-run.json"
    rewrite_json(file, lambda header: header.update(package_version="0.0.9"))
    with pytest.warns(UserWarning, match=r"\b0\.0\.9\b"):
        new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)


# --- Only the same run ------------------------------------------------------------------------------------------------


def test_files_of_the_user_in_the_folder_are_left_alone(acts, tmp_path):
    new().fit(acts, steps=4, checkpoint=tmp_path / "run").save_history(tmp_path / "run" / "history.csv")
    (tmp_path / "run" / ".usae-notes").write_text("mine")
    new().fit(acts, steps=4, checkpoint=tmp_path / "run", resume=True)
    assert {"history.csv", ".usae-notes"} <= set(names(tmp_path / "run"))
