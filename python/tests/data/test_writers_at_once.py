"""Several threads and processes that write to one store."""

import contextlib
import copy
import errno
import os
import pickle
import threading
import warnings

import numpy as np
import pytest

import usae
from support.refusals import refuses_place
from support.stores import images

pytestmark = pytest.mark.slow


def in_threads(functions):
    """Run functions at the same time, and return the exceptions that they raised."""
    start, problems = threading.Barrier(len(functions)), []

    def run(function):
        start.wait()
        try:
            function()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def test_threads_that_append_to_one_store_take_turns(tmp_path):
    shards = [images(3, seed) for seed in range(8)]
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        assert in_threads([lambda acts=acts: store.append(acts) for acts in shards]) == []
    read = usae.ActivationStore(tmp_path / "acts")
    read.verify()
    found = {read["a"][3 * i : 3 * i + 3].tobytes() for i in range(8)}
    assert read.n_shards == 8 and found == {acts["a"].tobytes() for acts in shards}
    assert list(read.images) == [str(i) for i in range(24)]


def test_a_thread_reads_whole_shards_while_another_appends(tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        store.append(images(2, 0))
        done = threading.Event()

        def write():
            for seed in range(1, 10):
                store.append(images(2, seed))
            done.set()

        def read():
            while not done.is_set():
                assert len(store["a"][:]) % 2 == 0

        assert in_threads([write, read]) == []


def test_two_objects_of_one_store_do_not_write_at_once(tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(images(2, 0))
        other = usae.ActivationStore(tmp_path / "acts")
        with refuses_place(tmp_path / "acts", errno.EBUSY):
            other.append(images(2, 1))
        with refuses_place(tmp_path / "acts", errno.EBUSY):
            other.finish()
    other.append(images(2, 1))
    with refuses_place(tmp_path / "acts", errno.EBUSY):
        store.append(images(2, 2))
    other.close()
    store.append(images(2, 2))
    store.verify()
    assert store.n_shards == 3


def test_a_writer_that_is_lost_without_being_closed_holds_nothing(tmp_path):
    usae.ActivationStore.create(tmp_path / "acts").append(images(2, 0))
    usae.ActivationStore(tmp_path / "acts").append(images(2, 1))
    assert usae.ActivationStore(tmp_path / "acts").n_shards == 2


def test_a_copy_of_a_writer_reads_and_leaves_the_lock_to_it(tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(images(2, 0))
        for copied in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store), copy.copy(store)):
            assert len(copied["a"][:]) == 2
            with refuses_place(tmp_path / "acts", errno.EBUSY):
                copied.append(images(2, 1))
        store.append(images(2, 1))


def forked(function):
    """Run a function in a forked process. Returns whether it returned True."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if function() is True else 2
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_write_with_its_parents_lock_and_does_not_hold_it(tmp_path):
    def is_refused():
        try:
            store.append(images(1, 5))
        except usae.CheckpointFileError as error:
            return error.errno == errno.EBUSY

    def leaves_the_block():
        store.__exit__(None, None, None)
        return not usae.ActivationStore(tmp_path / "acts").finished

    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(images(2, 0))
        assert forked(is_refused) and forked(leaves_the_block)
        store.append(images(2, 1))
        with store._guard:  # as if another thread was appending
            assert forked(is_refused)

        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent closes its end
            os._exit(0)
    try:
        usae.ActivationStore(tmp_path / "acts").append(images(2, 2))  # the child lives, and holds nothing
    finally:
        os.close(reading)
        os.close(writing)
        os.waitpid(child, 0)
    usae.ActivationStore(tmp_path / "acts").verify()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_the_file_system_has_no_locks_work_goes_on_with_a_warning(tmp_path, monkeypatch, acts, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="acts"), usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(images(2, 0))
        with refuses_place(tmp_path / "acts", errno.EBUSY):  # in the same process they are still kept apart
            usae.ActivationStore(tmp_path / "acts").append(images(2, 1))
    with pytest.warns(UserWarning, match="run"):
        sae = usae.UniversalSAE(8, 2).fit(acts, steps=2, checkpoint=tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae.save(tmp_path / "save")
        sae.save(tmp_path / "save")


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with refuses_place(tmp_path / "acts", errno.EIO):
        usae.ActivationStore.create(tmp_path / "acts")


def test_threads_that_save_to_one_folder_leave_one_of_their_saves(tmp_path, acts):
    saes = [usae.UniversalSAE(8, 2, seed=seed).fit(acts, steps=1) for seed in range(4)]
    for _ in range(5):
        assert in_threads([lambda sae=sae: sae.save(tmp_path / "save") for sae in saes]) == []
        loaded = usae.load(tmp_path / "save")
        np.testing.assert_array_equal(loaded.dictionary("vit"), saes[loaded.seed].dictionary("vit"))
        assert sorted(os.listdir(tmp_path / "save")) == ["model.safetensors", "usae.json"]
