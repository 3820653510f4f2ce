"""The photographs of the demonstration, and crops of them."""

import sys

import numpy as np
import pytest

from support.refusals import refuses
from usae.demo import photographs


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
    with refuses("split", "'test'", error=ValueError):
        photographs.crops(pictures, "test", 5, seed=0)
    with refuses("n", "-1", error=ValueError):
        photographs.crops(pictures, "train", -1, seed=0)
    with refuses("photographs", "an empty list", error=ValueError):
        photographs.crops([], "train", 1, seed=0)
    tiny = photographs.Photograph("tiny", np.zeros((40, 400, 3), np.uint8), "made up", "left", 0.3)
    with refuses("photographs", "40 in 'tiny'", error=ValueError):
        photographs.crops([tiny], "train", 1, seed=0)


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_without_the_package_of_photographs_the_error_names_the_remedy(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"usae\[demo\]"):
        photographs.load()


def test_a_photograph_that_left_its_package_is_an_import_error(monkeypatch):
    gone = photographs._CATALOGUE[0]._replace(file="data/gone.png")
    monkeypatch.setattr(photographs, "_CATALOGUE", (gone,))
    with pytest.raises(ImportError, match="data/gone.png"):
        photographs.load()


@pytest.mark.parametrize(("missing", "told"), [("skimage", "is not installed"), ("scipy", "No module named 'scipy'")])
def test_what_a_package_of_photographs_lacks_is_told(monkeypatch, missing, told):
    def files(package):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(photographs.importlib.resources, "files", files)
    with pytest.raises(ImportError, match=rf"scikit.*{told}.*pip install 'usae\[demo\]'"):
        photographs.load()
