"""The demo's inputs: photographs, crops and the three shipped networks."""

import importlib
import pathlib
import sys

import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import usae.demo  # noqa: E402
from usae.demo import measures, networks, photographs  # noqa: E402


@pytest.fixture(scope="module")
def pictures():
    return photographs.load()


@pytest.fixture(scope="module")
def shipped():
    return networks.load_networks()


@pytest.fixture(scope="module")
def images(pictures):
    return photographs.crops(pictures, "held_out", 5, seed=3).images


def test_every_photograph_is_rgb_and_has_its_own_name(pictures):
    assert len({picture.name for picture in pictures}) == len(pictures) == 20
    for picture in pictures:
        assert picture.image.dtype == np.uint8 and picture.image.ndim == 3 and picture.image.shape[2] == 3
        assert picture.image.std() > 5, f"{picture.name} is nearly plain: was it read in the wrong units?"


def test_a_grey_photograph_has_three_equal_channels(pictures):
    brick = next(picture.image for picture in pictures if picture.name == "brick")
    assert (brick == brick[..., :1]).all()


def test_the_two_regions_share_no_pixel_and_miss_none(pictures):
    for picture in pictures:
        times_covered = np.zeros(picture.image.shape[:2], int)
        for split in ("train", "held_out"):
            top, left, bottom, right = picture.region(split)
            times_covered[top:bottom, left:right] += 1
        assert (times_covered == 1).all(), picture.name
        top, left, bottom, right = picture.region("held_out")
        assert 0.25 < (bottom - top) * (right - left) / times_covered.size < 0.4, picture.name


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_the_held_out_region_lies_at_the_named_side(side):
    picture = photographs.Photograph("plain", np.zeros((100, 200, 3), np.uint8), "made up", side, 0.25)
    expected = {"left": (0, 0, 100, 50), "right": (0, 150, 100, 200), "top": (0, 0, 25, 200), "bottom": (75, 0, 100, 200)}
    assert picture.region("held_out") == expected[side]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_crop_lies_inside_its_region(pictures, split):
    cut = photographs.crops(pictures, split, 600, seed=1)
    for index, (top, left, bottom, right) in zip(cut.photograph, cut.boxes, strict=True):
        region = pictures[index].region(split)
        assert region[0] <= top < bottom <= region[2] and region[1] <= left < right <= region[3]
        assert bottom - top == right - left


def test_held_out_pixels_have_no_influence_on_training_crops(pictures):
    blanked = []
    for picture in pictures:
        image = picture.image.copy()
        top, left, bottom, right = picture.region("held_out")
        image[top:bottom, left:right] = 255 - image[top:bottom, left:right]
        blanked.append(photographs.Photograph(picture.name, image, "changed", picture.held_out_side, picture.held_out_fraction))
    before, after = (photographs.crops(those, "train", 400, seed=2).images for those in (pictures, blanked))
    np.testing.assert_array_equal(before, after)


def test_the_same_seed_gives_the_same_crops_and_another_seed_others(pictures):
    first, again, other = (photographs.crops(pictures, "train", 50, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert (first.boxes != other.boxes).any(1).mean() > 0.9


def test_crops_are_balanced_and_of_several_scales(pictures):
    cut = photographs.crops(pictures, "train", 20 * 30 + 7, seed=0)
    assert set(np.bincount(cut.photograph)) == {30, 31}
    sides = cut.boxes[:, 2] - cut.boxes[:, 0]
    assert sides.min() < 60 and sides.max() > 140
    assert cut.images.shape == (607, 64, 64, 3) and cut.images.dtype == np.uint8


def test_a_crop_shows_what_lies_in_its_box(pictures):
    # Resizing keeps the mean; the tolerance is for the weights at the border and for rounding.
    cut = photographs.crops(pictures, "held_out", 60, seed=4)
    for image, index, (top, left, bottom, right) in zip(cut.images, cut.photograph, cut.boxes, strict=True):
        source = pictures[index].image[top:bottom, left:right]
        np.testing.assert_allclose(image.mean((0, 1)), source.mean((0, 1)), atol=3)


def test_wrong_arguments_are_named(pictures):
    with pytest.raises(ValueError, match="split.*'test'"):
        photographs.crops(pictures, "test", 5, seed=0)
    with pytest.raises(ValueError, match="n: .*-1"):
        photographs.crops(pictures, "train", -1, seed=0)
    with pytest.raises(ValueError, match="photographs"):
        photographs.crops([], "train", 1, seed=0)
    tiny = photographs.Photograph("tiny", np.zeros((40, 400, 3), np.uint8), "made up", "left", 0.3)
    with pytest.raises(ValueError, match="40 in 'tiny'"):
        photographs.crops([tiny], "train", 1, seed=0)


def test_every_network_gives_64_tokens_of_its_own_width(shipped, images):
    shapes = {name: tokens.shape for name, tokens in networks.activations(shipped, images).items()}
    assert shapes == {"classifier": (5, 64, 96), "masked": (5, 64, 128), "contrastive": (5, 64, 64)}


def test_activations_do_not_depend_on_the_batch_size(shipped, images):
    done = []
    whole = networks.activations(shipped, images)
    parts = networks.activations(shipped, images, batch_size=2, progress=lambda *state: done.append(state))
    assert done == [(2, 5), (4, 5), (5, 5)]
    for name in whole:
        assert whole[name].dtype == np.float32 and np.isfinite(whole[name]).all()
        # Sums of a few hundred float32 terms of order one, in an order that may change with the batch.
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-4)


@pytest.mark.parametrize("name", ["classifier", "masked", "contrastive"])
def test_a_token_answers_most_to_its_own_place(shipped, images, name):
    token = 8 * 2 + 5
    changed = images.copy()
    changed[:, 16:24, 40:48] = 255 - changed[:, 16:24, 40:48]
    before, after = (networks.activations({name: shipped[name]}, those)[name] for those in (images, changed))
    assert (np.square(after - before).sum(2).mean(0)).argmax() == token


def test_images_of_another_size_or_type_are_refused(shipped, images):
    with pytest.raises(ValueError, match=r"images: expected uint8 \[n, 64, 64, 3\], got uint8 \[5, 32, 64, 3\]"):
        networks.activations(shipped, images[:, :32])
    with pytest.raises(ValueError, match="float32"):
        networks.activations(shipped, images.astype(np.float32))
    with pytest.raises(ValueError, match="batch_size.*0"):
        networks.activations(shipped, images, batch_size=0)


def test_the_shipped_weights_know_photographs_they_have_not_seen(shipped, pictures):
    torch.manual_seed(0)
    untrained = {
        "classifier": networks.Classifier(20),
        "masked": networks.MaskedAutoencoder(),
        "contrastive": networks.Contrastive(),
    }
    for network in untrained.values():
        network.eval()
    trained, chance = (measures.held_out_measures(those, pictures, n=1000) for those in (shipped, untrained))
    # Classes are named by chance 1 time in 20. Colours alone bring an untrained network to about 0.7 in the last, which
    # at 1000 crops is known to 0.015 (one standard deviation).
    assert trained["classifier"] > 0.8 > 0.2 > chance["classifier"]
    assert trained["masked"] > 0.3 > 0.05 > chance["masked"]
    assert trained["contrastive"] > chance["contrastive"] + 0.05


def test_the_weights_are_small_enough_to_ship():
    files = sorted((pathlib.Path(networks.__file__).parent / "weights").glob("*.safetensors"))
    assert [file.stem for file in files] == ["classifier", "contrastive", "masked"]
    assert all(file.stat().st_size < 1_000_000 for file in files)


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_without_the_package_of_photographs_the_error_names_the_remedy(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'usae\[demo\]'"):
        photographs.load()


def test_a_photograph_that_left_its_package_is_an_import_error(monkeypatch):
    gone = photographs._CATALOGUE[0]._replace(file="data/gone.png")
    monkeypatch.setattr(photographs, "_CATALOGUE", (gone,))
    with pytest.raises(ImportError, match="no data/gone.png"):
        photographs.load()


def test_without_torch_the_error_names_the_remedy_and_photographs_still_load(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "usae.demo.networks")
    monkeypatch.setattr(usae.demo, "networks", networks)  # put back afterwards, should the import get that far
    with pytest.raises(ImportError, match=r"torch.*pip install 'usae\[demo\]'"):
        importlib.import_module("usae.demo.networks")
    assert photographs.load()
