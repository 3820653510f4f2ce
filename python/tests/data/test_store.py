"""`usae.ActivationStore`: what is kept, and what is refused."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

import usae
from support.folders import files
from support.refusals import refuses, refuses_place
from support.stores import MANIFEST, WIDTHS, images, joined, written

# --- What is kept -----------------------------------------------------------------------------------------------------


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
    with refuses("key", "(0, 1)"):
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


# --- What is refused when writing -------------------------------------------------------------------------------------


def test_an_overflow_names_model_and_layer_and_proposes_bfloat16(tmp_path):
    acts = {"a": np.full((1, 1, 2), 70_000.0)}
    store = usae.ActivationStore.create(tmp_path / "acts", {"a": {"width": 2, "layer": "blocks.3"}})
    with refuses("acts['a'] (layer 'blocks.3')", "70000", remedy='dtype="bfloat16"'):
        store.append(acts)
    for dtype, large in (("float32", 1e39), ("bfloat16", 3.4e38)):
        with refuses("acts['a']", f"{large:g}"):
            written(tmp_path / dtype, {"a": np.full((1, 2), large)}, dtype=dtype)
    assert store.n_shards == 0 and {path.name for path in store.path.iterdir()} == {MANIFEST, "writer.lock"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_what_is_not_finite_is_refused_with_its_place(tmp_path, bad, dtype):
    acts = {"a": np.ones((2, 3, 4), np.float32)}
    acts["a"][1, 2, 0] = bad
    with refuses("acts['a']", f"{bad} at [1, 2, 0]"):
        written(tmp_path / "acts", acts, dtype=dtype)


def test_shards_that_do_not_fit_are_refused_and_nothing_changes(three):
    folder, acts = three
    before = files(folder)
    store = usae.ActivationStore(folder)
    some = images(2, 5)
    for bad, names, argument, got in [
        ({"a": some["a"]}, None, "acts", "none for 网/b"),
        (some | {"c": some["a"]}, None, "acts", ""),
        ({"a": some["网/b"], "网/b": some["a"]}, None, "acts['a']", "shape [2, 4, 5]"),
        (some | {"a": some["a"][:1]}, None, "acts", "a: 4 [1, 4, 3], 网/b: 8 [2, 4, 5]"),
        (some | {"a": some["a"].reshape(4, 2, 3)}, None, "acts", "a: [4, 2, 3], 网/b: [2, 4, 5]"),
        (images(2, 0, tokens=5), None, "acts", "[2, 5] before the width"),
        ({name: x[0] for name, x in some.items()}, None, "acts", "[4] before the width"),
        (some, ["x"], "image_names", "['x']"),
        (some, "xy", "image_names", "'xy'"),
        (some, ["x", 2], "image_names", "['x', 2]"),
    ]:
        with refuses(argument, got):
            store.append(bad, image_names=names)
    assert files(folder) == before and store.finished


def test_arguments_of_create_are_checked(tmp_path):
    for options, argument, got in [
        ({"dtype": "float64"}, "dtype", "'float64'"),
        ({"dtype": None}, "dtype", "None"),
        ({"grid": 4}, "grid", "4"),
        ({"grid": (4, 0)}, "grid[1]", "0"),
        ({"metadata": [1]}, "metadata", "[1]"),
        ({"metadata": {"x": {1, 2}}}, "metadata", "{'x': {1, 2}}"),
        ({"models": {"a": 0}}, "models['a']", "0"),
        ({"models": {"a": {"width": 3, "layer": 7}}}, "models['a']", "{'width': 3, 'layer': 7}"),
        ({"models": {"": 3}}, "models", "''"),
        ({"models": {}}, "models", "an empty mapping"),
        ({"models": [3]}, "models", "[3]"),
    ]:
        with refuses(argument, got):
            usae.ActivationStore.create(tmp_path / "acts", **options)
    assert not (tmp_path / "acts").exists()


def test_a_store_is_not_made_over_something_else(three, tmp_path):
    folder, _ = three
    before = files(folder)
    with refuses_place(folder, errno.EEXIST) as caught:
        usae.ActivationStore.create(folder)
    assert caught.value.errno == errno.EEXIST and files(folder) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with refuses_place(tmp_path / "other", errno.EEXIST):
        usae.ActivationStore.create(tmp_path / "other")


def test_two_writers_at_once_are_refused(tmp_path):
    first = usae.ActivationStore.create(tmp_path / "acts")
    first.append(images(1, 0))
    second = usae.ActivationStore(tmp_path / "acts")
    with refuses_place(tmp_path / "acts", errno.EBUSY) as caught:
        second.append(images(1, 1))
    assert caught.value.errno == errno.EBUSY
    script = "import sys, usae; usae.ActivationStore(sys.argv[1]).finish()"
    result = subprocess.run([sys.executable, "-c", script, str(first.path)], capture_output=True, text=True)
    assert result.returncode and usae.CheckpointFileError.__name__ in result.stderr and str(first.path) in result.stderr
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
    with refuses("acts['a']", "one with 2 images", remedy="store.finish()"):
        usae.UniversalSAE(4, 2).fit(store)
    store.finish()
    usae.UniversalSAE(4, 2).fit(store, steps=2)


# --- Damage -----------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_an_error_that_names_the_others(three):
    store = usae.ActivationStore(three[0])
    assert "a" in store and "c" not in store and dict(store).keys() == {"a", "网/b"}
    with refuses("store"):
        store["c"]


def test_names_of_files_that_are_not_utf_8_are_kept_and_half_characters_refused(tmp_path):
    names = [os.fsdecode(b"\xff\xfe.png"), "é\u2028.png", 'a"\\\n.png']
    model = {"width": 3, "source": os.fsdecode(b"\xe9"), "path": os.fsdecode(b"/\xe9")}
    metadata = {os.fsdecode(b"\xe9"): os.fsdecode(b"\xe9")}
    with usae.ActivationStore.create(tmp_path / "acts", {"a": model}, metadata=metadata) as store:
        store.append(images(3, 0, widths={"a": 3}), image_names=names)
        for half in ("\ud83d\ude00", "\ud83d", "\udc00"):
            with refuses("image_names", repr(half)):
                store.append(images(1, 0, widths={"a": 3}), image_names=[half])
        store.append(images(1, 0, widths={"a": 3}), image_names=["😀"])
    read = usae.ActivationStore(tmp_path / "acts")
    assert list(read.images) == [*names, "😀"] and read.metadata == metadata
    assert read.models["a"]["source"] == model["source"] and read.models["a"]["path"] == model["path"]
    (tmp_path / "acts" / MANIFEST).read_bytes().decode()  # it is UTF-8
