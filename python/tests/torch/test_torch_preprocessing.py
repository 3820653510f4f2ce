"""What a network's own preprocessing does is done here too where it does not misalign models, and said where not.

Results are held to the transforms of timm, torchvision and transformers themselves. These resize pictures of 8 bits, which are
rounded after each direction, so that a value may differ by 1/255, and by a little more where bicubic filters overshoot.
"""

import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.extraction import IDENTITY
from support.networks import convolutional
from support.refusals import refuses
from usae.torch import Model, extract

ROUNDING = 2.01 / 255
SHAPES = [(40, 40), (57, 90), (130, 61), (300, 200)]


def pictures():
    rng = np.random.default_rng(0)
    for height, width in SHAPES:
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
        yield np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def assert_preprocesses_as(model, transform, crop, tolerance=ROUNDING):
    """`transform` is the library's own, from a PIL image to the normalised image."""
    mean, std = (np.reshape(x, (-1, 1, 1)) for x in (model.mean, model.std))
    for picture in pictures():
        expected = np.asarray(transform(Image.fromarray(picture))) * std + mean
        np.testing.assert_allclose(model.preprocess(picture, crop=crop)[0] * std + mean, expected, atol=tolerance)


def plain(**options):
    return Model(convolutional(), "3", **options)


# --- Libraries' own transforms ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm():
    import support.torchvision_without_cuda  # noqa: F401  # before timm, which imports torchvision

    return pytest.importorskip("timm")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize(("share", "filter"), [(0.9, "bicubic"), (0.875, "bilinear"), (1.0, "bicubic")])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_cuts_of_timm(timm, mode, share, filter, size):
    if size[0] != size[1] and mode == "center":
        pytest.skip("timm resizes by a transform of its own there, with other rounding")
    config = {"input_size": (3, *size), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": filter}
    config |= {"crop_pct": share, "crop_mode": mode}
    transform = timm.data.create_transform(**config, is_training=False)
    for said in (config, transform):
        model = plain(preprocessing=said)
        assert model.size == size and model.mean.tolist() == [0.5] * 3 and model.std.tolist() == [0.25] * 3
        assert_preprocesses_as(model, transform, "own")


@pytest.mark.slow
def test_a_network_of_timm_says_how_its_images_are_made(timm):
    net = timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=1).eval()
    model = Model(net)
    config = timm.data.resolve_model_data_config(net)
    assert model.preprocessing.filter == config["interpolation"] == "bicubic"
    assert "crop_pct" in repr(model) and "0.9" in repr(model) and "filter=bicubic" in repr(model)
    assert_preprocesses_as(model, timm.data.create_transform(**config, is_training=False), "own")
    whole = timm.data.create_transform(**config | {"crop_pct": 1.0, "crop_mode": "squash"}, is_training=False)
    assert_preprocesses_as(model, whole, False)
    in_grey = Model(timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=1, in_chans=1).eval())
    assert in_grey.channels == 1 and in_grey.mean.tolist() == [0.5] and in_grey.grid == (14, 14)
    five = Model(timm.create_model("resnet18", pretrained=False, in_chans=5).eval())
    assert five.channels == 5 and five.mean is None


@pytest.mark.slow
def test_transforms_of_torchvision():
    from support.torchvision_without_cuda import torchvision

    for weights in (
        torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
        torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V1,
    ):
        preset = weights.transforms()
        model = Model(torchvision.models.resnet18(weights=None).eval(), preprocessing=preset)
        assert model.size == tuple(preset.crop_size * 2)
        assert_preprocesses_as(model, preset, "own")
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(36, interpolation=torchvision.transforms.InterpolationMode.BICUBIC),
            torchvision.transforms.CenterCrop(32),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ]
    )
    assert_preprocesses_as(plain(preprocessing=steps), steps, "own")
    steps.transforms.insert(2, torchvision.transforms.Grayscale(3))
    assert "Grayscale" in repr(plain(preprocessing=steps))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("SiglipImageProcessor", {"size": {"height": 32, "width": 48}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
    ],
)
def test_processors_of_transformers(name, options):
    import support.torchvision_without_cuda  # noqa: F401

    import transformers  # isort: skip

    processor = getattr(transformers, name)(**options)
    model = plain(preprocessing=processor)
    assert_preprocesses_as(model, lambda image: processor(image, return_tensors="np")["pixel_values"][0], "own")


# --- What the scale of a network is -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name", "mean"),
    [
        ("BlipVisionConfig", "BlipVisionModel", 0.48145466),
        ("DPTConfig", "DPTModel", 0.5),
        ("DPTConfig", "DPTForDepthEstimation", 0.5),
        ("BeitConfig", "BeitModel", 0.5),
        ("Siglip2VisionConfig", None, 0.5),
        ("ViTMAEConfig", "ViTMAEModel", 0.485),
        ("EfficientNetConfig", "EfficientNetModel", None),
        ("MobileViTConfig", "MobileViTModel", None),
        ("MLCDVisionConfig", "MLCDVisionModel", 0.48145466),
        ("CLIPSegVisionConfig", "CLIPSegVisionModel", None),
    ],
)
def test_scales_of_transformers_are_those_of_its_checkpoints_or_have_to_be_given(config, name, mean):
    import support.torchvision_without_cuda  # noqa: F401

    import transformers  # isort: skip
    from usae.torch._presets import find_preset

    if not hasattr(transformers, config) or name is None or not hasattr(transformers, name):
        pytest.skip("this version of transformers has no such network")
    tiny = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}
    made = getattr(transformers, config)(**tiny if "Efficient" not in config and "Mobile" not in config else {})
    module = type("Network", (nn.Module,), {"__module__": "transformers.models.x", "main_input_name": "pixel_values"})()
    module.config = made
    found = find_preset(module).preprocessing.mean
    assert (None if found is None else pytest.approx(found[0])) == mean


def test_the_scale_of_a_network_that_says_nothing_is_never_guessed():
    class Quiet(nn.Module):
        main_input_name = "pixel_values"

        def __init__(self, **config):
            super().__init__()
            self.config = types.SimpleNamespace(**config)
            self.patches = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x):
            return self.patches(x)

    Quiet.__module__ = "transformers.models.quiet"
    for config, mean in (
        ({"model_type": "brand_new"}, None),
        ({"model_type": "dinov2"}, 0.485),
        ({"model_type": "mlcd_vision_model"}, 0.48145466),
        ({"model_type": "dpt", "backbone_config": types.SimpleNamespace(model_type="dinov2")}, 0.485),
        ({"model_type": "dpt", "backbone_config": types.SimpleNamespace(model_type="bit")}, None),
        ({"model_type": "rt_detr"}, 0.0),
    ):
        model = Model(Quiet(num_hidden_layers=0, image_size=8, **config).eval(), "patches")
        assert (None if model.mean is None else pytest.approx(model.mean[0])) == mean, config
    Quiet.__module__ = "timm.models.quiet"
    assert Model(Quiet().eval(), "patches").mean is None
    Quiet.__module__ = "mine"
    model = Model(Quiet().eval(), "patches", size=8)
    with refuses("mean", "None"):
        model.preprocess(np.zeros((1, 9, 9, 3), np.uint8))
    said = {"mean": (0.1, 0.2, 0.3), "std": (0.1, 0.2, 0.3)}
    assert Model(Quiet().eval(), "patches", size=8, preprocessing=said).mean[1] == pytest.approx(0.2)


def test_arguments_win_over_the_preprocessing_and_it_over_the_network():
    said = {"mean": (0.1, 0.2, 0.3), "std": (0.25, 0.5, 1.0), "input_size": (3, 16, 24), "interpolation": "bicubic"}
    model = plain(preprocessing=said, mean=0.5, size=32)
    assert (model.mean.tolist(), model.std.tolist(), model.size) == ([0.5] * 3, [0.25, 0.5, 1], (32, 32))
    assert "filter=bicubic" in repr(model)
    for bad in (3, "imagenet", lambda x: x, {"input": 3}, nn.Identity(), {"mean": 3, "input_size": 5}):
        with refuses("preprocessing"):
            plain(preprocessing=bad)


# --- Several models ---------------------------------------------------------------------------------------------------


def test_models_whose_own_cuts_differ_are_refused_and_those_that_agree_see_the_same_place():
    scale = {"mean": (0.0,) * 3, "std": (1.0,) * 3}

    def pooled(patch, side, share, mode="center"):
        said = {**scale, "input_size": (3, side, side), "crop_pct": share, "crop_mode": mode, "interpolation": "bilinear"}
        return Model(nn.AvgPool2d(patch).eval(), "", preprocessing=said, channels_last=False)

    picture = np.zeros((1, 80, 120, 3), np.uint8)
    picture[0, 8:40, 28:60] = 255  # the first quarter of the centre of 64 x 64, which is .8 of the shorter side
    models = {"a": pooled(16, 32, 0.8), "b": pooled(32, 64, 0.8)}
    acts = extract(models, picture, crop="own")
    for x in acts.values():
        assert x[0, 0, 0] > 0.9 and x[0, 1:, 0].max() < 0.1
    assert "crop_pct" in repr(models["a"])
    for other in (pooled(16, 32, 0.9), pooled(16, 32, 0.8, "squash")):
        with refuses("crop", '"own" and a: center, 0.8'):
            extract({"a": models["a"], "other": other}, picture, crop="own")
        assert len(extract({"a": models["a"], "other": other}, picture)["other"]) == 1
    unknown = Model(nn.AvgPool2d(16), "", size=32, **IDENTITY)
    for model in (unknown, pooled(16, 32, 0.8, "border")):
        with refuses("crop", '"own"'):
            extract({"a": models["a"], "other": model}, picture, crop="own")
        with refuses("crop", '"own"'):
            model.preprocess(picture, crop="own")
    for wrong in ("middle", 2, None, [True]):
        with refuses("crop", repr(wrong)):
            extract(models, picture, crop=wrong)


def test_another_filter_is_another_store_and_the_default_one_is_that_of_earlier_versions(tmp_path):
    pictures_ = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    net = convolutional()
    said = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 16, 24)}
    bilinear = Model(net, "3", preprocessing=said | {"interpolation": "bilinear"})
    extract({"net": bilinear}, pictures_, store=tmp_path / "acts")
    extract({"net": Model(net, "3", size=(16, 24), mean=0.5, std=0.5)}, pictures_, store=tmp_path / "acts")
    with refuses("models['net']: filter", "'bicubic'"):
        extract({"net": Model(net, "3", preprocessing=said | {"interpolation": "bicubic"})}, pictures_, store=tmp_path / "acts")
    high = torch.from_numpy(Model(net, "3", preprocessing=said | {"interpolation": "lanczos"}).preprocess(pictures_))
    assert high.min() >= -1 and high.max() <= 1
    assert "lanczos" in repr(Model(net, "3", preprocessing=said | {"interpolation": "lanczos"}))
