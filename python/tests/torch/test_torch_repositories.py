"""Networks as torch.hub and their repositories give them: DINO, DINOv2, DINOv3, MAE, open_clip, clip.

Most repositories cannot be installed, so stand-ins have the names, parts and shapes of their networks. Where a library is
there, its own networks are compared too.
"""

import numpy as np
import pytest
import torch
from torch import nn

from support.refusals import refuses
from usae.torch import Model, extract
from usae.torch._passes import passes

IMAGENET, CLIP = (0.485, 0.229), (0.48145466, 0.26862954)
WIDTH = 8


def named(module, **classes):
    """Classes as if they were defined in that module, and under these names."""
    return [type(name, (base,), {"__module__": module}) for name, base in classes.items()]


class Patches(nn.Module):
    def __init__(self, img_size=32, patch_size=8, channels=3):
        super().__init__()
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.proj = nn.Conv2d(channels, WIDTH, patch_size, stride=patch_size)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """A block in which every token depends on all."""

    def __init__(self, tokens_first=False):
        super().__init__()
        self.of_each, self.of_all = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.axis = 0 if tokens_first else 1

    def forward(self, x):
        if isinstance(x, list):
            return [self.forward(each) for each in x]
        return x + torch.tanh(self.of_each(x)) + self.of_all(x.mean(self.axis, keepdim=True))


class Chunk(nn.ModuleList):
    def forward(self, x):
        for part in self:
            x = part(x)
        return x


class Dino(nn.Module):
    def __init__(self, registers="num_register_tokens", n_registers=0, chunked=False, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.patch_size = 8
        self.patch_embed = Patches(channels=channels)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.registers = nn.Parameter(torch.randn(1, n_registers, WIDTH))
        if registers:
            setattr(self, registers, n_registers)
        blocks = [Block() for _ in range(3)]
        self.blocks = nn.ModuleList(
            [Chunk(blocks[:2]), Chunk([nn.Identity(), nn.Identity(), blocks[2]])] if chunked else blocks
        )
        self.lists = registers == "n_storage_tokens"

    def get_last_selfattention(self, x):
        raise NotImplementedError

    def tokens(self, images):
        n = len(images)
        return torch.cat((self.cls_token.expand(n, -1, -1), self.registers.expand(n, -1, -1), self.patch_embed(images)), 1)

    def forward(self, images):
        x = [self.tokens(images)] if self.lists else self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return (x[0] if self.lists else x)[:, 0]


def pixels(n=2, side=32):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, 3, side, side)).astype(np.float32))


def found(model):
    return (
        *(model.source, model.layer, model._reader.n_prefix_tokens, model.grid, model.size),
        (float(model.mean[0]), float(model.std[0])),
    )


@pytest.mark.parametrize(
    ("module", "name", "options", "source", "layer", "prefix"),
    [
        ("dinov2.models.vision_transformer", "DinoVisionTransformer", {"n_registers": 4}, "dinov2", "blocks.2", 5),
        ("dinov2.models.vision_transformer", "DinoVisionTransformer", {"chunked": True}, "dinov2", "blocks.1", 1),
        ("copied.dinov2", "DinoVisionTransformer", {"registers": None}, "dinov2", "blocks.2", 1),
        (
            "dinov3.models.vision_transformer",
            "DinoVisionTransformer",
            {"registers": "n_storage_tokens", "n_registers": 4},
            "dinov3",
            "blocks.2",
            5,
        ),
        ("vision_transformer", "VisionTransformer", {"registers": None}, "dino", "blocks.2", 1),
    ],
)
def test_dino(module, name, options, source, layer, prefix):
    (cls,) = named(module, **{name: Dino})
    net = cls(**options).eval()
    model = Model(net)
    assert found(model) == (source, layer, prefix, (4, 4), (32, 32), pytest.approx(IMAGENET))
    assert model.preprocessing.filter == ("bilinear" if source == "dinov3" else "bicubic")
    with torch.no_grad():
        x = net.tokens(pixels())
        for block in net.blocks:
            x = block(x)
    np.testing.assert_array_equal(model(pixels()), x[:, prefix:].numpy())


@pytest.mark.parametrize(
    ("module", "name", "cls"),
    [
        ("dinov2.models.vision_transformer", "DinoVisionTransformer", lambda: Dino),
        ("models_mae", "MaskedAutoencoderViT", lambda: Masking),
        ("clip.model", "VisionTransformer", lambda: Visual),
    ],
)
def test_a_scale_that_the_network_does_not_say_is_told_as_assumed(module, name, cls, recwarn):
    (kind,) = named(module, **{name: cls()})
    net = kind().eval()
    assert "published networks" in repr(Model(net)) and not recwarn.list
    Model(net).preprocess(np.zeros((1, 8, 8, 3), np.uint8))
    assert len(recwarn.list) == 1 and "mean=" in str(recwarn.list[0].message)
    told = Model(net, mean=0.5, std=0.5)
    told.preprocess(np.zeros((1, 8, 8, 3), np.uint8))
    assert "published networks" not in repr(told) and len(recwarn.list) == 1


def test_parts_of_these_networks_are_networks_of_which_nothing_is_known():
    (cls,) = named("dinov2.models.vision_transformer", DinoVisionTransformer=Dino)
    net = cls().eval()
    net.patch_embed = nn.Identity()
    net.patch_embed.patch_size = None
    with refuses("layer", "None"):
        Model(net)


def test_a_network_that_only_has_the_name_of_a_file_is_not_taken_for_dinos():
    class Other(Dino):
        get_last_selfattention = property()

    (cls,) = named("vision_transformer", VisionTransformer=Other)
    with refuses("layer", "None"):
        Model(cls())
    (cls,) = named("clip.model", CLIP=nn.Sequential)
    with refuses("layer", "None"):
        Model(cls(nn.Conv2d(3, 4, 1)))


def test_scales_of_three_channels_are_not_guessed_for_others():
    (cls,) = named("dinov2.models.vision_transformer", DinoVisionTransformer=Dino)
    model = Model(cls(channels=5).eval())
    assert model.channels == 5 and model.mean is None


# --- MAE --------------------------------------------------------------------------------------------------------------


class Masking(nn.Module):
    """An encoder that drops three quarters of the patches at random, and shuffles the others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = Patches()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(WIDTH)
        self.decoder_blocks = nn.ModuleList([Block()])

    def encoded(self, images, order):
        x = (self.patch_embed(images) + self.pos_embed[:, 1:])[:, order]
        x = torch.cat(((self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x), 1)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, images):
        return self.decoder_blocks[0](self.norm(self.encoded(images, torch.randperm(16)[:4])))


def test_mae_sees_all_patches_in_the_order_in_which_they_lie():
    (cls,) = named("models_mae", MaskedAutoencoderViT=Masking)
    net = cls().eval()
    model = Model(net)
    assert found(model) == ("mae", "blocks.1", 1, (4, 4), (32, 32), pytest.approx(IMAGENET))
    with torch.no_grad():
        expected = net.encoded(pixels(), range(16))
    np.testing.assert_array_equal(model(pixels()), expected[:, 1:].numpy())
    normed = Model(net, "norm", n_prefix_tokens=1)(pixels())
    np.testing.assert_allclose(normed, net.norm(expected)[:, 1:].detach().numpy(), atol=1e-6)
    assert model.module is net and model.vjp(pixels().numpy())[1](np.ones_like(normed)).any()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    models = {"early": Model(net, "blocks.0"), "late": model}
    assert len(passes(models)) == 1
    acts = extract(models, pictures)
    np.testing.assert_array_equal(acts["late"], extract({"late": model}, pictures)["late"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViTMAEModel", "ViTMAEForPreTraining"])
def test_mae_of_transformers_sees_all_patches_too(name):
    import support.torchvision_without_cuda  # noqa: F401

    import transformers  # isort: skip

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    net = getattr(transformers, name)(transformers.ViTMAEConfig(patch_size=8, **sizes, **decoder)).eval()
    model = Model(net)
    activations = model(pixels())
    assert found(model)[2:] == (1, (4, 4), (32, 32), pytest.approx(IMAGENET)) and model.layer.endswith("2")
    net.config.mask_ratio = 0.0
    encoder = getattr(net, "vit", net)
    with torch.no_grad():
        expected = encoder(pixels(), noise=torch.arange(16.0).expand(2, -1)).last_hidden_state
        given = encoder.layernorm(torch.cat((expected[:, :1], torch.from_numpy(activations)), 1))
    np.testing.assert_allclose(given[:, 1:].numpy(), expected[:, 1:].numpy(), atol=1e-5)


def test_mae_for_what_comes_after_training_is_a_network_of_timm():
    class Plain(Dino):
        num_prefix_tokens = 1

    (timm,) = named("timm.models.vision_transformer", VisionTransformer=Plain)
    (cls,) = named("models_vit", VisionTransformer=timm)
    net = cls().eval()
    assert Model(net, "blocks.2").source == "mae" and float(Model(net, "blocks.2").mean[0]) == pytest.approx(0.485)


# --- CLIP -------------------------------------------------------------------------------------------------------------


class Transformer(nn.Module):
    def __init__(self, tokens_first):
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(tokens_first) for _ in range(3)))

    def forward(self, x):
        return self.resblocks(x)


class Visual(nn.Module):
    """OpenAI's, and open_clip's before its third version: the blocks take tokens first."""

    def __init__(self, tokens_first=True):
        super().__init__()
        torch.manual_seed(0)
        self.input_resolution, self.tokens_first = 32, tokens_first
        self.conv1 = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = Transformer(tokens_first)

    def tokens(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        return self.ln_pre(torch.cat((self.class_embedding.expand(len(x), 1, -1), x), 1))

    def forward(self, images):
        x = self.tokens(images)
        return self.transformer(x.transpose(0, 1) if self.tokens_first else x)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual, self.transformer = Visual(), nn.Identity()

    def forward(self, image, text=None):
        return self.visual(image)


def test_clip_of_which_blocks_take_tokens_first():
    visual_class, both_class = named("clip.model", VisionTransformer=Visual, CLIP=Both)
    for net, path in ((visual_class(), ""), (both_class(), "visual.")):
        visual = getattr(net.eval(), "visual", net)
        model = Model(net)
        assert found(model) == ("clip", f"{path}transformer.resblocks.2", 1, (4, 4), (32, 32), pytest.approx(CLIP))
        assert model.preprocessing.cut.mode == "center" and model.preprocessing.filter == "bicubic"
        with torch.no_grad():
            expected = visual(pixels(17)).transpose(0, 1)  # as many images as tokens, so that shapes do not tell
            first = visual.tokens(pixels(17))
        np.testing.assert_array_equal(model(pixels(17)), expected[:, 1:].numpy())
        np.testing.assert_array_equal(Model(net, f"{path}transformer")(pixels(17)), expected[:, 1:].numpy())
        np.testing.assert_array_equal(Model(net, f"{path}ln_pre")(pixels(17)), first[:, 1:].numpy())
        assert "function" not in repr(model)
        own = Model(net, tokens=lambda x: x[1:].transpose(0, 1))
        np.testing.assert_array_equal(own(pixels(17)), expected[:, 1:].numpy())


def test_open_clip_says_its_preprocessing():
    (cls,) = named("open_clip.transformer", VisionTransformer=Visual)
    net = cls(tokens_first=False).eval()
    net.transformer.batch_first = True
    net.preprocess_cfg = {
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "size": 32,
    }
    model = Model(net)
    assert found(model) == ("open_clip", "transformer.resblocks.2", 1, (4, 4), (32, 32), (0.5, 0.25))
    assert "published networks" not in repr(model)
    assert model.preprocessing.filter == "bilinear" and model.preprocessing.cut[:2] == ("squash", 1.0)
    with torch.no_grad():
        np.testing.assert_array_equal(model(pixels()), net(pixels())[:, 1:].numpy())


@pytest.mark.slow
def test_open_clips_own_networks():
    try:
        import support.torchvision_without_cuda  # noqa: F401

        import open_clip  # isort: skip
    except ImportError:
        pytest.skip("open_clip is not installed")
    from open_clip.model import CLIP as OpenClip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    assert open_clip.__version__
    text = CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=1)
    options = {"head_width": 32, "image_size": 64}
    net = OpenClip(32, CLIPVisionCfg(layers=3, width=64, patch_size=16, **options), text).eval()
    model = Model(net)
    assert found(model) == ("open_clip", "visual.transformer.resblocks.2", 1, (4, 4), (64, 64), pytest.approx(CLIP))
    images = pixels(2, 64)
    with torch.no_grad():
        own = net.visual.forward_intermediates(images, indices=1, intermediates_only=True)["image_intermediates"][0]
    np.testing.assert_allclose(model(images), own.flatten(2).transpose(1, 2).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model(images), Model(net.visual)(images))
    resnet = Model(OpenClip(32, CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, **options), text).eval())
    assert resnet.layer == "visual.layer4" and resnet.grid == (2, 2)
    of_timm = CLIPVisionCfg(timm_model_name="vit_tiny_patch16_224", timm_pool="avg", timm_proj="linear", image_size=224)
    trunk = Model(OpenClip(32, of_timm, text).eval())
    assert trunk.layer == "visual.trunk.blocks.11" and trunk.grid == (14, 14) and trunk.source == "open_clip"
    assert float(trunk.mean[0]) == pytest.approx(CLIP[0])
