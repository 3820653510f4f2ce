"""A save in the place of another: one of the two is there whole, wherever it stops."""

import contextlib
import errno
import shutil
import threading

import pytest

import usae
from support.autoencoders import everything
from support.folders import files
from support.refusals import refuses_place
from support.saves import FILES, Stop, steps_of_a_save, two_saves
from usae._files import disk

pytestmark = pytest.mark.slow  # together: each is short


def test_a_save_is_replaced_and_other_files_beside_it_are_left_alone(acts, tmp_path):
    old, new = two_saves(acts)
    old.save(tmp_path / "run", training_state=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    new.save(tmp_path / "run")
    assert everything(usae.load(tmp_path / "run")) == everything(new)
    assert set(files(tmp_path / "run")) == FILES | {"notes.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


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
    with refuses_place(tmp_path / "run", errno.ENOSPC) as caught:
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
