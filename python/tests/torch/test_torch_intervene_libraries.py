"""Edited tokens in networks of timm, transformers and torchvision, with random weights, at the layer that `Model` finds."""

import numpy as np
import pytest
import torch

import usae
from usae.torch import Edit, Model, faithfulness, intervene

pytestmark = pytest.mark.slow

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}


def of_timm(name, **options):
    import support.torchvision_without_cuda  # noqa: F401  # before timm, which imports torchvision

    import timm  # isort: skip

    return timm.create_model(name, pretrained=False, **options)


def of_transformers(kind, name, **options):
    import transformers

    return getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**TINY, **options))


def of_torchvision(name, **options):
    from support.torchvision_without_cuda import torchvision

    return getattr(torchvision.models, name)(**options)


NETWORKS = {
    "timm, ViT": lambda: of_timm("vit_tiny_patch16_224", img_size=32, depth=2, global_pool="avg"),
    "timm, DINOv2 with registers": lambda: of_timm("vit_small_patch14_reg4_dinov2", img_size=56, depth=2, global_pool="avg"),
    "timm, ResNet": lambda: of_timm("resnet18"),
    "timm, ConvNeXt": lambda: of_timm("convnext_atto"),
    "timm, Swin": lambda: of_timm("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
    "transformers, ViT": lambda: of_transformers("ViT", "ViTModel", patch_size=8),
    "transformers, DINOv2": lambda: of_transformers("Dinov2WithRegisters", "Dinov2WithRegistersModel", patch_size=8),
    "torchvision, Swin": lambda: of_torchvision("swin_t"),
    "torchvision, ViT": lambda: of_torchvision(
        "VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24
    ),
}


def tensor_of(output):
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_edited_where_they_were_read_and_nothing_else_is(name):
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    model = Model(net, mean=0.5, std=0.5)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    images = model.preprocess(pictures)
    tokens = model(images)
    sae = usae.UniversalSAE(16, 3, seed=0).initialize({"net": model.width})
    added = 0.5 * sae.dictionary("net", units="model")[7]
    x = torch.from_numpy(images)
    with torch.no_grad():
        with intervene(model, sae, Edit.scale(range(16), 1.0)):  # a hook by itself turns fused kernels off
            before, plain = tensor_of(net(x)), model(images)
        with intervene(model, sae, Edit.add(7, 0.5)):
            after, edited = tensor_of(net(x)), model(images)
        mask = np.zeros(model.grid, bool)
        mask[0] = True
        with intervene(model, sae, Edit.add(7, 0.5, mask=mask)):
            some = model(images)
    np.testing.assert_array_equal(plain, tokens)
    np.testing.assert_allclose(edited, tokens + added, rtol=0, atol=1e-5 * np.abs(tokens).max())
    np.testing.assert_array_equal(some[:, mask.ravel()], edited[:, mask.ravel()])
    np.testing.assert_array_equal(some[:, ~mask.ravel()], tokens[:, ~mask.ravel()])
    prefix = model._reader.n_prefix_tokens
    if before.shape[1:] == (tokens.shape[1] + prefix, tokens.shape[2]) and prefix:
        assert torch.equal(after[:, :prefix], before[:, :prefix])
    if "torchvision, ViT" not in name:  # whose head sees the class token alone
        assert not torch.equal(after, before)
    found = faithfulness({"net": model}, sae, pictures, outputs="embedding", train={"net": tokens})
    assert found.loss.original[0] == pytest.approx(0, abs=1e-6)
