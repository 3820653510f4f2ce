"""Edited tokens in running networks, against hooks that are written by hand, and that nothing is left of ours."""

import copy
import io
import pickle
import threading
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

import usae
import usae.torch
from support.autoencoders import RECIPE
from support.interrupts import ctrl_c_at_each_instruction_of
from support.networks import Gives
from support.refusals import refuses
from usae.torch import Autoencoder, Edit, Model, TensorCodes, intervene
from usae.torch._token_hook import editing

pytestmark = pytest.mark.slow


# --- Networks ---------------------------------------------------------------------------------------------------------


class Vit(nn.Module):
    """A class token, a register and patches of 4 x 4 pixels, through two blocks. The head sees the class token alone."""

    def __init__(self):
        super().__init__()
        self.patches, self.extra = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.randn(1, 2, 12))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(12, 5)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


class Residual(nn.Module):
    def __init__(self, width, stride):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, 1)
        self.norm = nn.BatchNorm2d(width)
        self.short = nn.Conv2d(width, width, 1, stride)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + self.short(x))


class ChannelsLast(nn.Module):
    """A stage that gives [n, rows, columns, width], as Swin's do."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.mix(self.norm(x)).relu()


class Stages(nn.Module):
    """Three stages at three sizes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, 2)
        self.stages = nn.ModuleList(ChannelsLast(12) for _ in range(3))
        self.merge = nn.AvgPool2d(2, ceil_mode=True)
        self.head = nn.Linear(12, 5)

    def forward(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = self.merge(stage(x.movedim(1, 3)).movedim(3, 1))
        return self.head(x.mean((2, 3)))


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(inplace=True), Residual(12, 1), Residual(12, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def compiled_resnet():
    return torch.compile(resnet().eval(), backend="eager")


NETWORKS = {
    "vit": (lambda: seeded(Vit), "blocks.0", {"n_prefix_tokens": 2}),
    "inside of a vit": (lambda: seeded(Vit), "blocks.0.linear2", {"n_prefix_tokens": 2}),
    "resnet": (lambda: seeded(resnet), "2", {}),
    "resnet, before an in-place function": (lambda: seeded(resnet), "0", {}),
    "resnet, channels last in memory": (lambda: seeded(resnet).to(memory_format=torch.channels_last), "2", {}),
    "first of three stages": (lambda: seeded(Stages), "stages.0", {"channels_last": True}),
    "second of three stages": (lambda: seeded(Stages), "stages.1", {"channels_last": True}),
    "compiled": (lambda: seeded(compiled_resnet), "2", {}),
}


@pytest.fixture(params=NETWORKS)
def case(request, images):
    make, layer, options = NETWORKS[request.param]
    net = make()
    model = Model(net, layer, **options)
    return net, model, sae_of(model, images)


def sae_of(model, images, name="net", **others):
    """An autoencoder of the model's tokens of some images, trained a little."""
    many = torch.cat([torch.from_numpy(images)] + [torch.randn(30, 3, 16, 24, generator=torch.Generator().manual_seed(7))])
    acts = {name: model(many)} | others
    return usae.UniversalSAE(24, 4, recipe=RECIPE, seed=1).fit(acts, steps=20)


def hooks_of(net):
    names = ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")
    return [list(getattr(part, name)) for part in net.modules() for name in names]


def most_active(sae, model, images, n=2, name="net"):
    codes = sae.encode(model(images), name).to_dense()
    return np.argsort(-(codes > 0).sum(0))[:n].tolist()


def by_hand(model, sae, change, name="net"):
    """A plain hook: codes of the core, and what the change makes of them, added in NumPy."""
    rows = sae.dictionary(name, units="model")

    def hook(_module, _inputs, output):
        out = output[0] if isinstance(output, tuple) else output
        if out.ndim == 3:
            tokens = out[:, model._reader.n_prefix_tokens :]
        else:
            tokens = (out if model._reader.channels_last else out.movedim(1, 3)).flatten(1, 2)
        codes = sae.encode(tokens.detach().numpy(), name).to_dense().reshape(*tokens.shape[:2], -1)
        added = torch.from_numpy(((change(codes.copy()) - codes) @ rows).astype(np.float32))
        if out.ndim == 3:
            return torch.cat([out[:, : model._reader.n_prefix_tokens], tokens + added], 1)
        grid = out.shape[1:3] if model._reader.channels_last else out.shape[2:]
        edited = (tokens + added).unflatten(1, grid)
        return edited if model._reader.channels_last else edited.movedim(3, 1)

    return hook


def run_by_hand(net, model, sae, images, change, name="net"):
    handle = model._layer.register_forward_hook(by_hand(model, sae, change, name))
    try:
        with torch.no_grad():
            return model.module(torch.from_numpy(images))
    finally:
        handle.remove()


def run(net, images):
    with torch.no_grad():
        return net(torch.from_numpy(images))


# --- What an edit does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ablate", "scale", "set", "add", "clamp", "several", "mask", "active"])
def test_an_edit_does_what_a_hook_written_by_hand_does(case, images, kind):
    net, model, sae = case
    a, b = most_active(sae, model, images)
    some = np.random.default_rng(3).random(model(images).shape[:2]) < 0.5
    edits, change = {
        "ablate": (Edit.ablate([a, b]), lambda z: np.where(np.isin(np.arange(24), [a, b]), 0, z)),
        "scale": (Edit.scale([a, b], [3.0, -0.5]), lambda z: z * np.where(np.arange(24) == a, 3, 1) * only(b, -0.5)),
        "set": (Edit.set(a, 2.5), lambda z: np.where(np.arange(24) == a, 2.5, z)),
        "add": (Edit.add([a, b], 1.5), lambda z: z + 1.5 * np.isin(np.arange(24), [a, b])),
        "clamp": (
            Edit.clamp([a, b], 0.25, 0.5),
            lambda z: np.where(np.isin(np.arange(24), [a, b]), np.clip(z, 0.25, 0.5), z),
        ),
        "several": (
            [Edit.ablate(a), Edit.add([b, a], 1.0), Edit.scale(a, 2.0)],
            lambda z: np.where(np.arange(24) == a, 2, z + (np.arange(24) == b)),
        ),
        "mask": (Edit.set(a, 2.5, mask=some), lambda z: np.where(some[:, :, None] & (np.arange(24) == a), 2.5, z)),
        "active": (Edit.add(a, 1.0, mask="active"), lambda z: z + (np.arange(24) == a) * (z > 0)),
    }[kind]
    expected = run_by_hand(net, model, sae, images, change)
    before = run(net, images)
    with intervene({"net": model}, sae, edits):
        found = run(net, images)
    assert (found - before).abs().max() > 2e-4 * before.abs().max()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert torch.equal(run(net, images), before)


def only(concept, factor):
    return np.where(np.arange(24) == concept, factor, 1)


def test_without_edits_nothing_changes_to_the_bit_and_there_are_no_hooks(case, images):
    net, model, sae = case
    before, hooks = run(net, images), hooks_of(net)
    for edits in ((), {}, [], {"net": []}):
        with intervene({"net": model}, sae, edits):
            assert torch.equal(run(net, images), before) and hooks_of(net) == hooks


def test_edits_that_change_no_code_change_no_bit(case, images):
    net, model, sae = case
    concept = most_active(sae, model, images, 1)[0]
    nothing = np.zeros(model(images).shape[:2], bool)
    with editing([(model, lambda tokens, grid: None)]):  # a hook by itself turns fused kernels off
        before = run(net, images)
        tokens = model(images)
    own = sae.encode(tokens, "net")
    for edits in (
        Edit.scale(concept, 1.0),
        Edit.add(concept, 0.0),
        Edit.clamp(range(24)),
        Edit.set(concept, 5.0, mask=nothing),
        Edit.swap(own, mask=nothing),
        [Edit.add(concept, 0.5), Edit.add(concept, -0.5)],
    ):
        with intervene({"net": model}, sae, edits):
            if isinstance(edits, Edit):
                assert torch.equal(run(net, images), before)
            np.testing.assert_allclose(model(images), tokens, rtol=0, atol=0 if isinstance(edits, Edit) else 1e-5)
    with intervene({"net": model}, sae, Edit.set(concept, 5.0), mask=nothing):
        assert torch.equal(run(net, images), before)
    with intervene({"net": model}, sae, [Edit.set(concept, 5.0), Edit.swap(own)]):  # the swap undoes what came before it
        np.testing.assert_allclose(model(images), tokens, rtol=0, atol=1e-5 * np.abs(tokens).max())


def test_tokens_that_no_edit_changes_keep_their_bits_also_minus_zero():
    net = Gives(lambda x: x.flatten(2).transpose(1, 2))
    x = np.random.default_rng(0).standard_normal((2, 12, 4, 6)).astype(np.float32)
    x[:, :, 0] = -0.0
    model = Model(net, "part", channels=12)
    sae = usae.UniversalSAE(24, 4, recipe=RECIPE).fit({"net": model(x)}, steps=5)
    concept, mask = most_active(sae, model, x, 1)[0], np.zeros((4, 6), bool)
    mask[1] = True
    with intervene({"net": model}, sae, Edit.add(concept, 1.0, mask=mask)):
        found = net(torch.from_numpy(x)).numpy().reshape(2, 4, 6, 12)
    plain = x.transpose(0, 2, 3, 1)
    assert found[:, ~mask].tobytes() == np.ascontiguousarray(plain[:, ~mask]).tobytes()
    assert (found[:, mask] != plain[:, mask]).mean() > 0.9
    with intervene({"net": model}, sae, [Edit.scale(c, 1.0) for c in range(24)]):
        assert net(torch.from_numpy(x)).numpy().tobytes() == np.ascontiguousarray(plain).tobytes()


def test_class_and_register_tokens_pass_through(images):
    net = seeded(Vit)
    model, seen = Model(net, "blocks.0", n_prefix_tokens=2), []
    sae = sae_of(model, images)
    net.blocks[0].register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    net.blocks[1].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with intervene({"net": model}, sae, Edit.set(0, 9.0), error=False):
        run(net, images)
    assert torch.equal(seen[1][:, :2], seen[0][:, :2]) and not torch.equal(seen[1][:, 2:], seen[0][:, 2:])


def test_without_the_error_tokens_are_the_reconstruction(case, images):
    net, model, sae = case
    tokens = model(images)
    with intervene({"net": model}, sae, error=False):
        found = model(images)
    expected = sae.reconstruct(tokens, "net", "net").reshape(tokens.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    concept = most_active(sae, model, images, 1)[0]
    codes = sae.encode(tokens, "net").to_dense()
    codes[:, concept] = 2.0
    with intervene({"net": model}, sae, Edit.set(concept, 2.0), error=False):
        found = model(images)
    p = sae.parameters("net")
    expected = (codes @ sae.dictionary("net") * p["scale"] + p["mean"]).reshape(tokens.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_later_layer_and_other_models_see_the_edit(images):
    net = seeded(Stages)
    early, late = (Model(net, f"stages.{n}", channels_last=True) for n in (0, 1))
    sae = sae_of(early, images)
    concept = most_active(sae, early, images, 1)[0]
    before = late(images)
    with intervene(early, sae, Edit.set(concept, 5.0)):
        after = late(images)
        both = usae.torch.extract(
            {"early": Model(net, "stages.0", channels_last=True, size=(16, 24), mean=0, std=1)}, np.ones((1, 3, 16, 24))
        )
    assert np.abs(after - before).max() > 1e-2 and both["early"].shape == (1, 96, 12)
    np.testing.assert_array_equal(late(images), before)


# --- Stitching --------------------------------------------------------------------------------------------------------


def pair_of(images):
    """Two networks with one grid, and an autoencoder of both."""
    nets = seeded(Stages), seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 8, 1)))
    models = {"net": Model(nets[0], "stages.0", channels_last=True), "other": Model(nets[1], "2", channels_last=False)}
    many = torch.randn(30, 3, 16, 24, generator=torch.Generator().manual_seed(7))
    acts = {name: model(many) for name, model in models.items()}
    return nets, models, usae.UniversalSAE(24, 4, recipe=RECIPE, seed=1).fit(acts, steps=40)


@pytest.mark.parametrize("form", ["Codes", "TensorCodes", "masked", "masked and edited"])
def test_codes_of_another_model_are_decoded_into_the_network(images, form):
    nets, models, sae = pair_of(images)
    tokens, other = models["net"](images), models["other"](images)
    theirs, own = sae.encode(other, "other"), sae.encode(tokens, "net")
    mask = np.random.default_rng(0).random((8, 12)) < 0.5
    edit = Edit.swap(theirs.to_torch() if form == "TensorCodes" else theirs, mask=mask if "masked" in form else None)
    edits = [edit, Edit.set(3, 2.0)] if form == "masked and edited" else edit
    wanted = theirs.to_dense().reshape(2, 96, -1)
    if "masked" in form:
        wanted = np.where(mask.flatten()[None, :, None], wanted, own.to_dense().reshape(2, 96, -1))
    if form == "masked and edited":
        wanted[:, :, 3] = 2
    p, rows = sae.parameters("net"), sae.dictionary("net", units="model")
    reconstruction = wanted @ rows + p["mean"]
    for error in (True, False):
        with intervene({"net": models["net"]}, sae, {"net": edits}, error=error):
            found = models["net"](images)
        expected = reconstruction
        if error:
            expected = tokens - sae.reconstruct(tokens, "net", "net").reshape(tokens.shape) + reconstruction
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    with refuses("codes", "codes of 192 tokens"), intervene({"net": models["net"]}, sae, edits):
        models["net"](images[:1])


def test_all_networks_of_a_mapping_are_edited_and_each_may_have_its_own_edits(images):
    nets, models, sae = pair_of(images)
    before = [run(net, images) for net in nets]
    concept = most_active(sae, models["net"], images, 1)[0]
    with intervene(models, sae, Edit.set(concept, 9.0)):
        assert all(not torch.equal(run(net, images), was) for net, was in zip(nets, before, strict=True))
    with intervene(models, sae, {"other": Edit.set(concept, 9.0)}):
        assert torch.equal(run(nets[0], images), before[0]) and not torch.equal(run(nets[1], images), before[1])


def test_a_mask_may_be_for_all_images_or_for_each(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    tokens = model(images)
    full = np.zeros((2, 8, 12), bool)
    full[:, 2:5, 3:7] = True
    for mask in (full, full[0], full.reshape(2, -1), full[0].ravel(), full[:1], torch.from_numpy(full)):
        with intervene({"net": model}, sae, Edit.set(1, 4.0, mask=mask)):
            one = model(images)
        with intervene({"net": model}, sae, Edit.set(1, 4.0), mask=mask):
            other = model(images)
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal((one != tokens).any(2), full.reshape(2, -1))
    with refuses("mask", "shape [3, 3]"), intervene({"net": model}, sae, Edit.set(1, 4.0, mask=np.ones((3, 3), bool))):
        model(images)


# --- Gradients, types -------------------------------------------------------------------------------------------------


def test_gradients_pass_through_edits_as_in_float64(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    a, b = most_active(sae, model, images)
    results = []
    for dtype in (torch.float32, torch.float64):
        wide = copy.deepcopy(net).to(dtype)
        x = torch.from_numpy(images).to(dtype).requires_grad_()
        factor = torch.tensor([1.5, 0.5], dtype=dtype, requires_grad=True)
        autoencoder = Autoencoder.from_sae(sae, dtype=dtype)
        with intervene({"net": Model(wide, "2")}, autoencoder, [Edit.scale([a, b], factor), Edit.add(a, 0.5)]):
            loss = wide(x).square().sum()
        parameters = [*autoencoder.decoder("net").parameters(), *autoencoder.encoder("net").parameters()]
        results.append(torch.autograd.grad(loss, [x, factor, *parameters]))
    for found, exact in zip(*results, strict=True):
        assert exact.abs().max() > 0
        assert (found.double() - exact).abs().max() < 1e-4 * exact.abs().max()


def test_the_gradient_of_a_factor_is_that_of_a_difference(images):
    net = seeded(resnet).double()
    model = Model(net, "2")
    sae = sae_of(model, images)
    a = most_active(sae, model, images, 1)[0]
    x = torch.from_numpy(images).double()

    def loss(factor):
        with intervene({"net": model}, sae, Edit.scale(a, factor)):
            return net(x).square().sum()

    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(factor), factor)
    step = 1e-2
    difference = (loss(1.0 + step) - loss(1.0 - step)) / (2 * step)
    torch.testing.assert_close(gradient, difference, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_type_keeps_it(images, dtype):
    net = seeded(resnet).to(dtype)
    model = Model(net, "2")
    sae = sae_of(model, images)
    x = torch.from_numpy(images).to(dtype)
    before = net(x)
    with intervene({"net": model}, sae, Edit.set(0, 3.0)):
        after = net(x)
    assert after.dtype == dtype and not torch.equal(after, before)
    with intervene({"net": model}, sae, Edit.scale(range(24), 1.0)):
        assert torch.equal(net(x), before)


def test_codes_are_those_of_float32_under_autocast(images):
    net = seeded(resnet)
    model = Model(net, "2", autocast=torch.bfloat16)
    sae = sae_of(model, images)
    concept = most_active(sae, model, images, 1)[0]
    tokens = model(images)
    rows = sae.dictionary("net", units="model")
    codes = sae.encode(tokens, "net").to_dense()[:, concept].reshape(*tokens.shape[:2], 1)
    with intervene({"net": model}, sae, Edit.ablate(concept)):
        found = model(images)
    expected = torch.from_numpy(tokens - codes * rows[concept]).bfloat16().float().numpy()
    np.testing.assert_allclose(found, expected, rtol=2**-7, atol=1e-3)


# --- Outputs of every kind --------------------------------------------------------------------------------------------


Pair = namedtuple("Pair", "name tokens")
OUTPUTS = {
    "tuple": (lambda x: (x, "more"), {}),
    "list": (lambda x: [None, x], {}),
    "named tuple": (lambda x: Pair("net", x), {}),
    "mapping": (lambda x: OrderedDict(hidden=x, more=1), {}),
    "tokens first": (lambda x: x.transpose(0, 1), {"tokens": lambda x: x.transpose(0, 1)}),
    "a copy in another order": (lambda x: x, {"tokens": lambda x: x.flip(1).contiguous()}),
    "some of the tokens": (lambda x: x, {"tokens": lambda x: torch.cat([x[:, 4:], x[:, :2]], 1)}),
    "a strided map": (lambda x: x.unflatten(1, (8, 12)).transpose(1, 2).movedim(3, 1), {"grid": (12, 8)}),
    "a part of a larger map": (lambda x: torch.cat([x, x], 2).unflatten(1, (8, 12)).movedim(3, 1)[:, ::2], {}),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_tokens_go_back_where_they_come_from(images, kind):
    make, options = OUTPUTS[kind]
    net = Gives(lambda x: make(torch.nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)))
    model = Model(net, "part", **options)
    sae = sae_of(model, images)
    tokens, before = model(images), run(net, images)
    expected = tokens + 2 * sae.dictionary("net", units="model")[5]
    with intervene({"net": model}, sae, Edit.add(5, 2.0)):
        found, output = model(images), run(net, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert type(output) is type(before)
    if kind == "some of the tokens":
        assert torch.equal(output[:, 2:4], before[:, 2:4]) and not torch.equal(output[:, :2], before[:, :2])
    if kind == "tuple":
        assert output[1] == "more"


def test_tokens_that_are_computed_cannot_be_put_back(images):
    net = Gives(lambda x: x.flatten(2).transpose(1, 2).repeat(1, 1, 4))
    model = Model(net, "part", tokens=lambda x: 2 * x)
    sae = sae_of(model, images)
    with refuses("tokens", "a function that computes others"), intervene({"net": model}, sae, Edit.add(5, 2.0)):
        run(net, images)
    assert not any(hooks_of(net))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Conv2d(12, 12, 1)
        self.stem = nn.Conv2d(3, 12, 2, 2)

    def forward(self, images):
        return self.part(self.part(self.stem(images)))


def test_the_first_call_in_each_pass_is_edited_whatever_runs_the_layer(images):
    net = seeded(Twice)
    model = Model(net, "part", size=(16, 24))
    sae = sae_of(model, images)
    rows = torch.from_numpy(sae.dictionary("net", units="model")[5])[:, None, None]
    x = torch.from_numpy(images)
    with torch.no_grad():
        first = net.part(net.stem(x)) + 2 * rows
        twice = net.part(first)
    with intervene({"net": model}, sae, Edit.add(5, 2.0)):
        for _ in range(2):
            torch.testing.assert_close(run(net, images), twice)
            model(images)  # a pass that ends at the layer
            with torch.no_grad():
                torch.testing.assert_close(net.part(net.stem(x)), first)
                torch.testing.assert_close(net.part(net.stem(x)), first)


# --- What is left -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["2", ""])
def test_ctrl_c_at_any_moment_leaves_no_hook(images, layer):
    net = seeded(resnet)[:4]
    model, x = Model(net, layer), torch.from_numpy(images)
    before = run(net, images)
    users = net[2].register_forward_hook(lambda *_: None)
    kept = hooks_of(net)

    def act():
        with editing([(model, lambda tokens, grid: tokens + 1), (model, lambda tokens, grid: tokens * 2)]):
            net(x)

    moments = 0
    for moments in ctrl_c_at_each_instruction_of(act):
        assert hooks_of(net) == kept, f"interrupted at instruction {moments}"
    assert moments > 200
    users.remove()
    assert torch.equal(run(net, images), before)


def test_an_error_in_the_block_or_in_the_network_leaves_no_hook(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    with pytest.raises(ZeroDivisionError), intervene({"net": model}, sae, Edit.add(5, 2.0)):
        run(net, images)
        1 / 0  # noqa: B018
    assert not any(hooks_of(net))
    with pytest.raises(RuntimeError), intervene({"net": model}, sae, Edit.add(5, 2.0)):
        net(torch.zeros(1, 5, 16, 24))
    assert not any(hooks_of(net))


def test_blocks_within_blocks_edit_in_turn_and_may_end_in_any_order(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    rows, tokens = sae.dictionary("net", units="model"), model(images)
    one, two = (intervene({"net": model}, sae, Edit.add(c, 1.0)) for c in (5, 6))
    one.__enter__()
    two.__enter__()
    np.testing.assert_allclose(model(images), tokens + rows[5] + rows[6], atol=1e-5)
    one.__exit__(None, None, None)
    np.testing.assert_allclose(model(images), tokens + rows[6], atol=1e-5)
    two.__exit__(None, None, None)
    np.testing.assert_array_equal(model(images), tokens)
    assert not any(hooks_of(net))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), "torch.save"])
def test_a_copy_that_is_made_within_a_block_is_the_network_without_hooks(images, copied):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    expected, edit = run(net, images), Edit.add(5, 2.0)

    def through_a_file(net):
        file = io.BytesIO()
        torch.save(net, file)
        return torch.load(io.BytesIO(file.getvalue()), weights_only=False)

    with intervene(model, sae, edit):
        other = (through_a_file if copied == "torch.save" else copied)(net)
        assert torch.equal(run(other, images), expected)
        edited = run(net, images)
    assert not torch.equal(edited, expected)
    assert torch.equal(run(other, images), expected) and not any(hooks_of(other)) and not any(hooks_of(net))
    with intervene(Model(other, "2"), sae, edit):
        assert torch.equal(run(other, images), edited)


def test_another_thread_runs_the_network_as_it_is(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    before, found = run(net, images), []
    with intervene({"net": model}, sae, Edit.add(5, 2.0)):
        thread = threading.Thread(target=lambda: found.append(run(net, images)))
        thread.start()
        thread.join()
        assert not torch.equal(run(net, images), before)
    assert torch.equal(found[0], before)


@pytest.mark.parametrize("when", ["before", "after a run", "within"])
def test_a_compiled_network_is_edited_and_computes_as_before_afterwards(images, when):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    expected = run_by_hand(net, model, sae, images, lambda z: z + 2 * (np.arange(24) == 5))
    before = run(net, images)
    compiled = torch.compile(net, backend="eager")
    if when == "after a run":
        run(compiled, images)
    with intervene({"net": model}, sae, Edit.add(5, 2.0)):
        if when == "within":
            compiled = torch.compile(net, backend="eager")
        torch.testing.assert_close(run(compiled, images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(compiled, images), before)


def test_a_layer_that_has_not_run_is_a_warning(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    with pytest.warns(UserWarning, match="layer '2' of Sequential") as caught, intervene({"net": model}, sae, Edit.add(5, 2.0)):
        pass
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with intervene({"net": model}, sae, Edit.add(5, 2.0)):
            run(net, images)
        with pytest.raises(KeyError), intervene({"net": model}, sae, Edit.add(5, 2.0)):
            raise KeyError
    scripted = torch.jit.trace(net, torch.from_numpy(images), check_trace=False)
    with refuses("module"), intervene(Model(scripted, "2"), sae, Edit.add(5, 2.0)):
        pass


def test_a_batch_without_images_is_edited_like_any_other(images):
    for build, layer in [(Vit, "blocks.0"), (resnet, "2")]:
        net = seeded(build)
        model = Model(net, layer)
        with intervene(model, sae_of(model, images), Edit.add(5, 2.0)):
            edited = run(net, images)
            assert run(net, images[:0]).shape == (0, *edited.shape[1:])


@pytest.mark.parametrize("kind", ["vit", "resnet", "resnet, channels last in memory", "second of three stages"])
def test_the_transforms_of_torch_func_and_export_see_the_edit(images, kind):
    make, layer, options = NETWORKS[kind]
    net = make()
    model = Model(net, layer, **options)
    sae = sae_of(model, images)
    x = torch.from_numpy(images)

    def total(x):
        return net(x).square().sum()

    with intervene(model, sae, Edit.scale([1, 2, 5], 3.0)):
        expected, given = net(x), x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(total(given), given)
        torch.testing.assert_close(torch.func.grad(total)(x), gradient)
        torch.testing.assert_close(torch.vmap(lambda one: net(one[None])[0])(x), expected)
        if kind != "vit":  # PyTorch has no forward derivative of attention
            _, change = torch.func.jvp(total, (x,), (x,))
            torch.testing.assert_close(change, (gradient * x).sum(), rtol=1e-4, atol=1e-4)
        program = torch.export.export(net, (x,))
    torch.testing.assert_close(program.module()(x), expected)


def test_a_block_that_is_made_in_inference_mode_has_gradients_elsewhere(images):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    with torch.inference_mode():
        block = intervene(model, sae, Edit.scale(range(24), 2.0))
    x = torch.from_numpy(images).requires_grad_()
    with block:
        net(x).sum().backward()
    assert x.grad.abs().sum() > 0


# --- Arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", [np.array(3), torch.tensor(3), np.int64(3), torch.tensor([3])])
def test_a_concept_is_any_integer_of_numpy_or_torch(concept):
    assert Edit.ablate(concept).concepts == (3,)


@pytest.mark.parametrize("factors", [torch.tensor([2, 3]), np.array([2, 3]), [2, 3]])
def test_numbers_are_of_any_type(factors):
    assert Edit.scale([0, 1], factors).values[0].tolist() == [2, 3]


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_arguments_that_cannot_be_used_are_refused(images, trained):
    net = seeded(resnet)
    model = Model(net, "2")
    sae = sae_of(model, images)
    edit = Edit.ablate(0)
    for argument, got, call in [
        ("models", "3", lambda: intervene(3, sae)),
        ("models", "{}", lambda: intervene({}, sae)),
        ("models", "", lambda: intervene({"wit": model}, sae)),
        ("models['net']", "Sequential", lambda: intervene({"net": net}, sae)),
        ("sae", "int", lambda: intervene(model, 3)),
        ("name", "None", lambda: intervene(model, trained)),
        ("name", "", lambda: intervene(model, trained, name="wit")),
        ("name", "'net'", lambda: intervene({"net": model}, sae, name="net")),
        ("edits", "3", lambda: intervene(model, sae, 3)),
        ("edits", "'ablate'", lambda: intervene(model, sae, ["ablate"])),
        ("edits", "", lambda: intervene(model, sae, {"wit": edit})),
        ("error", "'no'", lambda: intervene(model, sae, error="no")),
        ("mask", "'active'", lambda: intervene(model, sae, edit, mask="active")),
        ("mask", "[0, 1]", lambda: intervene(model, sae, edit, mask=[0, 1])),
        ("concepts", "24", lambda: intervene(model, sae, Edit.ablate(24))),
        ("concepts", "-1", lambda: Edit.ablate(-1)),
        ("concepts", "none", lambda: Edit.ablate([])),
        ("concepts", "[1, 1]", lambda: Edit.ablate([1, 1])),
        ("concepts", "1.5", lambda: Edit.ablate([1.5])),
        ("concepts", "True", lambda: Edit.ablate(True)),
        ("factor", "nan", lambda: Edit.scale(1, np.nan)),
        ("factor", "[1.0, 2.0, 3.0]", lambda: Edit.scale([1, 2], [1.0, 2.0, 3.0])),
        ("value", "'a'", lambda: Edit.set(1, "a")),
        ("value", "inf", lambda: Edit.add(1, np.inf)),
        ("low", "2 and 1", lambda: Edit.clamp(1, 2, 1)),
        ("mask", "'everywhere'", lambda: Edit.ablate(1, mask="everywhere")),
        ("mask", "", lambda: Edit.ablate(1, mask=np.zeros((1, 2, 3, 4), bool))),
        ("value", "[1.0, inf]", lambda: Edit.set([1, 2], [1.0, np.inf])),
        ("factor", "tensor", lambda: Edit.scale(1, torch.tensor(np.inf))),
        ("value", "tensor", lambda: Edit.set(1, torch.tensor(True))),
        ("codes", "ndarray", lambda: Edit.swap(np.zeros((3, 24)))),
        ("codes", "torch.float32 [2, 2]", lambda: Edit.swap(TensorCodes(torch.ones(2, 2), torch.full((2, 3), 1), 24))),
        ("codes", "torch.float32", lambda: Edit.swap(TensorCodes(torch.ones(2, 2), torch.ones(2, 2), 24))),
        ("codes", "24 to 24", lambda: Edit.swap(TensorCodes(torch.ones(2, 2), torch.full((2, 2), 24), 24))),
        ("codes", "-2 to -2", lambda: Edit.swap(TensorCodes(torch.ones(2, 2), torch.full((2, 2), -2), 24))),
        ("codes", "", lambda: Edit.swap(TensorCodes(torch.tensor(1.0), torch.tensor(1), 24))),
    ]:
        with refuses(argument, got):
            call()
    with refuses("models", "12", remedy="layer"), intervene({"vit": model}, trained, Edit.ablate(1)):
        run(net, images)
    assert not any(hooks_of(net))


def test_an_edit_shows_what_it_is():
    assert repr(Edit.scale([1, 2], 0.5)) == "Edit.scale([1, 2], 0.5)"
    assert repr(Edit.clamp(7, mask="active")) == "Edit.clamp(7, 0, inf, mask='active')"
