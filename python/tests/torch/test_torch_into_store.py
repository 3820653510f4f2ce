"""`usae.torch.extract(store=)`: extraction that can be interrupted."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from torch import nn

import usae
from support.extraction import IDENTITY, IMAGENET, Stopping, networks
from support.refusals import refuses
from usae.torch import Model, extract


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


def test_pictures_whose_names_are_not_utf_8_are_extracted_and_continued(models, images, folder, tmp_path):
    names = [os.fsdecode(b"00\xff.png"), os.fsdecode(b"02\xe9.png")]
    for name, old in zip(names, ("00.png", "02.png"), strict=True):
        (folder / old).rename(folder / name)
    store = extract(models, folder, store=tmp_path / "acts", shard_images=4)
    assert set(names) <= set(store.images)
    Image.fromarray(images[0]).save(folder / "12.png")
    longer = extract(models, folder, store=tmp_path / "acts", shard_images=4)
    assert longer.images[: len(store.images)] == store.images and len(longer.images) == 12


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
    other_layer = models | {"fine": Model(models["fine"].module, "", size=32, **IMAGENET)}
    for given, images_, options, argument, got in [
        (models, folder, {}, "images[2]", "'02b.png'"),
        (models, images, {}, "images[0]", "'sha256:"),
        (models, [], {}, "images", "only 0"),
        (networks(seed=1), folder, {}, "models['fine']: weights", "'"),
        (networks(std=0.5), folder, {}, "models['fine']: std", "[0.5, 0.5, 0.5]"),
        (other_layer, folder, {}, "models['fine']: layer", "''"),
        ({"fine": models["fine"]}, folder, {}, "models", "'fine'"),
        (models, folder, {"grid": 2}, "grid", "(2, 2)"),
        (models, folder, {"crop": True}, "crop", "True"),
        (models, folder, {"dtype": "bfloat16"}, "dtype", "'bfloat16'"),
    ]:
        with refuses(argument, got):
            extract(given, images_, store=path, **options)
    assert files(store) == before


def test_arrays_are_known_by_what_they_show(models, images, tmp_path):
    extract(models, images[:5], store=tmp_path / "acts")
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    with refuses("images[3]", "'sha256:"):
        extract(models, changed, store=tmp_path / "acts")


def test_an_overflow_names_model_and_layer_and_bfloat16_holds_it(images, tmp_path):
    large = nn.Sequential(nn.Conv2d(3, 2, 4, 4))
    large[0].weight.data.fill_(1e4)
    given = {"large": Model(large, "0", size=32, **IDENTITY)}
    with refuses("dtype", '"float16"', remedy='dtype="bfloat16" with a store') as caught:
        extract(given, images, store=tmp_path / "half")
    assert "'large'" in str(caught.value)
    store = extract(given, images, store=tmp_path / "acts", dtype="bfloat16")
    np.testing.assert_allclose(store["large"][:], extract(given, images)["large"], rtol=2**-8)


def test_arguments_are_checked_and_nothing_is_left(models, images, tmp_path):
    for given, options, argument, got in [
        (images, {"dtype": "float64"}, "dtype", "'float64'"),
        (images, {"shard_images": 0}, "shard_images", "0"),
        (7, {}, "images", "int"),
        (images, {"store": ""}, "path", "''"),
    ]:
        with refuses(argument, got):
            extract(models, given, **{"store": tmp_path / "acts"} | options)
    assert not (tmp_path / "acts").exists()
    with refuses("images", "none"):
        extract(models, [], store=tmp_path / "acts")
    assert not usae.ActivationStore(tmp_path / "acts").finished


@pytest.mark.slow
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

        models = {"net": usae.torch.Model(net, "0", size=32, mean=0, std=1)}
        usae.torch.extract(models, pictures(), store=sys.argv[1], batch_size=2, shard_images=3)
    """)

    def run(path, stop_at):
        return subprocess.run([sys.executable, "-c", script, str(path), str(stop_at)]).returncode

    assert run(tmp_path / "whole", 99) == 0
    assert run(tmp_path / "acts", 7) == -9 and run(tmp_path / "acts", 11) == -9 and run(tmp_path / "acts", 99) == 0
    whole, store = (usae.ActivationStore(tmp_path / name) for name in ("whole", "acts"))
    assert files(store) == files(whole)


def test_rounding_is_warned_of_once_for_each_network_and_not_for_each_shard(models, images, tmp_path, recwarn):
    for model in models.values():
        model.module[0].bias.data += 300
        model.module[0].weight.data *= 5
    extract(models, images, store=tmp_path / "acts", batch_size=2, shard_images=4)
    texts = [str(warning.message) for warning in recwarn.list]
    assert sorted(text.split(":")[0] for text in texts) == ["model 'coarse'", "model 'fine'"], texts
