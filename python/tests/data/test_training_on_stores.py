"""Training on a store and everything else that reads it: the same as on arrays, in bounded memory."""

import json
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, everything, planted
from support.refusals import refuses
from usae._core import evaluation
from usae.analysis import top_examples

pytestmark = pytest.mark.slow


def store_of(path, acts, shards, **options):
    """A store of 600 rows or so as images of 4 tokens, in files of these numbers of images."""
    with usae.ActivationStore.create(path, **{"dtype": "float32"} | options) as store:
        first = 0
        for n in shards:
            store.append({name: x[4 * first : 4 * (first + n)].reshape(n, 4, -1) for name, x in acts.items()})
            first += n
    assert store.n_tokens == len(next(iter(acts.values())))
    return usae.ActivationStore(path)


@pytest.fixture
def store(acts, tmp_path):
    return store_of(tmp_path / "acts", acts, (40, 1, 70, 39))


# --- Training ---------------------------------------------------------------------------------------------------------


def test_training_on_a_store_that_fits_into_memory_gives_the_bits_of_training_on_arrays(store, acts, held_out):
    fit = {"steps": 30, "validation": held_out}
    expected = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, **fit)
    assert everything(usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(store, **fit)) == everything(expected)


@pytest.mark.slow
def test_training_does_not_depend_on_how_rows_are_split_into_files_or_on_threads(small_blocks, acts, tmp_path):
    results = []
    for number, shards in enumerate([(150,), (1, 100, 49), (10,) * 15]):
        store = store_of(tmp_path / str(number), acts, shards)
        for n_threads in (1, 2):
            sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3, n_threads=n_threads).fit(store, steps=20)
            results.append(everything(sae))
    assert all(result == results[0] for result in results)


@pytest.mark.slow
def test_training_on_a_store_learns_as_well_as_on_arrays(small_blocks, store, acts, held_out):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(store, steps=300)
    arrays = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, steps=300)
    expected = arrays.evaluate(held_out).r2.mean()
    assert expected > 0.6
    assert abs(sae.evaluate(held_out).r2.mean() - expected) < 0.1  # another order; seeds differ by half of this


def test_validation_may_be_a_store_too(store, acts, held_out, tmp_path):
    validation = store_of(tmp_path / "held_out", held_out, (20, 30))
    got = usae.UniversalSAE(32, 4, recipe=RECIPE).fit(acts, steps=10, validation=validation)
    assert everything(got) == everything(usae.UniversalSAE(32, 4, recipe=RECIPE).fit(acts, steps=10, validation=held_out))


def test_a_damaged_store_is_found_before_training(store, acts):
    file = store.path / "shard-000002-1.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE)
    with refuses("shard-000002-1.npy", error=usae.CheckpointError):
        sae.fit(store)
    with refuses("shard-000002-1.npy", error=usae.CheckpointError) as caught:
        sae.fit(acts, validation=store)
    assert not hasattr(sae, "history_") and caught.type is usae.CheckpointError


def test_a_file_that_vanishes_during_training_is_an_error_and_no_thread_is_left(small_blocks, store):
    def remove(report):
        for file in store.path.glob("shard-*.npy"):
            file.unlink()

    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(batch_size=16))
    with refuses(store.path, error=usae.CheckpointError):
        sae.fit(store, steps=1000, callbacks=[remove])
    assert 0 < sae.n_steps_ < 1000
    assert "usae read-ahead" not in [thread.name for thread in threading.enumerate()]


def test_arrays_and_stores_do_not_mix(store, acts):
    with refuses("acts", "a store for vit only"):
        usae.UniversalSAE(4, 2).fit(acts | {"vit": store["vit"]})


def test_models_may_come_from_different_stores_of_the_same_images(acts, tmp_path):
    def alone(name, images):
        with usae.ActivationStore.create(tmp_path / f"{name}{images[0]}", dtype="float32") as store:
            store.append({name: acts[name].reshape(150, 4, -1)}, image_names=images)
        return store[name]

    images = [f"{number}.jpg" for number in range(150)]
    expected = usae.UniversalSAE(4, 2, recipe=RECIPE).fit(acts, steps=3)
    stores = {name: alone(name, images) for name in acts}
    assert everything(usae.UniversalSAE(4, 2, recipe=RECIPE).fit(stores, steps=3)) == everything(expected)
    stores["vit"] = alone("vit", [*images[1:], images[0]])
    with refuses("acts", "image 0 '0.jpg' in"):
        usae.UniversalSAE(4, 2).fit(stores)


def test_plain_files_keep_working_without_a_store(acts, tmp_path):
    for name, x in acts.items():
        np.save(tmp_path / f"{name}.npy", x)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in acts}
    got = usae.UniversalSAE(32, 4, recipe=RECIPE).fit(mapped, steps=5)
    assert everything(got) == everything(usae.UniversalSAE(32, 4, recipe=RECIPE).fit(acts, steps=5))


# --- Use --------------------------------------------------------------------------------------------------------------


def same(got, expected):
    """Counts exactly, floats up to float32: the core sums in another order, and standardises in float32."""
    got, expected = got.to_dict(), expected.to_dict()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if "counts" in name or name in ("n_tokens", "model_names", "threshold"):
            assert got[name] == value
        else:
            np.testing.assert_allclose(np.array(got[name], float), np.array(value, float), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("part", [7, 64, 599, 600])
@pytest.mark.parametrize("scale", ["scalar", "dimension"])
def test_evaluation_of_a_store_is_that_of_arrays(store, acts, monkeypatch, part, scale):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE.replace(scale=scale), seed=3).fit(acts, steps=60)
    monkeypatch.setattr(evaluation, "PART", part)
    same(sae.evaluate(store, threshold=0.5), sae.evaluate(acts, threshold=0.5))


def test_evaluation_of_constant_parts_is_that_of_arrays(trained, monkeypatch, tmp_path):
    """A part that does not vary has no R2; its squared error counts all the same."""
    acts = planted(60, seed=5)
    for start, stop in ((0, 20), (40, 44)):
        for x in acts.values():
            x[start:stop] = x[start]
    acts["vit"][:20] = 0.3  # every element
    monkeypatch.setattr(evaluation, "PART", 4)
    same(trained.evaluate(store_of(tmp_path / "acts", acts, (5, 10))), trained.evaluate(acts))


def test_nulls_baselines_and_controls_read_a_store(trained, store, acts):
    options = {"include": ("tokens", "concepts", "images", "random", "initial", "linear"), "n_permutations": 2, "n_draws": 10}
    got = usae.controls(trained, store, train=store, **options)
    images = {name: x.reshape(150, 4, -1) for name, x in acts.items()}
    assert got.to_dict() == usae.controls(trained, images, train=images, **options).to_dict()


def test_controls_that_train_read_a_store(trained, store, acts):
    got = usae.controls(trained, store, train=store, include=("shuffled",), steps=5)
    assert got.to_dict() == usae.controls(trained, acts, train=acts, include=("shuffled",), steps=5).to_dict()


@pytest.mark.parametrize("one_per_image", [False, True])
def test_top_examples_of_a_store_are_those_of_arrays(trained, store, acts, monkeypatch, one_per_image):
    monkeypatch.setattr(top_examples, "chunks", lambda n, multiple: (slice(i, min(i + 44, n)) for i in range(0, n, 44)))
    got = usae.top_examples(trained, store, n=5, grid=(2, 2), one_per_image=one_per_image)
    expected = usae.top_examples(trained, acts, n=5, grid=(2, 2), one_per_image=one_per_image)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_array_equal(got.values, expected.values)


def test_encoding_and_single_steps_load_what_they_are_given(trained, store, acts):
    assert trained.encode(store["vit"], "vit") == trained.encode(acts["vit"], "vit")
    one, other = (usae.UniversalSAE(32, 4, recipe=RECIPE) for _ in range(2))
    one.partial_fit(store), other.partial_fit(acts)
    assert everything(one) == everything(other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_read_as_what_they_are(acts, trained, tmp_path, dtype):
    store = store_of(tmp_path / dtype, acts, (100, 50), dtype=dtype)
    arrays = {name: x[:].reshape(600, -1) for name, x in store.items()}
    got, expected = (usae.UniversalSAE(32, 4, recipe=RECIPE).fit(x, steps=5) for x in (store, arrays))
    assert everything(got) == everything(expected)
    same(trained.evaluate(store), trained.evaluate(arrays))


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_store(tmp_path):
    script = textwrap.dedent("""
        import json, sys
        import numpy as np
        import usae
        from usae._core import evaluation
        from usae._data import shuffled_blocks

        def peak():
            with open("/proc/self/status") as status:
                return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

        shuffled_blocks.GROUP_BLOCKS, evaluation.PART = 4, 4096
        path, n = sys.argv[1], int(sys.argv[2])
        with usae.ActivationStore.create(path) as store:
            for shard in range(n):
                x = np.random.default_rng(shard).standard_normal((2048, 512), dtype=np.float32)
                store.append({"a": x, "b": x})
        recipe = usae.recipes.default(batch_size=512)
        sae = usae.UniversalSAE(64, 4, recipe=recipe, n_threads=1).fit(store, epochs=1.5)
        sae.evaluate(store), usae.top_examples(sae, store, 2)
        print(json.dumps([peak(), sae.n_steps_]))
    """)
    peaks = []
    for n in (4, 40):  # 17 and 168 MB
        result = subprocess.run([sys.executable, "-c", script, str(tmp_path / str(n)), str(n)], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        peak, steps = json.loads(result.stdout)
        assert steps == 12 * n  # of 256 rows, each encoded by two models
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 40e6, peaks
