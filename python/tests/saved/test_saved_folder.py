import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
import safetensors.numpy
from conftest import RECIPE, WIDTHS, everything

import usae
from usae._files import disk
from usae._saved import saved_folder
from usae._saved.header import _FIELDS_SINCE_2

FILES = {"model.safetensors", "usae.json"}


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "run", training_state=True)
    return tmp_path / "run"


# --- What is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_state", [False, True])
def test_what_is_loaded_equals_what_was_saved(sae, acts, tmp_path, training_state):
    sae.save(tmp_path / "run", training_state=training_state)
    loaded = usae.load(tmp_path / "run")
    assert set(files(tmp_path / "run")) == FILES
    assert everything(loaded) == everything(sae)
    assert loaded.get_params() == sae.get_params()
    assert loaded.evaluate(acts).to_dict() == sae.evaluate(acts).to_dict()
    for name, x in acts.items():
        assert loaded.encode(x, name) == sae.encode(x, name)
        assert np.array_equal(loaded.preactivations(x, name), sae.preactivations(x, name))
        assert np.array_equal(loaded.reconstruct(x, name, "vit"), sae.reconstruct(x, name, "vit"))
        assert np.array_equal(loaded.dictionary(name), sae.dictionary(name))


def test_a_loaded_autoencoder_saves_to_the_same_bytes(saved, tmp_path):
    usae.load(saved).save(tmp_path / "again", training_state=True)
    assert files(tmp_path / "again") == files(saved)


def test_names_of_any_alphabet_and_with_dots_are_kept(tmp_path):
    widths = {"vit.b16": 3, "vit": 4, "网络": 5, "a/b c": 2, "vit.dictionary": 2, "__metadata__": 3, '"': 1}
    sae = usae.UniversalSAE(6, 2, seed=2**64 - 1).initialize(widths)
    sae.save(tmp_path / "run", training_state=True)
    assert everything(usae.load(tmp_path / "run")) == everything(sae)
    assert usae.load(tmp_path / "run").n_features_in_ == widths


def test_recipe_seed_and_history_are_kept(trained, acts, saved):
    loaded = usae.load(saved)
    assert loaded.recipe == RECIPE and loaded.seed == 3 and len(loaded.history_) == 60
    assert everything(loaded.fit(acts, steps=3)) == everything(usae.UniversalSAE(**trained.get_params()).fit(acts, steps=3))


def test_validation_in_the_history_is_kept(acts, held_out, tmp_path):
    sae = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=5, validation=held_out)
    sae.save(tmp_path / "run")
    assert repr(usae.load(tmp_path / "run").history_) == repr(sae.history_)


def test_a_validation_that_no_json_number_can_say_is_kept(acts, tmp_path):
    constant = {"inf": np.ones((1, 17), np.float32), "vit": np.ones((1, 17), np.float32)}  # has no variance: R2 is -inf
    acts = {name: acts["vit"] for name in constant}
    sae = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=5, validation=constant)
    assert -np.inf in np.ravel(sae.history_[-1]["validation"]["r2"])
    sae.save(tmp_path / "run")
    assert repr(usae.load(tmp_path / "run").history_) == repr(sae.history_)


def test_the_tensors_are_readable_by_others_under_plain_names(trained, saved):
    tensors = safetensors.numpy.load_file(saved / "model.safetensors")
    for name in WIDTHS:
        for key, values in trained.parameters(name).items():
            assert np.array_equal(tensors[f"{name}.{key}"], values)


def test_the_files_have_the_permissions_that_the_user_chose(trained, tmp_path):
    before = os.umask(0o027)
    try:
        trained.save(tmp_path / "run")
        trained.save(tmp_path / "run")
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o640}


def test_paths_may_be_strings_relative_or_links(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save("run")
    os.symlink("run", "link")
    before = files("run")
    trained.save("link", training_state=True)
    assert os.path.islink("link") and files("run") != before
    assert everything(usae.load("link")) == everything(usae.load("run")) == everything(trained)


class BytesPath:
    def __fspath__(self):
        return b"run"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (3, "got 3; pass text or a pathlib.Path"),
        (None, "got None; pass text"),
        (b"run", "got b'run'; pass text"),
        (BytesPath(), "; pass text"),
        ("", "got ''; the current folder is '.'"),
        ("a\0b", r"got 'a.x00b', which has a NUL character in it"),
        (pathlib.Path("a\0b"), "which has a NUL character in it"),
        ("a\ud800", r"got 'a.ud800', which cannot be written in utf-8, .*use another name"),
    ],
)
def test_what_is_no_path_is_refused(trained, path, words):
    for call in (trained.save, usae.load):
        with pytest.raises(usae.InvalidInputError, match=f"path must name a folder, {words}" if words[0] == "g" else words):
            call(path)


def test_a_name_that_is_no_text_on_disk_is_a_name_all_the_same(trained, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
    for _ in range(2):
        trained.save(folder)
        assert everything(usae.load(folder)) == everything(trained)


# --- Going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        RECIPE.replace(encoder="batchnorm", update="encoder", clip_norm=0.1, weight_decay=0.1),
        RECIPE.replace(dead_tokens=50, total_steps=16, warmup_steps=4, schedule="cosine", decay_share=1.0, clock="model"),
        usae.recipes.published(total_steps=16, warmup_steps=4).replace(batch_size=100),
        RECIPE.replace(dead_tokens=50, prefixes=(0.125, 0.5, 1)),
        RECIPE.replace(warmup_steps=0, merge_cosine=0.5, merge_every=1),
        RECIPE.replace(dead_tokens=50, selection="batchtopk", encoder="batchnorm"),
    ],
    ids=["default", "clipped", "model clock", "published", "prefixes", "merging", "batchtopk"],
)
def test_saving_loading_and_going_on_is_the_same_as_never_having_stopped(recipe, acts, tmp_path):
    batches = [{name: x[i : i + 100] for name, x in acts.items()} for i in range(0, 600, 50)]
    never_stopped = usae.UniversalSAE(24, 3, recipe=recipe, seed=1)
    stopped = usae.UniversalSAE(24, 3, recipe=recipe, seed=1)
    for i, batch in enumerate(batches):
        never_stopped.partial_fit(batch)
        stopped.partial_fit(batch)
        if i in (2, 7):
            stopped.save(tmp_path / str(i), training_state=True)
            stopped = usae.load(tmp_path / str(i))
    never_stopped.save(tmp_path / "never", training_state=True)
    stopped.save(tmp_path / "stopped", training_state=True)
    assert files(tmp_path / "never") == files(tmp_path / "stopped")


def test_gradients_beyond_float32_leave_a_save_that_loads_and_goes_on(acts, tmp_path):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(loss="mse", aux="none"))
    sae.partial_fit(acts)
    huge = {name: x * np.float32(1e17) for name, x in acts.items()}
    sae.partial_fit(huge)
    sae.save(tmp_path / "run", training_state=True)
    tensors = safetensors.numpy.load_file(tmp_path / "run" / "model.safetensors")
    assert any(np.isposinf(x).any() for name, x in tensors.items() if name.endswith("_second_moment"))
    assert all(np.isfinite(x).all() for name, x in tensors.items() if not name.endswith("_second_moment"))
    loaded = usae.load(tmp_path / "run")
    for one in (sae, loaded):
        one.partial_fit(acts)
    assert everything(loaded) == everything(sae)


def test_going_on_without_training_state_warns_once(trained, acts, tmp_path):
    trained.save(tmp_path / "run")
    loaded = usae.load(tmp_path / "run").set_total_steps(None)
    with pytest.warns(UserWarning, match=r"optimiser starts afresh.*save\(path, training_state=True\)") as warnings:
        loaded.partial_fit(acts)
        loaded.partial_fit(acts)
    assert len(warnings) == 1
    assert loaded.n_steps_ == 62


# --- Replacing ---------------------------------------------------------------------------------------------------------


def two_saves(acts):
    old = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=1)
    new = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=2)
    return old, new


def test_a_save_is_replaced_and_other_files_beside_it_are_left_alone(acts, tmp_path):
    old, new = two_saves(acts)
    old.save(tmp_path / "run", training_state=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    new.save(tmp_path / "run")
    assert everything(usae.load(tmp_path / "run")) == everything(new)
    assert set(files(tmp_path / "run")) == FILES | {"notes.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


class Stop(BaseException):
    """As if the computer stopped."""


def steps_of_a_save(monkeypatch, stop_at):
    """Make the process stop at the given call that changes the disk. A list tells how many there were."""
    done = []

    def counted(function):
        def wrapper(*arguments, **named):
            if len(done) == stop_at:
                raise Stop
            done.append(function.__name__)
            return function(*arguments, **named)

        return wrapper

    monkeypatch.setattr(saved_folder, "write_tensors", counted(saved_folder.write_tensors))
    monkeypatch.setattr(disk, "write_text", counted(disk.write_text))
    monkeypatch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
    monkeypatch.setattr(pathlib.Path, "replace", counted(pathlib.Path.replace))
    # A computer that stops does not clean up either.
    monkeypatch.setattr(pathlib.Path, "unlink", lambda self: None)
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **named: None)
    return done


def test_wherever_a_replacement_stops_the_old_or_the_new_save_is_there_whole_and_the_next_works(acts, tmp_path):
    old, new = two_saves(acts)
    seen = []
    for stop_at in range(10):
        folder = tmp_path / str(stop_at)
        old.save(folder)
        with pytest.MonkeyPatch.context() as patch:
            done = steps_of_a_save(patch, stop_at)
            with contextlib.suppress(Stop):
                new.save(folder)
        found = everything(usae.load(folder))
        assert found in (everything(old), everything(new))
        seen.append(found == everything(new))
        # A second replacement that stops anywhere after one that did.
        for stop_again in range(6):
            again = tmp_path / f"{stop_at}-{stop_again}"
            shutil.copytree(folder, again)
            with pytest.MonkeyPatch.context() as patch:
                steps_of_a_save(patch, stop_again)
                with contextlib.suppress(Stop):
                    old.save(again)
            assert everything(usae.load(again)) in (everything(old), found)
        new.save(folder)
        assert everything(usae.load(folder)) == everything(new) and set(files(folder)) == FILES
    assert done == ["write_tensors", "write_text", "replace", "replace"]
    assert seen[:5] == [False, False, False, True, True]


def test_a_new_save_that_stops_leaves_nothing_under_its_name(trained, tmp_path):
    for stop_at, step in enumerate(("write_tensors", "write_text", "rename")):
        with pytest.MonkeyPatch.context() as patch:
            done = steps_of_a_save(patch, stop_at)
            with pytest.raises(Stop):
                trained.save(tmp_path / "run")
        assert not (tmp_path / "run").exists(), step
    assert done == ["write_tensors", "write_text"]


@pytest.mark.parametrize("existing", [False, True])
def test_an_exception_while_saving_cleans_up(trained, tmp_path, monkeypatch, existing):
    if existing:
        trained.save(tmp_path / "run")
        before = files(tmp_path / "run")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_text", full)
    with pytest.raises(usae.CheckpointFileError, match="No space left on device.*run") as caught:
        trained.save(tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if existing else [])
    if existing:
        assert files(tmp_path / "run") == before


def test_a_reader_beside_a_writer_sees_one_of_the_saves_whole(acts, tmp_path):
    old, new = two_saves(acts)
    old.save(tmp_path / "run")
    expected, seen, problems, stop = [everything(old), everything(new)], set(), [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                seen.add(expected.index(everything(usae.load(tmp_path / "run"))))
            except Exception as problem:
                problems.append(problem)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        new.save(tmp_path / "run")
        old.save(tmp_path / "run")
    stop.set()
    reader.join()
    assert problems == [] and seen


# --- Places that cannot be written or read -----------------------------------------------------------------------------


def test_a_missing_parent_is_named(trained, tmp_path):
    with pytest.raises(usae.CheckpointFileError, match="No such file or directory; the folder '.*/a' has to exist") as caught:
        trained.save(tmp_path / "a" / "run")
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOENT
    (tmp_path / "file").write_text("")
    with pytest.raises(usae.CheckpointFileError, match="has to exist"):
        trained.save(tmp_path / "file" / "run")


@pytest.fixture
def as_ordinary_user():
    """A folder of ours to share, and no rights of root if the tests run as root."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in folder.iterdir():
            path.chmod(0o700)
        shutil.rmtree(folder)


def test_a_read_only_place_is_named_with_a_remedy(trained, as_ordinary_user):
    parent = as_ordinary_user / "parent"
    parent.mkdir()
    trained.save(parent / "run")
    before = files(parent / "run")
    (parent / "run").chmod(0o500)
    parent.chmod(0o500)
    for target in (parent / "other", parent / "run"):
        with pytest.raises(usae.CheckpointFileError, match="Permission denied; choose a place that this user may write"):
            trained.save(target)
    assert files(parent / "run") == before
    parent.chmod(0o000)
    with pytest.raises(usae.CheckpointFileError, match="cannot read the autoencoder: Permission denied"):
        usae.load(parent / "run")
    parent.chmod(0o700)
    (parent / "run").chmod(0o700)


def test_a_foreign_folder_or_file_is_not_written_over(trained, tmp_path):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("years of work")
    (tmp_path / "other.json").mkdir()
    (tmp_path / "other.json" / "usae.json").write_text('{"format": "something else"}')
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "usae.json").write_text("{")
    (tmp_path / "file").write_text("text")
    for name in ("thesis", "other.json", "damaged"):
        before = files(tmp_path / name)
        with pytest.raises(usae.CheckpointFileError, match="holds something that usae did not save"):
            trained.save(tmp_path / name)
        assert files(tmp_path / name) == before
    with pytest.raises(usae.CheckpointFileError, match="it is not a folder"):
        trained.save(tmp_path / "file")


def test_an_empty_folder_is_filled(trained, tmp_path):
    (tmp_path / "run").mkdir()
    trained.save(tmp_path / "run")
    assert everything(usae.load(tmp_path / "run")) == everything(trained)


def test_the_current_folder_and_one_behind_a_link_are_filled_and_stay_the_folders_they_were(trained, tmp_path, monkeypatch):
    for name in ("here", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("target")
    before = {name: (tmp_path / name).stat().st_ino for name in ("here", "target")}
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", "../link"):
        for _ in range(2):
            trained.save(path)
            assert everything(usae.load(path)) == everything(trained) and set(files(path)) == FILES
    assert {name: (tmp_path / name).stat().st_ino for name in before} == before
    assert (tmp_path / "link").is_symlink()


def test_a_link_to_what_is_not_there_yet_or_is_no_folder_is_followed(trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    for name, target in {"new": "made", "nowhere": "a/b", "wrong": "file", "loop": "loop"}.items():
        (tmp_path / name).symlink_to(target)
    trained.save(tmp_path / "new")
    assert everything(usae.load(tmp_path / "made")) == everything(trained)
    with pytest.raises(usae.CheckpointFileError, match="the folder '.*/a' has to exist before"):
        trained.save(tmp_path / "nowhere")
    for name in ("wrong", "loop"):
        with pytest.raises(usae.CheckpointFileError, match="it is not a folder; choose another path"):
            trained.save(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_current_folder_that_was_deleted_is_a_file_error(trained, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(usae.CheckpointFileError, match="No such file or directory"):
        trained.save("run")


def test_wherever_the_filling_of_an_empty_folder_stops_the_next_save_works(trained, tmp_path):
    for stop_at in range(5):
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            done = steps_of_a_save(patch, stop_at)
            with contextlib.suppress(Stop):
                trained.save(folder)
        if stop_at < 3:
            refuses(folder, "there is no usae.json in it")
        else:
            assert everything(usae.load(folder)) == everything(trained)
        trained.save(folder)
        assert everything(usae.load(folder)) == everything(trained) and set(files(folder)) == FILES
    assert done == ["write_tensors", "write_text", "replace", "replace"]


def test_what_is_not_there_is_an_oserror_too(tmp_path):
    with pytest.raises(OSError) as caught:
        usae.load(tmp_path / "nothing")
    assert isinstance(caught.value, usae.CheckpointFileError) and caught.value.errno == errno.ENOENT
    assert str(tmp_path / "nothing") in str(caught.value)


# --- Damaged, foreign and newer ----------------------------------------------------------------------------------------


def rewrite_header(folder, change):
    header = json.loads((folder / "usae.json").read_text())
    header = change(header) or header
    (folder / "usae.json").write_text(json.dumps(header))


def rewrite_tensors(folder, change):
    """Change the tensors as somebody would who also knows how to sign them."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = change(tensors) or tensors
    sign(folder, safetensors.numpy.save(tensors))


def sign(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_header(folder, lambda header: header.update(tensors=described))


def refuses(folder, words):
    with pytest.raises(usae.CheckpointError, match=words) as caught:
        usae.load(folder)
    assert str(folder) in str(caught.value)


def test_a_file_or_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "not saved by usae, there is no usae.json in it")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04")
    refuses(tmp_path / "model.pt", "not saved by usae, which saves folders")


def test_a_header_cut_short_anywhere_is_refused(saved):
    text = (saved / "usae.json").read_bytes()
    assert len(text) > 1000
    for length in [*range(0, 1000, 37), *range(1000, len(text) - 2, 997)]:
        (saved / "usae.json").write_bytes(text[:length])
        refuses(saved, "damaged or cut short")


def test_tensors_cut_short_or_changed_anywhere_are_refused(saved):
    file = saved / "model.safetensors"
    content = file.read_bytes()
    for length in range(0, len(content), 4999):
        file.write_bytes(content[:length])
        refuses(saved, f"cut short: it has {length:,} of {len(content):,} bytes")
    for position in range(0, len(content), 4999):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        refuses(saved, "damaged or belongs to another save")
    file.write_bytes(content + b"\0")
    refuses(saved, "damaged or belongs to another save")
    file.unlink()
    refuses(saved, "model.safetensors is missing")


def test_a_folder_in_the_place_of_a_file_is_called_one(trained, saved):
    shutil.move(saved / "model.safetensors", saved / "tensors")
    (saved / "model.safetensors").mkdir()
    refuses(saved, "model.safetensors is a folder, but must be the file that usae wrote")
    with pytest.raises(usae.CheckpointFileError, match="holds something that usae did not save"):
        trained.save(saved)
    (saved / "usae.json").unlink()
    (saved / "usae.json").mkdir()
    refuses(saved, "usae.json in it is a folder where a file should be")
    with pytest.raises(usae.CheckpointFileError, match="holds something that usae did not save"):
        trained.save(saved)


def test_tensors_that_are_no_safetensors_file_are_refused_even_if_signed(saved):
    content = (saved / "model.safetensors").read_bytes()
    for hostile in (
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        content[:-4],
        content + b"\0" * 4,
        content.replace(b'"data_offsets":[', b'"data_offsets":[9', 1),
        b"\x80\x04\x95" + content,
    ):
        sign(saved, hostile)
        refuses(saved, "not a safetensors file, or a damaged one|missing")


def test_a_newer_format_is_refused_with_both_versions(saved):
    def newer(header):
        header.update(format_version=3, package_version="9.1", something_new=True)

    rewrite_header(saved, newer)
    refuses(saved, rf"saved in format 3 by usae 9.1, but this is usae {usae.__version__}, .* up to 2; update usae")


def as_format_1(header):
    header["format_version"] = 1
    for key in ("recipe", "resolved_recipe"):
        for field in _FIELDS_SINCE_2:
            del header[key][field]
    for entry in header["history"]:
        del entry["prefix"]


def test_what_an_older_version_saved_is_read(trained, saved):
    rewrite_header(saved, as_format_1)
    loaded, expected = everything(usae.load(saved)), everything(trained)
    as_then = dict(merge_cosine=None, prefixes=None, prefix_loss="mean")  # nothing was merged, nothing drawn
    assert loaded.pop("recipe") == expected.pop("recipe").replace(**as_then)
    whole = trained.n_concepts
    as_read = [{key: x for key, x in entry.items() if key != "prefix"} | {"prefix": whole} for entry in trained.history_]
    assert loaded.pop("history") == repr(as_read)
    del loaded["repr"], expected["repr"], expected["history"]
    assert loaded == expected
    rewrite_header(saved, lambda header: header["recipe"].update(prefixes=[0.5, 1.0]))
    refuses(saved, "a recipe of format 1 has no field 'prefixes'")


def change(key, value):
    return lambda header: header.__setitem__(key, value)


def change_step(**fields):
    return lambda header: header["history"][3].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: [1], "was not written by usae"),
        (lambda header: header.clear(), "was not written by usae"),
        (change("format", "USAE"), '"format" is not "usae"'),
        (change("format_version", 0), "format_version must be an integer"),
        (change("format_version", "1"), "format_version must be an integer"),
        (change("format_version", True), "format_version must be an integer"),
        (change("extra", 1), "unknown key 'extra'"),
        (lambda header: header.pop("history") and None, "'history' is missing"),
        (change("n_concepts", 33), "tensor '.*' must be F32"),
        (change("n_concepts", 0), "n_concepts is not what usae writes"),
        (change("n_concepts", 2**31), "n_concepts is not what usae writes"),
        (change("n_concepts", 10**30), "n_concepts is not what usae writes"),
        (change("n_concepts", 32.0), "n_concepts is not what usae writes"),
        (change("k", 33), "k must not exceed n_concepts"),
        (change("k", True), "k is not what usae writes"),
        (change("seed", -1), "seed is not what usae writes"),
        (change("seed", 2**64), "seed is not what usae writes"),
        (change("n_steps", -1), "n_steps is not what usae writes"),
        (change("models", []), "models is not what usae writes"),
        (change("models", {"vit": 17}), "models is not what usae writes"),
        (change("models", [{"name": "vit"}]), "models is not what usae writes"),
        (change("models", [{"name": "vit", "width": 17}]), r"history\[0\].losses is not"),
        (lambda header: header["models"][0].update(width=0), "models is not what usae writes"),
        (lambda header: header["models"][0].update(width=13), r"must be F32 \[32, 13\], got F32 \[32, 12\]"),
        (lambda header: header["models"][0].update(name="vit"), "name occurs twice"),
        (lambda header: header["models"][0].update(name="other"), "unknown key 'dinov2"),
        (change("recipe", 3), "recipe is not what usae writes"),
        (lambda header: header["recipe"].update(los="l1"), "recipe: unknown key 'los'"),
        (lambda header: header["recipe"].update(loss="l3"), "loss must be one of"),
        (lambda header: header["recipe"].pop("loss") and None, "recipe: 'loss' is missing"),
        (change("resolved_recipe", None), "resolved_recipe is not what usae writes"),
        (lambda header: header["resolved_recipe"].update(encoder="batchnorm"), "'dinov2.bn_weight' is missing"),
        (lambda header: header["resolved_recipe"].update(batch_size=-1), "batch_size must be"),
        (change("training_state", False), "unknown key 'dinov2"),
        (change("training_state", 1), "training_state is not what usae writes"),
        (change("tensors", {"bytes": 3}), "tensors is not what usae writes"),
        (change("history", {}), "history is not what usae writes"),
        (change("history", [{"step": 1}]), r"history\[0\]: 'encoder' is missing"),
        (change("history", [7]), r"history\[0\] must hold named values, got 7"),
        (change_step(extra=1), r"history\[3\]: unknown key 'extra'"),
        (change_step(step=0), r"history\[3\].step is not what usae writes there, got 0"),
        (change_step(encoder=None), r"history\[3\].encoder is not"),
        (change_step(loss="abc"), r"history\[3\].loss is not what usae writes there, got 'abc'"),
        (change_step(loss=True), r"history\[3\].loss is not"),
        (change_step(l0=10**400), r"history\[3\].l0 is not"),
        (change_step(dead=1.5), r"history\[3\].dead is not"),
        (change_step(losses=[1, 2, 3]), r"history\[3\].losses is not"),
        (change_step(losses={"vit": 1.0}), r"history\[3\].losses is not"),
        (change_step(validation=7), r"history\[3\].validation is not what usae writes there, got 7"),
        (change_step(validation={"n_tokens": 1, "r2": [[1.0]], "l0": [1.0] * 3}), r"history\[3\].validation is not"),
        (
            lambda header: header["resolved_recipe"].update(dead_tokens=None),
            "resolved_recipe.dead_tokens is not what usae writes there, got None",
        ),
    ],
)
def test_a_header_that_usae_does_not_write_is_refused(saved, change, words):
    rewrite_header(saved, change)
    refuses(saved, words)


@pytest.mark.parametrize(
    "text", ["NaN", "[" * 100_000, '{"format": "usae", "format": "usae"}', '{"format": "usae", "k": Infinity}', "\ufeff{}"]
)
def test_json_that_readers_disagree_about_is_refused(saved, text):
    (saved / "usae.json").write_text(text)
    refuses(saved, "damaged or cut short")


def setitem(key, value):
    return lambda tensors: tensors.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setitem("extra", np.zeros(1)), "unknown key 'extra'"),
        (lambda tensors: tensors.pop("vit.mean") is None or None, "'vit.mean' is missing"),
        (setitem("vit.mean", np.zeros(16, np.float32)), r"must be F32 \[17\], got F32 \[16\]"),
        (setitem("vit.mean", np.zeros((17, 1), np.float32)), r"must be F32 \[17\], got F32 \[17, 1\]"),
        (setitem("vit.mean", np.zeros(17)), r"must be F32 \[17\], got F64 \[17\]"),
        (setitem("vit.counters", np.zeros(3, np.int32)), r"must be I64 \[3\], got I32 \[3\]"),
        (setitem("vit.mean", np.full(17, np.nan, np.float32)), "'vit.mean' holds NaN or infinity"),
        (setitem("vit.dictionary", np.full((32, 17), np.inf, np.float32)), "'vit.dictionary' holds NaN"),
        (setitem("vit.dictionary_second_moment", np.full((32, 17), np.nan, np.float32)), "holds NaN"),
        (setitem("vit.dictionary_first_moment", np.full((32, 17), np.inf, np.float32)), "holds NaN"),
        (setitem("vit.dictionary_second_moment", np.full((32, 17), -1, np.float32)), "holds negative numbers"),
        (setitem("vit.scale", np.zeros(17, np.float32)), "scale"),
        (setitem("vit.silent_tokens", np.full(32, -1)), "holds negative numbers"),
        (setitem("vit.counters", np.array([1, -1, 1])), "holds negative numbers"),
    ],
)
def test_tensors_that_usae_does_not_write_are_refused_even_if_signed(saved, change, words):
    rewrite_tensors(saved, change)
    refuses(saved, words)


def test_loading_runs_no_code_of_the_file(tmp_path):
    # A pickle in the place of either file is refused as text or by its signature, never unpickled.
    marker = tmp_path / "ran"
    pickled = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    (tmp_path / "run").mkdir()
    for name in FILES:
        (tmp_path / "run" / name).write_bytes(pickled)
    refuses(tmp_path / "run", "damaged or cut short")
    assert not marker.exists()
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, usae._saved.saved_folder; print('pickle' in vars(usae._saved.saved_folder))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout == "False\n"
