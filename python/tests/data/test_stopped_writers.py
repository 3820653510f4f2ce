"""Writers of a store that are killed, or find the disk full: nothing half-written passes for whole."""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import usae
from support.folders import files
from support.refusals import refuses_place
from support.stores import images, written

WRITER = """
import pathlib, sys
import numpy as np
import usae

path = pathlib.Path(sys.argv[1])
store = usae.ActivationStore(path) if (path / "usae-store.json").exists() else usae.ActivationStore.create(path)
print("started", flush=True)
for shard in range(store.n_shards, 12):
    rng = np.random.default_rng(shard)
    store.append({name: rng.standard_normal((8, 64, 96)) for name in ("a", "b")})
    print(shard, flush=True)
store.finish()
print("finished", flush=True)
"""


def writer(path):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_store_whose_writer_is_killed_at_any_moment_is_continued_to_the_same_bytes(tmp_path):
    whole = writer(tmp_path / "whole")
    assert "finished" in whole.communicate()[0]
    expected = files(tmp_path / "whole")
    assert len(expected) == 2 + 2 * 12
    moments, path = random.Random(0), tmp_path / "killed"
    for _ in range(10):
        process = writer(path)
        for _ in range(moments.randrange(1, 4)):  # the start, and a shard or two
            process.stdout.readline()
        for _ in range(moments.randrange(1_000_000)):  # of ours, in which it goes somewhere into the next
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = usae.ActivationStore(path)
        store.verify()  # whatever the manifest names is whole
        if store.finished:
            assert files(path) == expected
            shutil.rmtree(path)
    assert "finished" in writer(path).communicate()[0]
    assert files(path) == expected


def test_wherever_a_writer_stops_the_store_is_as_before_or_after(tmp_path, monkeypatch):
    """At each change of the disk, one by one, where chance would seldom hit."""
    shards = [images(2, 0), images(2, 1)]
    whole = files(written(tmp_path / "whole", *shards).path)

    class Stop(BaseException):
        pass

    def stopping_at(patch, stop_at):
        done = []
        for owner, name in ((pathlib.Path, "replace"), (os, "fsync"), (pathlib.Path, "unlink")):
            function = getattr(owner, name)

            def counted(*arguments, function=function, name=name):
                if len(done) == stop_at or name == "unlink":
                    raise Stop  # a computer that stops does not clean up either
                done.append(name)
                return function(*arguments)

            patch.setattr(owner, name, counted)
        return done

    for stop_at in range(40):
        folder = tmp_path / str(stop_at)
        written(folder, shards[0]).close()
        store = usae.ActivationStore(folder)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stop):
            done = stopping_at(patch, stop_at)
            store.append(shards[1])
            store.finish()
        store.close()
        found = usae.ActivationStore(folder)
        found.verify()
        assert (found.n_shards, found.finished) in {(1, True), (2, False), (2, True)}
        if found.n_shards == 1:
            found.append(shards[1])
        found.finish()
        found.close()
        assert files(folder) == whole
        if len(done) < stop_at:
            break
    assert done.count("replace") == 4 and stop_at > 8


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as Linux does")
def test_a_full_disk_is_an_error_that_leaves_the_store_as_it_was(tmp_path):
    script = textwrap.dedent("""
        import errno, resource, sys
        import numpy as np
        import usae
        store = usae.ActivationStore.create(sys.argv[1])
        store.append({"a": np.ones((2, 3, 4)), "b": np.ones((2, 3, 4))})
        before = sorted(path.name for path in store.path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            store.append({"a": np.ones((2, 3, 4)), "b": np.ones((2, 3, 4))})
            store.append({name: np.ones((9000, 3, 4)) for name in "ab"})
        except usae.CheckpointFileError as error:
            assert error.errno == errno.EFBIG, error
            print(error)
        assert store.n_shards == 2
        new = {path.name for path in store.path.iterdir()} - set(before)
        assert new == {"shard-000001-0.npy", "shard-000001-1.npy"}
        store.append({name: np.zeros((2, 3, 4)) for name in "ab"})
        store.finish()
    """)
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "acts")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert os.strerror(errno.EFBIG) in result.stdout
    store = usae.ActivationStore(tmp_path / "acts")
    store.verify()
    assert store.n_shards == 3


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs the right to mount a file system")
def test_a_file_system_without_room_is_an_error_and_there_is_more_to_write_after_it(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "usae-test", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting does not work here")
    try:
        store = usae.ActivationStore.create(tmp_path / "acts")
        store.append({"a": np.ones((4000, 4))})
        before = files(store.path)
        with refuses_place(store.path, errno.ENOSPC) as caught:
            store.append({"a": np.ones((12_000, 4))})
        assert caught.value.errno == errno.ENOSPC and files(store.path) == before
        store.append({"a": np.ones((1000, 4))})
        store.finish()
        store.close()
        usae.ActivationStore(store.path).verify()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_without_room_is_an_error_with_its_number(three, monkeypatch):
    folder, _ = three
    before = files(folder)
    store = usae.ActivationStore(folder)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refuses_place(folder, errno.ENOSPC) as caught:
            store.append(images(1, 0))
    assert caught.value.errno == errno.ENOSPC and files(folder) == before


def test_whichever_file_cannot_be_brought_to_the_disk_the_store_is_as_before_or_after(tmp_path, monkeypatch):
    """Also where the manifest has been replaced already, so that its shards must stay."""
    seen = set()
    for fail_at in range(6):
        store = written(tmp_path / str(fail_at), images(2, 0))
        calls, fsync = iter(range(99)), os.fsync

        def failing(descriptor, calls=calls, fail_at=fail_at, fsync=fsync):
            if next(calls) == fail_at:
                raise OSError(errno.EIO, "Input/output error")
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            if fail_at < 5:
                with refuses_place(store.path, errno.EIO):
                    store.append(images(3, 1))
            else:
                store.append(images(3, 1))
        seen.add((fail_at, store.n_shards))
        store.close()
        again = usae.ActivationStore(store.path)
        again.verify()
        assert again.n_shards == store.n_shards and not list(store.path.glob("*.new"))
    assert seen == {(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2)}
