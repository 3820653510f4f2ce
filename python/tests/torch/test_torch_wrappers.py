"""Networks within modules that wrap them, and compiled ones, are known as if they were given alone."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from support.networks import convolutional, transformer
from support.refusals import refuses
from usae.torch import Model, extract

pytestmark = pytest.mark.slow

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 16, 24), "interpolation": "bicubic", "crop_pct": 0.9}


class Known(nn.Module):
    """A network that says of itself what those of timm say."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Module()
        self.patch_embed.patch_size, self.patch_embed.img_size = (4, 4), (16, 24)
        self.patch_embed.proj = nn.Conv2d(3, 12, 4, 4)
        self.num_prefix_tokens = 0
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.feature_info = [{"module": f"blocks.{n}"} for n in range(2)]
        self.pretrained_cfg = dict(HALF)

    def forward(self, images):
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


Known.__module__ = "timm.models.vision_transformer"


def of(library, name, **parts):
    """A wrapper like that of a library that is not installed."""
    cls = type(name, (nn.Module,), {"__module__": library, "forward": lambda self, *x: next(self.children())(*x)})
    self = cls()
    for part, module in parts.items():
        self.add_module(part, module)
    return self


def holder(module):
    inner = nn.Module()
    inner.add_module("model", module)
    inner.forward = module.forward
    return inner


WRAPPERS = {
    "DataParallel": (nn.DataParallel, "module."),
    "compile": (lambda net: torch.compile(net, backend="eager"), "_orig_mod."),
    "compile of DataParallel": (lambda net: torch.compile(nn.DataParallel(net), backend="eager"), "_orig_mod.module."),
    "AveragedModel": (torch.optim.swa_utils.AveragedModel, "module."),
    "ModelEma": (lambda net: of("timm.utils.model_ema", "ModelEmaV3", module=net), "module."),
    "TimmWrapper": (lambda net: of("transformers.models.timm_wrapper", "TimmWrapperModel", timm_model=net), "timm_model."),
    "TimmBackbone": (lambda net: of("transformers.models.timm_backbone", "TimmBackbone", _backbone=net), "_backbone."),
    "peft": (lambda net: of("peft.peft_model", "PeftModel", base_model=holder(net)), "base_model.model."),
    "Fabric": (lambda net: of("lightning.fabric.wrappers", "_FabricModule", _original_module=net), "_original_module."),
    "deepspeed": (lambda net: of("deepspeed.runtime.engine", "DeepSpeedEngine", module=net), "module."),
    "FSDP": (
        lambda net: of("torch.distributed.fsdp", "FullyShardedDataParallel", _fsdp_wrapped_module=net),
        "_fsdp_wrapped_module.",
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_is_known_as_it_is_alone(images, name):
    wrap, prefix = WRAPPERS[name]
    net = Known().eval()
    alone = Model(net)
    wrapped = wrap(net).eval()
    model = Model(wrapped)
    assert repr(model) == repr(alone) and model.source == "timm" and model.layer == "blocks.1"
    assert (model.mean.tolist(), model.size, model.grid) == ([0.5] * 3, (16, 24), (4, 6))
    np.testing.assert_array_equal(model(images), alone(images))
    for layer in (f"{prefix}blocks.0", "blocks.0"):
        inner = Model(wrapped, layer)
        assert inner.layer == "blocks.0" and inner.mean.tolist() == [0.5] * 3
        np.testing.assert_array_equal(inner(images), Model(net, "blocks.0")(images))
    np.testing.assert_array_equal(Model(wrapped, "")(images), Model(net, "")(images))
    with refuses("layer", "'blocks.7'", remedy="'blocks.0'"):
        Model(wrapped, "blocks.7")


def test_a_store_is_continued_with_the_network_in_a_wrapper(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    net = Known().eval()
    extract({"net": Model(net)}, pictures[:2], store=tmp_path / "acts")
    store = extract({"net": Model(nn.DataParallel(net))}, pictures, store=tmp_path / "acts")
    assert len(store.images) == 3


@pytest.mark.parametrize("runs", [0, 1])
@pytest.mark.parametrize("where", ["whole", "part", "whole in place", "part in place"])
def test_a_layer_of_a_compiled_network_runs_also_after_the_network_has_run(images, where, runs):
    net = transformer()
    expected = {layer: Model(net, layer, n_prefix_tokens=2)(images) for layer in ("block", "block.linear2")}
    gradient = np.ones_like(expected["block"])
    pulled = Model(net, "block", n_prefix_tokens=2).vjp(images)[1](gradient)
    compiled, prefix = net, ""
    if where == "whole":
        compiled = torch.compile(net, backend="eager")
    elif where == "part":
        net.block = torch.compile(net.block, backend="eager")
        prefix = "_orig_mod."
    else:
        (net if where.startswith("whole") else net.block).compile(backend="eager")
    for _ in range(runs):
        compiled(torch.from_numpy(images))
    names = {"block": "block", "block.linear2": f"block.{prefix}linear2"}
    for layer, name in names.items():
        np.testing.assert_allclose(Model(compiled, name, n_prefix_tokens=2)(images), expected[layer], atol=1e-6)
    got = Model(compiled, "block", n_prefix_tokens=2).vjp(images)[1](gradient)
    np.testing.assert_allclose(got, pulled, atol=1e-6)
    compiled(torch.from_numpy(images))
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize("runs", [0, 1])
@pytest.mark.parametrize("where", ["forward", "features", "forward of a part", "method of a class"])
def test_a_layer_that_a_compiled_method_runs_is_found_also_after_it_has_run(images, where, runs):
    class Parted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = transformer()

        def features(self, x):
            return self.net(x)

        def forward(self, x):
            return self.features(x)

    net = Parted().eval()
    expected = Model(net, "net.block", n_prefix_tokens=2)(images)
    owner, name = (net, where) if where in ("forward", "features") else (net.net.block, "forward")
    if where == "method of a class":
        owner, name = Parted, "features"
    setattr(owner, name, torch.compile(getattr(owner, name), backend="eager"))
    with torch.no_grad():  # as it runs for `Model`, or it would be compiled again, then with the hook
        for _ in range(runs):
            net(torch.from_numpy(images))
    np.testing.assert_allclose(Model(net, "net.block", n_prefix_tokens=2)(images), expected, atol=1e-6)


def test_a_scripted_network_is_refused_with_what_to_give():
    net = torch.jit.trace(convolutional(), torch.zeros(1, 3, 16, 24))
    with refuses("layer '0'", remedy="before it was scripted"):
        Model(net, "0")(np.zeros((1, 3, 16, 24), np.float32))


def test_a_wrapper_that_is_not_known_has_no_scale_of_its_own(images):
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Known().eval()

        def forward(self, x):
            return self.net((x - 0.1) / 0.2)

    model = Model(Normalising().eval(), "net.blocks.1", size=(16, 24))
    assert model.mean is None and model.std is None and "mean=unknown" in repr(model)
    model(images)
    pictures = np.zeros((1, 20, 30, 3), np.uint8)
    for use in (model.preprocess, lambda x: extract({"net": model}, x)):
        with refuses("mean", "None", remedy="preprocessing="):
            use(pictures)
    with refuses("std", "None"):
        Model(Normalising().eval(), "net", size=(16, 24), mean=0.5).preprocess(pictures)


def test_wrappers_are_found_without_importing_their_libraries():
    assert not {"peft", "deepspeed", "lightning"} & set(sys.modules)
    assert isinstance(sys.modules["usae.torch"], types.ModuleType)
