"""`usae.torch.extract(store=)` and `usae.torch.fit`: extraction that can be interrupted, and training without files."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from conftest import everything
from PIL import Image
from torch import nn

import usae
from usae.torch import Model, batches, extract, fit

IDENTITY = {"mean": 0, "std": 1}


def networks(seed=0, **options):
    torch.manual_seed(seed)
    return {
        "fine": Model(nn.Sequential(nn.Conv2d(3, 5, 4, stride=4)), "0", size=32, **options),
        "coarse": Model(nn.Sequential(nn.Conv2d(3, 7, 8, stride=8)), "0", size=32),
    }


@pytest.fixture
def models():
    return networks()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 30, 3), np.uint8)


@pytest.fixture
def folder(images, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def files(store):
    return {path.name: path.read_bytes() for path in store.path.iterdir()}


class Stopping:
    """Pictures that end in an error, as a computer might."""

    def __init__(self, images, after):
        self.images, self.after = images, after

    def __iter__(self):
        for number, image in enumerate(self.images):
            if number == self.after:
                raise KeyboardInterrupt
            yield image


# --- Stores -----------------------------------------------------------------------------------------------------------------


def test_a_store_holds_what_extraction_gives(models, folder, tmp_path):
    store = extract(models, folder, store=tmp_path / "acts", batch_size=2, shard_images=4)
    expected = extract(models, folder, dtype="float16")
    assert isinstance(store, usae.ActivationStore) and store.finished and store.n_shards == 3 and store.grid == (4, 4)
    assert store.images == tuple(f"{number:02}.png" for number in range(11)) and store.dtype == "float16"
    for name, x in expected.items():
        np.testing.assert_allclose(store[name][:], x, rtol=2**-10, atol=1e-7)
    info = store.models["fine"]
    assert (info["width"], info["layer"], info["source"], info["network"]) == (5, "0", "plain module", "Sequential")
    assert usae.UniversalSAE(16, 4).fit(store, steps=3).n_features_in_ == {"fine": 5, "coarse": 7}


@pytest.mark.parametrize("after", [1, 4, 5, 8, 10])
def test_an_interrupted_extraction_continues_to_the_same_bytes(models, images, tmp_path, after):
    options = {"batch_size": 3, "shard_images": 4}
    whole = extract(models, images, store=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        extract(models, Stopping(images, after), store=tmp_path / "acts", **options)
    stopped = usae.ActivationStore(tmp_path / "acts")
    assert not stopped.finished and len(stopped.images) == after // 4 * 4
    store = extract(models, images, store=tmp_path / "acts", **options)
    assert files(store) == files(whole)


def test_files_that_are_there_are_not_read_again(models, folder, tmp_path):
    store = extract(models, folder, store=tmp_path / "acts", shard_images=4)
    before = files(store)
    for path in folder.iterdir():
        path.write_bytes(b"no picture any more")
    assert files(extract(models, folder, store=tmp_path / "acts")) == before


def test_more_images_are_added_to_a_finished_store(models, images, tmp_path):
    extract(models, images[:5], store=tmp_path / "acts")
    store = extract(models, images, store=tmp_path / "acts")
    assert len(store.images) == 11 and store.finished and len(set(store.images)) == 11


def test_a_store_of_something_else_is_refused_with_the_first_difference(models, images, folder, tmp_path):
    path = tmp_path / "acts"
    store = extract(models, folder, store=path)
    before = files(store)
    (folder / "02.png").rename(folder / "02b.png")
    other_layer = models | {"fine": Model(models["fine"].module, "", size=32)}
    for given, images_, options, message in [
        (models, folder, {}, r"images\[2\] was '02.png', got '02b.png'; give another store"),
        (models, images, {}, r"images\[0\] was '00.png', got 'sha256:"),
        (models, [], {}, r"images must begin with those of the store .* has 11, got only 0"),
        (networks(seed=1), folder, {}, r"models\['fine'\]: weights was '\w+', got"),
        (networks(std=2), folder, {}, r"models\['fine'\]: std was \[0.2.*, got \[2.0, 2.0, 2.0\]"),
        (other_layer, folder, {}, r"models\['fine'\]: layer was '0', got ''"),
        ({"fine": models["fine"]}, folder, {}, "models was 'fine, coarse', got 'fine'"),
        (models, folder, {"grid": 2}, r"grid was \(4, 4\), got \(2, 2\)"),
        (models, folder, {"crop": True}, "crop was False, got True"),
        (models, folder, {"dtype": "bfloat16"}, "dtype was 'float16', got 'bfloat16'"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            extract(given, images_, store=path, **options)
    assert files(store) == before


def test_arrays_are_known_by_what_they_show(models, images, tmp_path):
    extract(models, images[:5], store=tmp_path / "acts")
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    with pytest.raises(usae.InvalidInputError, match=r"images\[3\] was 'sha256:"):
        extract(models, changed, store=tmp_path / "acts")


def test_an_overflow_names_model_and_layer_and_bfloat16_holds_it(images, tmp_path):
    large = nn.Sequential(nn.Conv2d(3, 2, 4, 4))
    large[0].weight.data.fill_(1e4)
    given = {"large": Model(large, "0", size=32, **IDENTITY)}
    with pytest.raises(
        usae.InvalidInputError, match=r"model 'large' at layer '0', which reach .*dtype=\"bfloat16\" with a store"
    ):
        extract(given, images, store=tmp_path / "half")
    store = extract(given, images, store=tmp_path / "acts", dtype="bfloat16")
    np.testing.assert_allclose(store["large"][:], extract(given, images)["large"], rtol=2**-8)


def test_arguments_are_checked_and_nothing_is_left(models, images, tmp_path):
    for given, options, message in [
        (images, {"dtype": "float64"}, "dtype must be"),
        (images, {"shard_images": 0}, "shard_images must be"),
        (7, {}, "got int"),
        (images, {"store": ""}, "path must name a folder"),
    ]:
        with pytest.raises(usae.InvalidInputError, match=message):
            extract(models, given, **{"store": tmp_path / "acts"} | options)
    assert not (tmp_path / "acts").exists()
    with pytest.raises(usae.InvalidInputError, match="images must hold at least one picture"):
        extract(models, [], store=tmp_path / "acts")
    assert not usae.ActivationStore(tmp_path / "acts").finished


def test_a_killed_extraction_continues_to_the_same_bytes(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        import numpy as np
        import torch
        import usae.torch

        torch.manual_seed(0)
        torch.set_num_threads(1)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 4, stride=4))
        images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)

        def pictures():
            for number, image in enumerate(images):
                if number == int(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield image

        models = {"net": usae.torch.Model(net, "0", size=32)}
        usae.torch.extract(models, pictures(), store=sys.argv[1], batch_size=2, shard_images=3)
    """)

    def run(path, stop_at):
        return subprocess.run([sys.executable, "-c", script, str(path), str(stop_at)]).returncode

    assert run(tmp_path / "whole", 99) == 0
    assert run(tmp_path / "acts", 7) == -9 and run(tmp_path / "acts", 11) == -9 and run(tmp_path / "acts", 99) == 0
    whole, store = (usae.ActivationStore(tmp_path / name) for name in ("whole", "acts"))
    assert files(store) == files(whole)


# --- Training while the models run ------------------------------------------------------------------------------------------

RECIPE = usae.recipes.default(batch_size=32)


def test_fitting_is_extraction_and_streaming_put_together(models, images):
    options = {"steps": 12, "buffer_tokens": 64}
    sae = fit(usae.UniversalSAE(16, 4, recipe=RECIPE), models, images, batch_size=2, **options)
    stream = [next(batches(models, images[start : start + 2], batch_size=2)) for start in range(0, 11, 2)]
    assert everything(sae) == everything(usae.UniversalSAE(16, 4, recipe=RECIPE).fit_stream(stream, **options))
    assert sae.stream_report_.epochs == 3 and sae.n_features_in_ == {"fine": 5, "coarse": 7}


def test_a_fit_that_stops_goes_on_to_the_same_autoencoder_and_an_iterator_of_pictures_cannot(models, images, tmp_path):
    def stop(report):
        if report.step == 7:
            raise KeyboardInterrupt

    def learned(images, **more):
        sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
        return fit(sae, models, images, batch_size=2, steps=12, buffer_tokens=64, **more)

    options = {"checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        learned(images, callbacks=[stop], **options)
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == 7
    assert everything(learned(images, **options)) == everything(learned(images))
    with pytest.raises(usae.InvalidInputError, match="resume=True needs batches that can be gone through again"):
        learned(iter(images), **options)


def test_an_iterator_of_pictures_has_to_last(models, images):
    sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
    assert fit(sae, models, iter(images), steps=5, buffer_tokens=64) is sae and sae.n_steps_ == 5
    with pytest.raises(usae.InvalidInputError, match="ended after 176 rows, enough for 5 of 6 steps"):
        fit(sae, models, iter(images), steps=6, buffer_tokens=64)


def test_errors_of_pictures_and_models_come_through(models, images):
    sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
    with pytest.raises(usae.InvalidInputError, match="models must be a mapping"):
        fit(sae, [models["fine"]], images, steps=3)
    with pytest.raises(usae.InvalidInputError, match=r"images\[1\] must be an array, a file or a PIL image, got int"):
        fit(sae, models, [images[0], 7], steps=3)
    assert not hasattr(sae, "history_")
