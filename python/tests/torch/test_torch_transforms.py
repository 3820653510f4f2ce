"""Nothing in `preprocessing` is half read: it is honoured, a warning says that it is not, or it is refused.

Results are held to the transforms themselves, up to the rounding that `test_torch_preprocessing` explains.
"""

import types
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.networks import convolutional
from support.refusals import refuses
from usae.torch import Model, extract

HALF = ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5))


@pytest.fixture(scope="module")
def v1():
    from support.torchvision_without_cuda import torchvision

    return torchvision.transforms


@pytest.fixture(scope="module")
def v2(v1):
    from torchvision.transforms import v2

    return v2


def model_of(said, **options):
    return Model(convolutional(), "3", preprocessing=said, **options)


def quietly(said, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model_of(said, **options)


def assert_same(model, transform):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8))
    picture = coarse.resize((90, 57), Image.Resampling.BICUBIC)
    expected = np.asarray(transform(picture))
    got = model.preprocess(picture, crop="own")[0]
    std = np.reshape(model.std, (-1, 1, 1))
    np.testing.assert_allclose(got * std, expected * std, atol=2.01 / 255)


@pytest.mark.slow
def test_steps_within_steps_and_scales_in_a_row_are_read_in_their_order(v1, v2):
    resize, cut, norm = v1.Resize(36), v1.CenterCrop(32), v1.Normalize(*HALF)
    cases = [
        v1.Compose([v1.Compose([resize, cut]), v1.Compose([v1.Compose([v1.ToTensor()]), norm])]),
        v1.Compose([resize, cut, v1.ToTensor(), norm, v1.Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 0.5))]),
        v1.Compose([resize, cut, v1.ToTensor(), norm, v1.Normalize(0.1, 0.5)]),
        v1.Compose([v1.ToTensor(), norm, resize, cut]),
        v1.Compose([resize, cut, v1.PILToTensor(), v1.ConvertImageDtype(torch.float32), norm]),
        v2.Compose([v2.ToImage(), v2.RGB(), resize, cut, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*HALF)]),
        v2.Compose([resize, cut, v2.ToImage(), v2.ToDtype(torch.float32), v2.Normalize([123.675, 116.0, 103.0], [58.0] * 3)]),
    ]
    for transform in cases:
        assert_same(quietly(transform), transform)
    in_a_row = nn.Sequential(resize, cut, v1.ConvertImageDtype(torch.float32), norm)
    model = quietly(in_a_row)
    assert (model.size, model.mean.tolist(), model.std.tolist()) == ((32, 32), [0.5] * 3, [0.25, 0.5, 0.5])


@pytest.mark.slow
def test_random_steps_are_refused_wherever_they_are(v1, v2):
    rest = [v1.ToTensor(), v1.Normalize(*HALF)]
    steps = [v1.RandomCrop(32), v1.RandomResizedCrop(32), v1.RandomHorizontalFlip(), v1.AutoAugment(), v1.RandAugment()]
    steps += [
        v1.TrivialAugmentWide(),
        v1.AugMix(),
        v1.ColorJitter(0.1),
        v1.GaussianBlur(3),
        v1.ElasticTransform(),
        v1.RandomErasing(),
    ]
    steps += [v1.RandomApply([v1.Grayscale(3)]), v1.RandomChoice([v1.Grayscale(3)]), v1.RandomOrder([v1.Resize(32)])]
    steps += [
        v2.RandomPhotometricDistort(),
        v2.ScaleJitter((32, 32)),
        v2.JPEG((50, 90)),
        v2.GaussianNoise(),
        v2.MixUp(num_classes=2),
    ]

    class Mine(v1.RandomHorizontalFlip):
        pass

    steps += [Mine(), type("Flip", (), {"__init__": lambda self: setattr(self, "p", 0.5)})()]
    for step in steps:
        for transform in (v1.Compose([step, *rest]), v1.Compose([v1.Compose([step]), *rest]), v2.Compose([*rest, step])):
            with refuses("preprocessing", remedy="evaluated"):
                model_of(transform)
    with refuses("preprocessing"):
        model_of(v1.RandomApply(rest))


@pytest.mark.slow
def test_random_transforms_of_timm_are_refused_and_borders_are_known(v1):
    timm = pytest.importorskip("timm")
    config = {"input_size": (3, 32, 32), "mean": HALF[0], "std": HALF[1]}
    with refuses("preprocessing"):
        model_of(timm.data.create_transform(**config, is_training=True))
    with refuses("preprocessing"):
        model_of(config | {"interpolation": "random"})
    border = timm.data.create_transform(**config, crop_mode="border", crop_pct=0.9)
    assert quietly(border).preprocessing.cut.mode == "border" and "borders" in repr(quietly(border))
    with refuses("crop"):
        quietly(border).preprocess(np.zeros((9, 9, 3), np.uint8), crop="own")
    assert quietly(timm.create_model("resnet18", pretrained=False).pretrained_cfg).size == (224, 224)
    assert quietly(timm.models.get_pretrained_cfg("resnet18")).mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.slow
def test_a_transform_that_does_not_normalise_leaves_the_scale_to_the_user(v1, v2):
    silent = [v1.Compose([v1.Resize(36), v1.CenterCrop(32), v1.ToTensor()]), v1.Compose([]), v2.Compose([v1.Compose([])])]
    silent.append(v1.Compose([v1.ToTensor(), v1.Lambda(lambda x: 2 * x - 1)]))
    for transform in silent:
        for options in ({}, {"mean": 0.5}, {"std": 0.5}):
            with refuses("preprocessing", remedy="mean="):
                model_of(transform, **options)
    assert quietly(silent[0], mean=0.5, std=0.5).size == (32, 32)
    for half in ({"mean": 0.5, "input_size": (3, 32, 32)}, {"std": 0.5, "crop_pct": 0.9}):
        with refuses("preprocessing", remedy="mean="):
            model_of(half)
    assert quietly({"mean": 0.5}, std=0.25).mean.tolist() == [0.5] * 3


@pytest.mark.slow
def test_what_is_not_done_is_told(v1, v2):
    rest = [v1.ToTensor(), v1.Normalize(*HALF)]
    square = v1.Resize((32, 32))

    def to_bgr(image):
        return image

    steps = {
        "Grayscale": [square, v1.Grayscale(3)],
        "Lambda": [square, v1.Lambda(lambda x: x)],
        "to_bgr": [square, to_bgr],
        "Pad": [v1.Pad(3), square],
        "FiveCrop": [v1.FiveCrop(32)],
        "GaussianBlur": [square, v1.GaussianBlur(3, 1.0)],
        "a second Resize": [v1.Resize(40), v1.CenterCrop(36), v1.Resize(32)],
        "Resize after CenterCrop": [v1.CenterCrop(36), v1.Resize(32)],
        "a second CenterCrop": [v1.Resize(40), v1.CenterCrop(36), v1.CenterCrop(32)],
        "CenterCrop without Resize": [v1.CenterCrop(32)],
        "another shape": [v1.Resize(40), v1.CenterCrop((32, 24))],
        "of another shape": [v1.Resize((40, 36)), v1.CenterCrop(32)],
        "max_size": [v1.Resize(32, max_size=40), v1.CenterCrop(32)],
        "antialiasing": [v1.Resize(36, antialias=False), v1.CenterCrop(32)],
        "shorter side": [v1.Resize(32)],
        "nearest": [v1.Resize((32, 32), interpolation=v1.InterpolationMode.NEAREST)],
    }
    for name, some in steps.items():
        with pytest.warns(UserWarning, match=name) as told:
            model = model_of(v1.Compose([*some, *rest]))
        assert len(told) == 1 and told[0].filename == __file__ and str(told[0].message).startswith("preprocessing"), name
        assert name in repr(model)
    with pytest.warns(UserWarning, match="resize_mode"):
        model_of({"mean": 0.5, "std": 0.5, "size": 224, "resize_mode": "longest"})


@pytest.mark.slow
def test_what_a_transform_does_beside_what_it_says_is_told(v1):
    class Inverted(v1.Compose):
        def __call__(self, picture):
            return 1 - super().__call__(picture)

    class Flipped(v1.Normalize):
        def forward(self, tensor):
            return super().forward(tensor).flip(0)

    Flipped.__name__ = "Normalize"
    steps = [v1.Resize((32, 32)), v1.ToTensor()]
    drawing = v1.Lambda(lambda x: x + 0 * torch.rand(1))
    drawing.__class__ = type("Identity", (v1.Lambda,), {})
    before = torch.get_rng_state()
    for odd in (Inverted([*steps, v1.Normalize(*HALF)]), v1.Compose([*steps, drawing, Flipped(*HALF)])):
        with pytest.warns(UserWarning, match="0..1") as told:
            model_of(odd)
        assert len(told) == 1 and told[0].filename == __file__ and str(told[0].message).startswith("preprocessing")
    assert torch.equal(torch.get_rng_state(), before)

    class Failing(v1.Compose):
        def __call__(self, picture):
            raise ZeroDivisionError

    quietly(Failing([*steps, v1.Normalize(*HALF)]))  # what takes no PIL image is read all the same
    assert quietly(Failing([*steps, v1.Normalize(*HALF)]), mean=0, std=1).mean.tolist() == [0] * 3


@pytest.mark.slow
def test_weights_of_torchvision_are_as_good_as_their_transforms(v1):
    from support.torchvision_without_cuda import torchvision

    weights = torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V1
    assert quietly(weights).preprocessing == quietly(weights.transforms()).preprocessing
    assert quietly(weights.value).size == (240, 240)
    for other in (torchvision.models.EfficientNet_B1_Weights, weights.transforms, "DEFAULT", v1.ToTensor(), convolutional()):
        with refuses("preprocessing"):
            model_of(other)


@pytest.mark.slow
def test_every_switch_of_an_image_processor_is_honoured_or_told():
    import support.torchvision_without_cuda  # noqa: F401

    import transformers  # isort: skip

    size = {"size": {"height": 32, "width": 32}}
    for options in (
        {"rescale_offset": True, "rescale_factor": 1 / 127.5},
        {"include_top": True},
        {"include_top": False},
        {"do_center_crop": False},
    ):
        options = {"rescale_offset": False, "include_top": False, "resample": 3} | size | options
        processor = transformers.EfficientNetImageProcessor(**options)
        model = quietly(processor)
        assert_same(model, lambda image, processor=processor: processor(image, return_tensors="np")["pixel_values"][0])
    vivit = transformers.VivitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    assert quietly(vivit).mean.tolist() == pytest.approx([0.75] * 3)
    with pytest.warns(UserWarning, match="of 0..1"):  # it resizes to more than it says
        model_of(transformers.LevitImageProcessor())
    with pytest.warns(UserWarning, match="do_flip_channel_order"):
        model_of(transformers.MobileViTImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}))
    with pytest.warns(UserWarning, match="longest_edge"):
        model_of(transformers.DetrImageProcessor(do_pad=False))
    unscaled = transformers.ViTImageProcessor(do_rescale=False, **size)
    with refuses("preprocessing", remedy="mean="):
        model_of(unscaled)
    assert quietly(unscaled, mean=0.5, std=0.5).mean.tolist() == [0.5] * 3
    in_bytes = transformers.ViTImageProcessor(do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3, **size)
    assert quietly(in_bytes).mean.tolist() == [0.5] * 3
    with refuses("preprocessing", remedy="mean="):
        model_of(transformers.ViTImageProcessor(image_mean=[127.5] * 3, image_std=[127.5] * 3, **size))


def test_a_scale_of_pictures_in_bytes_is_refused():
    for options in ({"mean": 123.7, "std": 58.4}, {"mean": (103.5, 116.3, 123.7), "std": 1 / 255}, {"mean": 0.5, "std": 127.5}):
        name = "mean" if options["mean"] != 0.5 else "std"
        with refuses(name, remedy="255"):
            Model(convolutional(), "3", size=32, **options)
        with refuses("preprocessing", remedy="255"):
            model_of(options | {"input_size": (3, 32, 32)})
    assert Model(convolutional(), "3", size=32, mean=-1, std=1 / 255).std[0] > 0


def test_numbers_that_no_preprocessing_has_are_refused():
    good = {"mean": 0.5, "std": 0.5, "input_size": (3, 32, 32), "crop_pct": 0.9}
    assert quietly(good).preprocessing.cut == ("center", 0.9, False)
    bad = [{"mean": np.nan}, {"std": 0}, {"std": -1}, {"mean": "red"}, {"mean": [[0.1], 0.2]}, {"mean": []}, {"std": None}]
    bad += [{"input_size": (3, 0, 32)}, {"input_size": 5}, {"crop_pct": -1}, {"crop_pct": "all"}, {"crop_pct": np.nan}]
    bad += [{"crop_mode": "corner"}, {"interpolation": 3}, {"interpolation": "random"}, {"mean": (0.5, 0.4)}]
    for wrong in bad:
        with refuses("preprocessing"):
            model_of(good | wrong)
    with refuses("preprocessing", remedy="mean="):  # three colours for a network of grey images
        Model(nn.Conv2d(1, 2, 3).eval(), "", channels=1, preprocessing={"mean": (0.1, 0.2, 0.3), "std": 0.5})

    class Hostile:
        @property
        def image_mean(self):
            raise ZeroDivisionError

    endless = types.SimpleNamespace(transforms=[])
    endless.transforms.append(endless)
    for object_ in (Hostile(), endless):
        with refuses("preprocessing"):
            model_of(object_)


def test_a_scale_that_is_assumed_is_told_once_and_where_it_is_used(recwarn):
    class Quiet(nn.Module):
        main_input_name = "pixel_values"

        def __init__(self):
            super().__init__()
            self.config = types.SimpleNamespace(model_type="vit", num_hidden_layers=0, image_size=8)
            self.patches = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x):
            return self.patches(x)

    pictures = np.zeros((2, 9, 9, 3), np.uint8)
    for library, what in (("transformers.models.vit", "'vit'"), ("torchvision.models.resnet", "torchvision")):
        Quiet.__module__ = library
        model = Model(Quiet().eval(), "patches", size=8)
        assert what in repr(model) and "those of" in repr(model)
        model(np.zeros((1, 3, 8, 8), np.float32))
        assert not recwarn.list
        for _ in range(2):
            model.preprocess(pictures)
        extract({"a": model}, pictures)
        (told,) = recwarn.list
        assert "Quiet" in str(told.message) and what in str(told.message) and told.filename == __file__
        recwarn.clear()
        for options in ({"mean": 0.5, "std": 0.5}, {"preprocessing": {"mean": 0.5, "std": 0.5}}):
            sure = Model(Quiet().eval(), "patches", size=8, **options)
            extract({"a": sure}, pictures)
            assert "those of" not in repr(sure)
        half = Model(Quiet().eval(), "patches", size=8, mean=0.4)
        half.preprocess(pictures)
        assert len(recwarn.list) == 1
        recwarn.clear()
    Quiet.__module__ = "timm.models.quiet"
    for config in ({"mean": HALF[0], "std": HALF[1]}, {"mean": 3, "input_size": 5}, {"crop_mode": "corner", "crop_pct": 1}, 3):
        net = Quiet().eval()
        net.pretrained_cfg = config
        known = config == {"mean": HALF[0], "std": HALF[1]}
        assert (Model(net, "patches", size=8).mean is not None) == known
