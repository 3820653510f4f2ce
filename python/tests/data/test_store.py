"""`usae.ActivationStore`: what is kept, and that nothing half-written or damaged passes for whole."""

import contextlib
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import usae

WIDTHS = {"a": 3, "网/b": 5}
MANIFEST = "usae-store.json"


def images(n, seed, tokens=4, widths=WIDTHS, dtype=np.float32):
    values = np.random.default_rng(seed)
    return {name: values.standard_normal((n, tokens, width)).astype(dtype) for name, width in widths.items()}


def joined(*shards):
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def written(path, *shards, **options):
    with usae.ActivationStore.create(path, **options) as store:
        for shard in shards:
            store.append(shard)
    return store


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def edited(folder, change):
    """Change the manifest as a hostile or later program might."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def three(tmp_path):
    shards = [images(n, seed) for seed, n in enumerate((2, 3, 1))]
    written(tmp_path / "acts", *shards)
    return tmp_path / "acts", joined(*shards)


# --- What is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_what_is_read_is_what_was_written_to_the_precision_of_the_type(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    shards = [images(2, 0), images(3, 1)]
    written(tmp_path / "acts", *shards, dtype=dtype)
    store = usae.ActivationStore(tmp_path / "acts")
    assert store.model_names == tuple(store) == tuple(WIDTHS) and store.widths == WIDTHS and len(store) == 2
    assert store.n_tokens == 20 and store.n_shards == 2 and store.dtype == dtype and store.finished
    for name, x in joined(*shards).items():
        expected = torch.from_numpy(x).to(getattr(torch, dtype))
        got = store[name][:]
        assert got.dtype == (np.float16 if dtype == "float16" else np.float32)
        np.testing.assert_array_equal(got, expected.numpy() if dtype == "float16" else expected.float().numpy())
    store.verify()


def test_bfloat16_and_tensors_are_kept_bit_by_bit(tmp_path):
    torch = pytest.importorskip("torch")
    acts = {name: torch.from_numpy(x).bfloat16() for name, x in images(2, 0).items()}
    store = written(tmp_path / "acts", acts, dtype="bfloat16")
    for name, x in acts.items():
        np.testing.assert_array_equal(store[name][:], x.float().numpy())
    files_of_a = sorted(path for path in (tmp_path / "acts").iterdir() if path.name.endswith("-0.npy"))
    assert np.load(files_of_a[0]).dtype == np.uint16


def test_rounding_to_bfloat16_is_that_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, np.uint32)
    ties = np.arange(0x3F80_0000, 0x3F80_0000 + 40_000 * 0x8000, 0x8000, np.uint32)
    x = np.concatenate([bits, ties]).view(np.float32)
    x = x[np.abs(x) < 3e38].reshape(-1, 1)  # NaN too is out
    store = written(tmp_path / "acts", {"a": x}, dtype="bfloat16")
    np.testing.assert_array_equal(store["a"][:], torch.from_numpy(x).bfloat16().float().numpy())


def test_files_are_plain_npy_row_by_row(three):
    folder, acts = three
    parts = [np.load(folder / f"shard-{shard:06}-1.npy", mmap_mode="r") for shard in range(3)]
    assert [part.shape for part in parts] == [(2, 4, 5), (3, 4, 5), (1, 4, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), acts["网/b"].astype(np.float16))
    assert isinstance(usae.ActivationStore(folder)["a"].open_shard(0), np.memmap)


@pytest.mark.parametrize(
    "key", [0, -1, slice(1, 4), slice(None), slice(5, 0, -2), slice(2, 2), [4, 0, 4], np.array([True] * 6)]
)
def test_a_stored_array_is_indexed_by_images_as_an_array_is(three, key):
    folder, acts = three
    x = usae.ActivationStore(folder)["a"]
    assert x.shape == acts["a"].shape and len(x) == 6 and x.ndim == 3 and x.size == 72
    np.testing.assert_array_equal(x[key], acts["a"].astype(np.float16)[key])
    np.testing.assert_array_equal(np.asarray(x), acts["a"].astype(np.float16))
    with pytest.raises(usae.InvalidInputError, match="indexed by images alone"):
        x[0, 1]


def test_names_grid_layers_and_metadata_are_kept(tmp_path):
    models = {"a": {"width": 3, "layer": "blocks.11", "source": "timm", "weights": "sha256:12"}, "网/b": 5}
    with usae.ActivationStore.create(tmp_path / "acts", models, grid=(1, 4), metadata={"why": ["test", 1]}) as store:
        store.append(images(2, 0), image_names=["x.jpg", "图.jpg"])
        store.append(images(1, 1))
    store = usae.ActivationStore(tmp_path / "acts")
    assert store.images == ("x.jpg", "图.jpg", "2") and store.grid == (1, 4) and store.metadata == {"why": ["test", 1]}
    assert store.models["a"] == models["a"] and store.models["网/b"] == {"width": 5, "source": None, "layer": None}
    assert store.path == tmp_path / "acts" and "a: 3" in repr(store) and "not finished" not in repr(store)


def test_rows_without_images_are_kept_as_such(tmp_path):
    x = {"a": np.arange(12, dtype=np.float32).reshape(4, 3)}
    store = written(tmp_path / "acts", x, x)
    assert store["a"].shape == (8, 3) and store.n_tokens == 8 and store.images == () and store.grid is None
    np.testing.assert_array_equal(store["a"][[7, 0]], x["a"][[3, 0]])


def test_a_store_can_be_copied_into_another_type(three, tmp_path):
    folder, acts = three
    store = written(tmp_path / "copy", usae.ActivationStore(folder), dtype="float32")
    np.testing.assert_array_equal(store["a"][:], acts["a"].astype(np.float16))


def test_writing_goes_on_after_closing(three):
    folder, acts = three
    more = images(2, 9)
    store = usae.ActivationStore(folder)
    store.append(more)
    assert not store.finished and not usae.ActivationStore(folder).finished
    store.finish()
    store.close()
    np.testing.assert_array_equal(usae.ActivationStore(folder)["a"][:], joined(acts, more)["a"].astype(np.float16))


# --- What is refused when writing ---------------------------------------------------------------------------------------


def test_an_overflow_names_model_and_layer_and_proposes_bfloat16(tmp_path):
    acts = {"a": np.full((1, 1, 2), 70_000.0)}
    store = usae.ActivationStore.create(tmp_path / "acts", {"a": {"width": 2, "layer": "blocks.3"}})
    message = r"acts\['a'\] \(layer 'blocks.3'\) reaches 70000, but a store of float16 ends at 65504; .*dtype=\"bfloat16\""
    with pytest.raises(usae.InvalidInputError, match=message):
        store.append(acts)
    for dtype, large in (("float32", 1e39), ("bfloat16", 3.4e38)):
        with pytest.raises(usae.InvalidInputError, match=f"but a store of {dtype} ends at 3.4e38"):
            written(tmp_path / dtype, {"a": np.full((1, 2), large)}, dtype=dtype)
    assert store.n_shards == 0 and {path.name for path in store.path.iterdir()} == {MANIFEST, "writer.lock"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_what_is_not_finite_is_refused_with_its_place(tmp_path, bad, dtype):
    acts = {"a": np.ones((2, 3, 4), np.float32)}
    acts["a"][1, 2, 0] = bad
    with pytest.raises(usae.InvalidInputError, match=rf"acts\['a'\] must be finite, got {bad} at \[1, 2, 0\]"):
        written(tmp_path / "acts", acts, dtype=dtype)


def test_shards_that_do_not_fit_are_refused_and_nothing_changes(three):
    folder, acts = three
    before = files(folder)
    store = usae.ActivationStore(folder)
    some = images(2, 5)
    for bad, names, message in [
        ({"a": some["a"]}, None, "acts must hold every model"),
        (some | {"c": some["a"]}, None, "unknown model 'c'"),
        ({"a": some["网/b"], "网/b": some["a"]}, None, "must have 3 columns"),
        (some | {"a": some["a"][:1]}, None, "same number of rows"),
        (some | {"a": some["a"].reshape(4, 2, 3)}, None, "must have the same images and tokens, got a: .4, 2, 3"),
        (images(2, 0, tokens=5), None, r"acts must be images of 4 tokens, as the store has them, got \[2, 5\]"),
        ({name: x[0] for name, x in some.items()}, None, "acts must be images of 4 tokens"),
        (some, ["x"], "image_names must hold text for each of 2 images"),
        (some, "xy", "image_names must be a list of names"),
        (some, ["x", 2], "image_names must hold text"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            store.append(bad, image_names=names)
    assert files(folder) == before and store.finished


def test_arguments_of_create_are_checked(tmp_path):
    for options, message in [
        ({"dtype": "float64"}, "dtype must be"),
        ({"dtype": None}, "dtype must be"),
        ({"grid": 4}, "grid must be"),
        ({"grid": (4, 0)}, r"grid\[1\] must be"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {"x": {1, 2}}}, "metadata must be plain values"),
        ({"models": {"a": 0}}, r"models\['a'\]: width must be"),
        ({"models": {"a": {"width": 3, "layer": 7}}}, "source and layer must be text"),
        ({"models": {"": 3}}, "name must be text"),
        ({"models": {}}, "at least one model"),
        ({"models": [3]}, "models must be a mapping"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            usae.ActivationStore.create(tmp_path / "acts", **options)
    assert not (tmp_path / "acts").exists()
    with pytest.raises(usae.CheckpointFileError, match="has to exist"):
        usae.ActivationStore.create(tmp_path / "missing" / "acts")


def test_a_store_is_not_made_over_something_else(three, tmp_path):
    folder, _ = three
    before = files(folder)
    with pytest.raises(usae.CheckpointFileError, match="open it with ActivationStore") as caught:
        usae.ActivationStore.create(folder)
    assert caught.value.errno == errno.EEXIST and files(folder) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(usae.CheckpointFileError, match="the folder is not empty; choose another"):
        usae.ActivationStore.create(tmp_path / "other")


def test_two_writers_at_once_are_refused(tmp_path):
    first = usae.ActivationStore.create(tmp_path / "acts")
    first.append(images(1, 0))
    second = usae.ActivationStore(tmp_path / "acts")
    with pytest.raises(usae.CheckpointFileError, match="another writer has it open") as caught:
        second.append(images(1, 1))
    assert caught.value.errno == errno.EBUSY
    script = "import sys, usae; usae.ActivationStore(sys.argv[1]).finish()"
    result = subprocess.run([sys.executable, "-c", script, str(first.path)], capture_output=True, text=True)
    assert result.returncode and "another writer has it open" in result.stderr
    first.append(images(1, 2))
    first.close()
    second.append(images(1, 1))  # from what is there by now
    assert second.n_shards == 3 and usae.ActivationStore(tmp_path / "acts").n_shards == 3


def test_leaving_with_an_error_leaves_the_store_unfinished_and_that_is_refused(tmp_path):
    with pytest.raises(ZeroDivisionError), usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(images(2, 0))
        raise ZeroDivisionError
    store = usae.ActivationStore(tmp_path / "acts")
    assert "not finished" in repr(store) and len(store["a"][:]) == 2
    message = r"acts\['a'\] must be of a finished store, got one whose writer stopped after 2 images; .*store.finish\(\)"
    with pytest.raises(usae.InvalidInputError, match=message):
        usae.UniversalSAE(4, 2).fit(store)
    store.finish()
    usae.UniversalSAE(4, 2).fit(store, steps=2)


# --- Writers that are stopped --------------------------------------------------------------------------------------------

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
        time.sleep(moments.uniform(0, 0.05))  # and somewhere in the next
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
    assert "cannot write the store: File too large" in result.stdout
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
        with pytest.raises(usae.CheckpointFileError, match="cannot write the store: No space left on device") as caught:
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
        with pytest.raises(usae.CheckpointFileError, match="No space left on device") as caught:
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
                with pytest.raises(usae.CheckpointFileError, match="Input/output error"):
                    store.append(images(3, 1))
            else:
                store.append(images(3, 1))
        seen.add((fail_at, store.n_shards))
        store.close()
        again = usae.ActivationStore(store.path)
        again.verify()
        assert again.n_shards == store.n_shards and not list(store.path.glob("*.new"))
    assert seen == {(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2)}


# --- Damage ---------------------------------------------------------------------------------------------------------------


def test_a_missing_or_shortened_file_is_refused_when_the_store_is_opened(three):
    folder, _ = three
    file = folder / "shard-000001-1.npy"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole + b"x", b""):
        file.write_bytes(damaged)
        with pytest.raises(
            usae.CheckpointError, match=rf"shard-000001-1.npy is cut short .* it has {len(damaged)} of {len(whole)}"
        ):
            usae.ActivationStore(folder)
    file.unlink()
    with pytest.raises(usae.CheckpointError, match=r"shard-000001-1.npy is missing; copy it again"):
        usae.ActivationStore(folder)


def test_a_file_that_vanishes_or_shrinks_while_the_store_is_open_is_an_error(three):
    folder, _ = three
    store = usae.ActivationStore(folder)
    file = folder / "shard-000001-0.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with pytest.raises(usae.CheckpointError, match="shard-000001-0.npy is cut short or damaged"):
        store["a"][:]
    other = np.load(folder / "shard-000002-0.npy")
    np.save(file, other)
    with pytest.raises(usae.CheckpointError, match=r"must hold float16 \[3, 4, 3\], got float16 \[1, 4, 3\]"):
        store["a"][3]
    file.unlink()
    with pytest.raises(usae.CheckpointError, match="shard-000001-0.npy is missing"):
        store["a"][3]


def test_any_flipped_bit_is_found_before_training_and_by_verify(three):
    folder, _ = three
    file = folder / "shard-000002-0.npy"
    whole = file.read_bytes()
    for place in (0, 60, len(whole) - 1):  # magic, header, last element
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        store = usae.ActivationStore(folder)
        with pytest.raises(usae.CheckpointError, match=r"shard-000002-0.npy: damaged, not the bytes that were written"):
            store.verify()
        with pytest.raises(usae.CheckpointError, match="damaged"):
            store["a"].verify()
        store["网/b"].verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="other"), "was not written by usae"),
        (lambda m: m.update(format_version=99, package_version="9.9"), "written in format 99 by usae 9.9, .*update usae"),
        (lambda m: m.update(format_version="1"), "format_version is not what usae writes"),
        (lambda m: m.update(extra=1), "unknown key 'extra'"),
        (lambda m: m.pop("dtype"), "'dtype' is missing"),
        (lambda m: m.update(dtype=["float16"]), "dtype is not what usae writes"),
        (lambda m: m.update(grid=[2]), "grid is not what"),
        (lambda m: m.update(grid=[2, 3]), "tokens is not what"),
        (lambda m: m["models"].append(m["models"][0]), "occurs twice"),
        (lambda m: m["models"][0].update(width=0), "models is not what"),
        (lambda m: m["shards"][0].update(n=0), r"shards\[0\].n is not what"),
        (lambda m: m["shards"][1].update(images=["x"]), r"shards\[1\].images is not what"),
        (lambda m: m["shards"][1].update(images=None), r"shards\[1\].images is not what"),
        (lambda m: m["shards"][1]["files"].pop(), r"shards\[1\].files is not what"),
        (lambda m: m["shards"][1]["files"][0].update(path="/etc/passwd"), r"shards\[1\].files is not what"),
        (lambda m: m["shards"][1].update(more=1), r"shards\[1\]: unknown key 'more'"),
        (lambda m: m["shards"].insert(0, "x"), r"shards\[0\] must hold named values"),
    ],
)
def test_a_manifest_that_usae_did_not_write_is_refused(three, change, message):
    folder, _ = three
    edited(folder, change)
    with pytest.raises(usae.CheckpointError, match=message):
        usae.ActivationStore(folder)


def test_a_folder_that_is_no_store_is_refused(three, tmp_path):
    folder, _ = three
    text = (folder / MANIFEST).read_bytes()
    for length in range(0, len(text) - 1, 97):
        (folder / MANIFEST).write_bytes(text[:length])
        with pytest.raises(usae.CheckpointError, match="damaged or cut short"):
            usae.ActivationStore(folder)
    with pytest.raises(usae.CheckpointError, match="not a store of activations, there is no usae-store.json"):
        usae.ActivationStore(tmp_path)
    with pytest.raises(usae.CheckpointError, match="this is a file"):
        usae.ActivationStore(folder / MANIFEST)
    with pytest.raises(usae.CheckpointFileError, match="No such file"):
        usae.ActivationStore(tmp_path / "nowhere")
    with pytest.raises(usae.InvalidInputError, match="path must name a folder"):
        usae.ActivationStore("")


def test_an_unknown_model_is_an_error_that_names_the_others(three):
    store = usae.ActivationStore(three[0])
    assert "a" in store and "c" not in store and dict(store).keys() == {"a", "网/b"}
    with pytest.raises(usae.InvalidInputError, match="unknown model 'c'; the models are 'a', '网/b'"):
        store["c"]
