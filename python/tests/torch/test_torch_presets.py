"""What `usae.torch.Model` finds out about networks of timm, transformers and torchvision, with random weights.

Tokens are held to what each library itself gives for the layer. The libraries are imported by the tests, which takes seconds.
"""

import numpy as np
import pytest
import torch
from torch import nn

from support.refusals import refuses
from usae.torch import Model

pytestmark = pytest.mark.slow

IMAGENET, CLIP = (0.485, 0.229), (0.48145466, 0.26862954)
TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}


def of_timm(name, **options):
    import support.torchvision_without_cuda  # noqa: F401  # before timm, which imports torchvision

    import timm  # isort: skip

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).eval()


def of_transformers(config, model, **options):
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**TINY, **options)).eval()


def pictures(model, n=1):
    return model.preprocess(np.random.default_rng(0).integers(0, 256, (n, 40, 50, 3), np.uint8))


def found(model):
    return model.layer, model._reader.n_prefix_tokens, model.grid, model.size, (float(model.mean[0]), float(model.std[0]))


@pytest.mark.parametrize(
    ("name", "options", "layer", "tokens", "grid", "size", "normalization"),
    [
        ("vit_tiny_patch16_224", {}, "blocks.11", 1, (14, 14), (224, 224), (0.5, 0.5)),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 56}, "blocks.11", 5, (4, 4), (56, 56), IMAGENET),
        ("vit_small_patch16_dinov3", {"img_size": (32, 64)}, "blocks.11", 5, (2, 4), (32, 64), IMAGENET),
        ("vit_base_patch16_siglip_224", {"depth": 2, "img_size": 32}, "blocks.1", 0, (2, 2), (32, 32), (0.5, 0.5)),
        ("vit_base_patch16_clip_224", {"depth": 2, "img_size": 32}, "blocks.1", 1, (2, 2), (32, 32), CLIP),
        ("resnet18", {}, "layer4", 0, (7, 7), (224, 224), IMAGENET),
        ("convnext_atto", {}, "stages.3", 0, (7, 7), (224, 224), IMAGENET),
        ("mobilenetv3_small_050", {}, "blocks.5", 0, (7, 7), (224, 224), IMAGENET),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, "layers.3", 0, (7, 7), (224, 224), IMAGENET),
        ("mixer_s32_224", {}, "blocks.7", 0, (7, 7), (224, 224), (0.5, 0.5)),
    ],
)
def test_timm(name, options, layer, tokens, grid, size, normalization):
    net = of_timm(name, **options)
    model = Model(net)
    assert found(model) == (layer, tokens, grid, size, pytest.approx(normalization))
    assert repr(model).startswith(
        f"Model({type(net).__name__} [timm], layer={layer!r}, n_prefix_tokens={tokens}, grid={grid[0]}x{grid[1]}"
    )
    images = pictures(model)
    with torch.no_grad():
        own = net.forward_intermediates(torch.from_numpy(images), indices=1, intermediates_only=True)[
            0
        ]  # [n, d, rows, columns]
    np.testing.assert_allclose(model(images), own.flatten(2).transpose(1, 2).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name", "options", "tokens", "grid", "normalization"),
    [
        ("Dinov2", "Dinov2Model", {"patch_size": 8}, 1, (4, 4), IMAGENET),
        ("Dinov2WithRegisters", "Dinov2WithRegistersModel", {"patch_size": 8}, 5, (4, 4), IMAGENET),
        ("DINOv3ViT", "DINOv3ViTModel", {"patch_size": 8, "num_register_tokens": 4}, 5, (4, 4), IMAGENET),
        ("SiglipVision", "SiglipVisionModel", {"patch_size": 8}, 0, (4, 4), (0.5, 0.5)),
        ("CLIPVision", "CLIPVisionModel", {"patch_size": 16}, 1, (2, 2), CLIP),
        ("ViT", "ViTModel", {"patch_size": 8}, 1, (4, 4), (0.5, 0.5)),
        ("ViT", "ViTForImageClassification", {"patch_size": 8}, 1, (4, 4), (0.5, 0.5)),
        ("DeiT", "DeiTModel", {"patch_size": 8}, 2, (4, 4), IMAGENET),
    ],
)
def test_transformers(kind, name, options, tokens, grid, normalization):
    net = of_transformers(f"{kind}Config", name, **options)
    model = Model(net)
    assert model.layer.endswith(".2") and model.source == "transformers"  # the path to it differs between versions
    assert found(model)[1:] == (tokens, grid, (32, 32), pytest.approx(normalization))
    images = pictures(model, 2)
    with torch.no_grad():
        own = net(torch.from_numpy(images), output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(model(images), own[:, tokens:].numpy(), rtol=1e-5, atol=1e-5)
    activations, pull = model.vjp(images)
    assert np.abs(pull(np.ones_like(activations))).max() > 0


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [("resnet18", "layer4", (7, 7)), ("swin_t", "features", (7, 7)), ("squeezenet1_1", "features", (13, 13))],
)
def test_torchvision(name, layer, grid):
    from support.torchvision_without_cuda import torchvision

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).eval()
    model = Model(net)
    assert found(model) == (layer, 0, grid, (224, 224), pytest.approx(IMAGENET))
    images = pictures(model)
    from torchvision.models.feature_extraction import create_feature_extractor

    with torch.no_grad():
        own = create_feature_extractor(net, [layer])(torch.from_numpy(images))[layer]
    own = own.movedim(3, 1) if name == "swin_t" else own
    np.testing.assert_allclose(model(images), own.flatten(2).transpose(1, 2).numpy(), rtol=1e-5, atol=1e-5)


def test_a_transformer_of_torchvision_has_a_class_token():
    from support.torchvision_without_cuda import torchvision

    net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=3).eval()
    model = Model(net)
    assert found(model)[:4] == ("encoder.layers.encoder_layer_1", 1, (4, 4), (32, 32))
    assert model(pictures(model)).shape == (1, 16, 16)


def test_arguments_override_what_is_found():
    net = of_timm("vit_tiny_patch16_224", img_size=32, depth=2)
    model = Model(net, "blocks.0", n_prefix_tokens=0, grid=(1, 5), mean=0.4, std=(0.1, 0.2, 0.3), channels_last=True)
    assert (model.grid, model.n_tokens, model.width) == ((1, 5), 5, 192)
    assert "layer='blocks.0', n_prefix_tokens=0, grid=1x5, size=32x32, mean=0.4, std=(0.1, 0.2, 0.3)" in repr(model)
    assert Model(of_timm("resnet18"), size=64).grid == (2, 2)
    assert Model(of_timm("vit_tiny_patch16_224", dynamic_img_size=True, depth=1), size=(40, 50)).grid == (2, 3)


def test_a_layer_before_the_class_token_is_not_robbed_of_its_first_patch():
    net = of_timm("vit_tiny_patch16_224", img_size=32, depth=1)
    with refuses("layer 'patch_embed' of VisionTransformer", "3", remedy="tokens=0"):
        Model(net, "patch_embed").n_tokens  # noqa: B018
    assert Model(net, "patch_embed", n_prefix_tokens=0).n_tokens == 4


def test_a_subclass_of_a_known_class_is_known_and_one_that_holds_it_is_not():
    class Mine(type(of_timm("resnet18"))):
        pass

    mine = of_timm("resnet18")
    mine.__class__ = Mine
    assert Model(mine).source == "timm"
    with refuses("layer", "None"):
        Model(nn.Sequential(mine))


def test_a_network_for_pictures_and_text_is_an_error_that_names_its_part_for_pictures():
    import transformers

    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    net = transformers.CLIPModel(transformers.CLIPConfig(text_config=tiny, vision_config=tiny))
    with refuses("module", "CLIPModel", remedy=".vision_model"):
        Model(net)
    assert Model(net.vision_model.eval()).grid == (7, 7)
