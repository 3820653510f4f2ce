"""Files of a store that are damaged, gone or not of usae."""

import errno
import hashlib
import json

import numpy as np
import pytest

import usae
from support.refusals import refuses, refuses_place
from support.saves import rewrite_json
from support.stores import MANIFEST


def edited(folder, change, sign=True):
    """Change the manifest as a hostile or later program might."""
    rewrite_json(folder / MANIFEST, lambda manifest: change(manifest) and None, sign)


def test_a_missing_or_shortened_file_is_refused_when_the_store_is_opened(three):
    folder, _ = three
    file = folder / "shard-000001-1.npy"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole + b"x", b""):
        file.write_bytes(damaged)
        with refuses(file.name, error=usae.CheckpointError) as caught:
            usae.ActivationStore(folder)
        assert f"{len(damaged)} of {len(whole)} bytes" in str(caught.value)
    file.unlink()
    with refuses("shard-000001-1.npy", error=usae.CheckpointError):
        usae.ActivationStore(folder)


def test_a_file_that_vanishes_or_shrinks_while_the_store_is_open_is_an_error(three):
    folder, _ = three
    store = usae.ActivationStore(folder)
    file = folder / "shard-000001-0.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with refuses("shard-000001-0.npy", error=usae.CheckpointError):
        store["a"][:]
    other = np.load(folder / "shard-000002-0.npy")
    np.save(file, other)
    with refuses("shard-000001-0.npy", "float16 [1, 4, 3]", error=usae.CheckpointError):
        store["a"][3]
    file.unlink()
    with refuses("shard-000001-0.npy", error=usae.CheckpointError):
        store["a"][3]


def test_any_flipped_bit_is_found_before_training_and_by_verify(three):
    folder, _ = three
    file = folder / "shard-000002-0.npy"
    whole = file.read_bytes()
    for place in (0, 60, len(whole) - 1):  # magic, header, last element
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        store = usae.ActivationStore(folder)
        with refuses("shard-000002-0.npy", error=usae.CheckpointError):
            store.verify()
        with refuses("shard-000002-0.npy", error=usae.CheckpointError):
            store["a"].verify()
        store["网/b"].verify()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m.update(format="other"), "usae-store.json"),
        (lambda m: m.update(format_version=99, package_version="9.9"), "format_version"),
        (lambda m: m.update(format_version="1"), "format_version"),
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.pop("dtype"), "dtype"),
        (lambda m: m.update(dtype=["float16"]), "dtype"),
        (lambda m: m.update(grid=[2]), "grid"),
        (lambda m: m.update(grid=[2, 3]), "tokens"),
        (lambda m: m["models"].append(m["models"][0]), "['a', '网/b', 'a']"),
        (lambda m: m["models"][0].update(width=0), "models"),
        (lambda m: m["shards"][0].update(n=0), "shards[0].n"),
        (lambda m: m["shards"][0].update(n=2**50, images=None) or m.update(tokens=None, grid=None), "shards[0].n"),
        (lambda m: m.update(tokens=5), "shards[0].n"),
        (lambda m: m["models"][0].update(width=2**20), "shards[0].n"),
        (lambda m: m.update(dtype="float32"), "shards[0].n"),
        (lambda m: m["shards"][1].update(images=["x"]), "shards[1].images"),
        (lambda m: m["shards"][1].update(images=None), "shards[1].images"),
        (lambda m: m["shards"][1]["files"].pop(), "shards[1].files"),
        (lambda m: m["shards"][1]["files"][0].update(path="/etc/passwd"), "shards[1].files"),
        (lambda m: m["shards"][1].update(more=1), "more"),
        (lambda m: m["shards"].insert(0, "x"), "usae-store.json"),
    ],
)
def test_a_manifest_that_usae_did_not_write_is_refused(three, change, name):
    folder, _ = three
    edited(folder, change)
    with refuses(name, error=usae.CheckpointError):
        usae.ActivationStore(folder)


def test_no_changed_bit_of_the_manifest_is_read(three):
    folder, _ = three
    content = (folder / MANIFEST).read_bytes()
    assert hashlib.sha256(content[:-83]).hexdigest() == json.loads(content)["sha256"]
    for position in range(0, len(content), 7):
        flipped = content[position] ^ 1 << position % 8
        (folder / MANIFEST).write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        with refuses(MANIFEST, error=usae.CheckpointError):
            usae.ActivationStore(folder)


def test_a_store_of_a_format_without_a_checksum_is_read_and_continued_with_one(three):
    folder, shards = three
    edited(folder, lambda m: m.update(format_version=1), sign=False)
    store = usae.ActivationStore(folder)
    store.verify()
    store.append({name: np.asarray(store[name][:2]) for name in store})
    store.close()
    assert json.loads((folder / MANIFEST).read_text())["format_version"] == 2 and len(usae.ActivationStore(folder)["a"]) == 8
    edited(folder, lambda m: None, sign=False)
    with refuses(MANIFEST, error=usae.CheckpointError):
        usae.ActivationStore(folder)


def test_a_folder_that_is_no_store_is_refused(three, tmp_path):
    folder, _ = three
    text = (folder / MANIFEST).read_bytes()
    for length in range(0, len(text) - 1, 97):
        (folder / MANIFEST).write_bytes(text[:length])
        with refuses(MANIFEST, error=usae.CheckpointError):
            usae.ActivationStore(folder)
    with refuses(tmp_path, error=usae.CheckpointError):
        usae.ActivationStore(tmp_path)
    with refuses(folder / MANIFEST, error=usae.CheckpointError):
        usae.ActivationStore(folder / MANIFEST)
    with refuses_place(tmp_path / "nowhere", errno.ENOENT):
        usae.ActivationStore(tmp_path / "nowhere")
    with refuses("path", "''"):
        usae.ActivationStore("")
