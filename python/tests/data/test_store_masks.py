"""Stores with masks: nobody has to give the mask again, and results are those of the rows that count."""

import json

import numpy as np
import pytest

import usae
from support.autoencoders import everything
from support.masks import images, masked, new
from support.refusals import refuses
from support.saves import rewrite_json
from support.stores import MANIFEST

LENGTHS = (7, 1, 12, 20)


@pytest.fixture(scope="module")
def parts():
    return masked(images(40, seed=0))


@pytest.fixture
def store(parts, tmp_path):
    return written(tmp_path / "acts", *parts[:2])


def written(path, mask, acts, **options):
    with usae.ActivationStore.create(path, **{"dtype": "float32"} | options) as store:
        start = 0
        for n in LENGTHS:
            rows = slice(start, start + n)
            part = {name: x[rows] for name, x in acts.items()}
            store.append(usae.MaskedActivations(part, mask[rows])) if n == 7 else store.append(part, mask=mask[rows])
            start += n
    return usae.ActivationStore(path)


def numbers(evaluation):
    return {name: value for name, value in evaluation.to_dict().items() if name != "n_left_out"}


def test_a_store_carries_its_mask_to_training_evaluation_and_codes(store, parts):
    mask, acts, kept = parts
    np.testing.assert_array_equal(store.mask, mask)
    assert store.n_tokens == mask.size and "masked" in repr(store)
    sae = new().fit(store, steps=20)
    assert everything(sae) == everything(new().fit(kept, steps=20))
    assert everything(new().fit(dict(store), steps=20)) == everything(sae)  # so do its arrays, one by one
    evaluation = sae.evaluate(store)
    np.testing.assert_equal(numbers(evaluation), numbers(sae.evaluate(kept)))
    assert evaluation.n_left_out == (~mask).sum()
    assert sae.encode(store["a"], "a") == sae.encode(acts["a"], "a", mask=mask)


@pytest.mark.usefixtures("small_blocks")
def test_a_store_is_read_in_the_order_of_one_without_the_rows(store, parts, tmp_path):
    plain = usae.ActivationStore.create(tmp_path / "plain", dtype="float32")
    plain.append(parts[2])
    plain.finish()
    n = plain.n_tokens
    for position in (0, 37, n, n + 100):
        options = {"seed": 5, "position": position}
        got, expected = list(store.batches(50, **options)), list(plain.batches(50, **options))
        assert sum(len(batch["a"]) for batch in got) == n - position % n
        for one, other in zip(got, expected, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
    assert everything(new().fit(store, steps=25)) == everything(new().fit(plain, steps=25))


def test_a_mask_that_is_given_and_that_of_the_store_count_both(store, parts):
    mask, acts, _ = parts
    other = np.random.default_rng(3).random(mask.shape) < 0.8
    expected = new().fit({name: x[mask & other] for name, x in acts.items()}, steps=5)
    assert everything(new().fit(store, steps=5, mask=other)) == everything(expected)
    assert everything(new().fit(usae.MaskedActivations(store, other), steps=5)) == everything(expected)


def test_rows_that_do_not_count_are_stored_where_they_can_be(tmp_path):
    x = np.ones((2, 3, 4), np.float32)
    x[0, 0], x[0, 1], x[1, 2] = np.nan, 1e6, 7  # neither is a float16
    mask = np.ones((2, 3), bool)
    mask[0, :2] = mask[1, 2] = False
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append({"a": x}, mask=mask)
        with refuses("acts['a']"):
            store.append({"a": x}, mask=mask | (np.arange(3) == 1))
    stored = usae.ActivationStore(tmp_path / "acts")["a"][:]
    assert not stored[0, :2].any() and (stored[1, 2] == 7).all() and np.isnan(x[0, 0]).all()


def test_a_shard_may_have_no_row_that_counts_but_not_the_store(tmp_path, parts):
    _, _, kept = parts
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append({name: x[:10] for name, x in kept.items()}, mask=np.zeros(10, bool))
    with refuses("mask of the store"):
        new().fit(store, steps=1)
    store.append({name: x[10:] for name, x in kept.items()})
    store.finish()
    assert new().fit(store, steps=1).evaluate(store).n_left_out == 10


def test_a_mask_can_be_set_changed_and_taken_away(store, parts):
    mask, _, _ = parts
    other = mask & (np.arange(20) > 3)
    before = {path.name for path in store.path.iterdir() if "mask" not in path.name}
    store.set_mask({"a": mask, "b": other})
    store.close()
    again = usae.ActivationStore(store.path)
    again.verify()
    np.testing.assert_array_equal(again.mask, other)
    assert sum("mask" in path.name for path in store.path.iterdir()) == len(LENGTHS)
    for wrong in (np.zeros_like(mask), mask[1:], mask.astype(int)):
        with refuses("mask"):
            store.set_mask(wrong)
    store.set_mask(np.arange(40)[:, None] != 3)  # all of three shards count
    assert sum("mask" in path.name for path in store.path.iterdir()) == 1
    store.set_mask(None)
    assert store.mask is None and {path.name for path in store.path.iterdir()} == before
    assert "mask" not in (store.path / MANIFEST).read_text()


def test_a_mask_that_was_not_completely_written_is_removed_by_the_next_writer(store, parts):
    leftover = store.path / "shard-000001-mask-0123456789abcdef.npy"
    leftover.write_bytes(b"")
    np.testing.assert_array_equal(usae.ActivationStore(store.path).mask, parts[0])
    usae.ActivationStore(store.path).finish()
    assert not leftover.exists()


def test_a_mask_in_which_all_rows_count_is_not_kept(tmp_path, parts):
    _, _, kept = parts
    with usae.ActivationStore.create(tmp_path / "acts") as store:
        store.append(kept, mask=np.ones(len(kept["a"]), bool))
    manifest = json.loads((store.path / MANIFEST).read_text())
    assert "mask" not in manifest["shards"][0] and store.mask is None


def test_damaged_masks_are_refused(store):
    file = next(path for path in store.path.iterdir() if "mask" in path.name)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with refuses(file.name, error=usae.CheckpointError):
        usae.ActivationStore(store.path).verify()
    with refuses(file.name, error=usae.CheckpointError):
        new().fit(usae.ActivationStore(store.path), steps=1)
    file.write_bytes(whole[:-1])
    with refuses(file.name, error=usae.CheckpointError):
        usae.ActivationStore(store.path)
    file.unlink()
    with refuses(file.name, error=usae.CheckpointError):
        usae.ActivationStore(store.path)


@pytest.mark.parametrize("mask", [None, {}, {"bytes": 3, "sha256": "../" * 22}, {"bytes": -1, "sha256": "0" * 64}])
def test_manifests_with_other_masks_are_refused(store, mask):
    rewrite_json(store.path / MANIFEST, lambda manifest: manifest["shards"][1].update(mask=mask))
    with refuses("shards[1].mask", error=usae.CheckpointError):
        usae.ActivationStore(store.path)
