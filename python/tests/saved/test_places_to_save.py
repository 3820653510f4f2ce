"""Places that cannot be written or read, or where something else is."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile

import pytest

import usae
from support.autoencoders import everything, small
from support.folders import files
from support.refusals import refuses_place
from support.saves import FILES, Stop, refuses_to_load, steps_of_a_save

WRITERS = {
    "save": lambda sae, acts, path: sae.save(path),
    "save_history": lambda sae, acts, path: sae.save_history(path),
    "checkpoint": lambda sae, acts, path: small().fit(acts, steps=1, checkpoint=path),
    "store": lambda sae, acts, path: usae.ActivationStore.create(path).close(),
}
"""What makes files or folders, by name."""


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_missing_parents_are_made(trained, acts, tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(trained, acts, tmp_path / "a" / "b" / "new")
    write(trained, acts, "c/d/../e/new")
    assert (tmp_path / "a" / "b" / "new").exists() and (tmp_path / "c" / "e" / "new").exists()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_parent_that_is_a_file_is_named(trained, acts, tmp_path, write):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "new", tmp_path / "file" / "a" / "new"):
        with refuses_place(place, errno.ENOTDIR):
            write(trained, acts, place)


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
        with refuses_place(target, errno.EACCES):
            trained.save(target)
    assert files(parent / "run") == before
    parent.chmod(0o000)
    with refuses_place(parent / "run", errno.EACCES):
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
        with refuses_place(tmp_path / name, errno.EEXIST):
            trained.save(tmp_path / name)
        assert files(tmp_path / name) == before
    with refuses_place(tmp_path / "file", errno.ENOTDIR):
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
    trained.save(tmp_path / "nowhere")
    assert everything(usae.load(tmp_path / "a" / "b")) == everything(trained)
    for name, place in (("wrong", tmp_path / "file"), ("loop", tmp_path / "loop")):
        with refuses_place(place, errno.ENOTDIR):
            trained.save(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_current_folder_that_was_deleted_is_a_file_error(trained, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with refuses_place("run", errno.ENOENT):
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
            refuses_to_load(folder, "usae.json")
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
