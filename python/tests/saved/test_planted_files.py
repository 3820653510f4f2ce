"""Links, FIFOs and folders in the place of files: nothing is written through them, and nothing waits for them."""

import contextlib
import errno
import os

import pytest

import usae
from support.autoencoders import everything
from support.folders import files
from support.refusals import names, refuses, refuses_place
from support.stores import images, written

MINE = b"mine"


@pytest.fixture
def victim(tmp_path):
    """A file that no writer may change, and a name at which none may appear."""
    (tmp_path / "victim").write_bytes(MINE)
    yield tmp_path / "victim"
    assert (tmp_path / "victim").read_bytes() == MINE and not os.path.lexists(tmp_path / "nowhere")


def plant(place, kind, victim):
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to({"link": victim, "dangling link": victim.parent / "nowhere"}[kind])


KINDS = ("link", "dangling link", "fifo")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["usae.json.new", "model.safetensors.new", "model.safetensors"])
def test_a_save_replaces_what_is_planted_under_the_names_of_its_files(trained, tmp_path, victim, kind, name):
    trained.save(tmp_path / "save")
    plant(tmp_path / "save" / name, kind, victim)
    trained.save(tmp_path / "save", training_state=True)
    assert everything(usae.load(tmp_path / "save")) == everything(trained)
    assert set(files(tmp_path / "save")) == {"model.safetensors", "usae.json"}
    assert not any(path.is_symlink() for path in (tmp_path / "save").iterdir())
    assert (tmp_path / "save" / "model.safetensors").stat().st_mode == (tmp_path / "save" / "usae.json").stat().st_mode


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_is_planted_is_neither_read_nor_written(trained, tmp_path, victim, kind):
    trained.save(tmp_path / "save")
    plant(tmp_path / "save" / "usae.json", kind, victim)
    with refuses("usae.json", error=usae.CheckpointError):
        usae.load(tmp_path / "save")
    with refuses_place(tmp_path / "save", errno.EEXIST):
        trained.save(tmp_path / "save")


def test_files_that_are_links_to_whole_files_are_read(trained, tmp_path):
    trained.save(tmp_path / "save")
    (tmp_path / "links").mkdir()
    for name in ("usae.json", "model.safetensors"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "save" / name)
    assert everything(usae.load(tmp_path / "links")) == everything(trained)
    before = files(tmp_path / "save")
    usae.UniversalSAE(4, 1).initialize({"a": 3}).save(tmp_path / "links")
    assert files(tmp_path / "save") == before and usae.load(tmp_path / "links").n_concepts == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_replaces_what_is_planted_under_its_name(trained, tmp_path, victim, kind):
    plant(tmp_path / "history.csv", kind, victim)
    trained.save_history(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().startswith("step,")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["usae-run.json.new", "usae-run.json", ".usae-step-000000001"])
def test_a_run_replaces_what_is_planted_under_the_names_of_its_files(acts, tmp_path, victim, kind, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "usae-run.json").write_text("")
    plant(tmp_path / "run" / name, kind, victim)
    usae.UniversalSAE(8, 2).fit(acts, steps=1, checkpoint=tmp_path / "run")
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["usae-store.json.new", "shard-000001-0.npy.new", "shard-000001-0.npy"])
def test_a_store_replaces_what_is_planted_under_the_names_of_its_files(tmp_path, victim, kind, name):
    written(tmp_path / "acts", images(2, 0))
    with usae.ActivationStore(tmp_path / "acts") as store:
        store._open_for_writing()
        plant(tmp_path / "acts" / name, kind, victim)
        store.append(images(2, 1))
    usae.ActivationStore(tmp_path / "acts").verify()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["usae-store.json", "shard-000000-0.npy"])
def test_a_store_does_not_wait_for_what_is_planted(tmp_path, victim, kind, name):
    written(tmp_path / "acts", images(2, 0))
    plant(tmp_path / "acts" / name, kind, victim)
    with refuses(tmp_path / "acts", error=usae.CheckpointError):
        usae.ActivationStore(tmp_path / "acts").verify()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_planted_is_an_error(acts, tmp_path, victim, kind):
    for call in (
        lambda: usae.ActivationStore.create(tmp_path / "folder"),
        lambda: usae.UniversalSAE(8, 2).fit(acts, steps=1, checkpoint=tmp_path / "folder"),
    ):
        (tmp_path / "folder").mkdir(exist_ok=True)
        plant(tmp_path / "folder" / "writer.lock", kind, victim)
        with pytest.raises(usae.CheckpointError) as caught:
            call()
        assert names("writer.lock", str(caught.value), anywhere=True)
