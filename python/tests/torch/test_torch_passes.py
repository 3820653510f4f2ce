"""Several layers of one network, computed in one pass: the same bits as each alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import usae
from support.extraction import IDENTITY
from support.refusals import refuses
from usae.torch import Model, batches, extract

SIZE = 16


class Counting(nn.Module):
    """Counts its passes, and the layers that it computes. Each changes its input in place, as some networks do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 2, stride=2)
        self.blocks = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 5, 1), nn.Hardswish(inplace=True))
        self.last = nn.Conv2d(5, 6, 2, stride=2)
        self.never = nn.Identity()
        self.passes = 0
        for part in self.modules():
            part.register_forward_hook(lambda *_: self.computed.append(1))
        self.computed = []

    def forward(self, images):
        self.passes += 1
        x = self.first(images)
        x += 1
        x = self.blocks(x)
        x *= 2
        return self.last(x), {"more": x}


@pytest.fixture
def network():
    return Counting().eval()


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def model(network, layer, **options):
    return Model(network, layer, **{"size": SIZE, "channels_last": False, **IDENTITY, **options})


def n_passes(network, models, pictures, **options):
    for each in models.values():
        assert each.n_tokens  # which may take a pass to find out
    network.passes = 0
    acts = extract(models, pictures, **options)
    return network.passes, acts


ORDERS = [
    ("first", "blocks.0", "blocks.1", "blocks", "last", ""),
    ("", "last", "blocks.2", "first"),
    ("blocks.1", "blocks.1", "first"),
]


@pytest.mark.parametrize("layers", ORDERS, ids=len)
def test_layers_of_one_network_take_one_pass_and_have_the_same_bits_as_alone(network, pictures, layers):
    models = {f"{number} {layer}": model(network, layer) for number, layer in enumerate(layers)}
    passes, acts = n_passes(network, models, pictures, batch_size=2)
    assert passes == 3 and list(acts) == list(models)
    for name, each in models.items():
        alone = extract({name: each}, pictures, batch_size=2, grid=math.isqrt(acts[name].shape[1]))
        np.testing.assert_array_equal(acts[name], alone[name])


def test_what_follows_the_last_layer_is_not_computed(network, pictures):
    models = {layer: model(network, layer) for layer in ("first", "blocks.0")}
    assert n_passes(network, models, pictures)[0] == 1
    network.computed.clear()
    extract(models, pictures)
    assert len(network.computed) == 2


def test_networks_that_take_other_images_or_types_have_passes_of_their_own(network, pictures):
    for options in ({"size": 8}, {"mean": 0.5}, {"std": 0.5}, {"autocast": torch.bfloat16}, {"threads": 1}):
        models = {"one": model(network, "first"), "other": model(network, "blocks.1", **options)}
        passes, acts = n_passes(network, models, pictures)
        assert passes == 2
        np.testing.assert_array_equal(acts["one"], extract({"one": models["one"]}, pictures, grid=models["other"].grid)["one"])


def test_a_wrapped_network_is_the_same_network(network, pictures):
    models = {"inside": model(network, "first"), "outside": model(nn.DataParallel(network), "module.blocks.1")}
    assert n_passes(network, models, pictures)[0] == 1


def test_errors_name_the_layer_among_several(network, pictures):
    with refuses("layer 'never' of Counting"):
        batches({"a": model(network, "first"), "b": model(network, "never")}, pictures)
    models = {"a": model(network, "first", grid=(8, 8)), "b": model(network, "last", grid=(4, 4))}
    with torch.no_grad():
        network.last.bias[0] = torch.nan
    with refuses("activations", "NaN"):
        extract(models, pictures)
    network.train()
    network.blocks.append(nn.Dropout(0.5))
    with refuses("module", "Counting"):
        extract(models, pictures)


def test_what_the_network_raises_in_a_pass_for_several_layers_is_wrapped(network, pictures):
    models = {layer: model(network, layer) for layer in ("first", "last")}
    for each in models.values():
        assert each.n_tokens
    for error, kind in ((ValueError("no"), usae.InvalidInputError), (RuntimeError("can't allocate memory: 9 TB"), MemoryError)):
        network.blocks.register_forward_hook(lambda *_, error=error: raises(error))
        with pytest.raises(kind, match="layer 'last' of Counting") as found:
            extract(models, pictures)
        assert found.value.__cause__ is error
        network.blocks._forward_hooks.popitem()


def raises(error):
    raise error


def test_a_pass_for_several_layers_has_their_number_of_threads(network, pictures):
    outside, found = torch.get_num_threads(), []
    network.blocks.register_forward_hook(lambda *_: found.append(torch.get_num_threads()))
    for threads in (outside + 1, None):
        models = {layer: model(network, layer, threads=threads) for layer in ("first", "last")}
        found.clear()
        assert n_passes(network, models, pictures)[0] == 1
        assert set(found) == {threads or outside} and torch.get_num_threads() == outside


@pytest.mark.parametrize("kind", ["sparse", "quantized", "float8"])
def test_odd_outputs_of_earlier_layers_are_read_as_of_one_alone(pictures, kind):
    class Odd(nn.Module):
        def forward(self, x):
            if kind == "sparse":
                return x.to_sparse()
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8) if kind == "quantized" else x.to(torch.float8_e4m3fn)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.last = Odd(), nn.Identity()

        def forward(self, x):
            self.odd(x)
            return self.last(x)

    net = Net().eval()
    models = {layer: model(net, layer) for layer in ("odd", "last")}
    acts = extract(models, pictures)
    for name, each in models.items():
        np.testing.assert_array_equal(acts[name], extract({name: each}, pictures)[name])


def test_a_network_that_draws_random_numbers_is_refused_for_each_of_its_layers(pictures):
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Identity(), nn.Identity()

        def forward(self, images):
            return self.last(self.first(images) + torch.rand_like(images))

    network = Drawing().eval()
    models = {layer: model(network, layer, grid=(SIZE, SIZE)) for layer in ("first", "last")}
    with refuses("module"):
        extract(models, pictures)


@pytest.mark.parametrize("fails", [False, True])
def test_a_fast_path_that_fails_under_autocast_is_not_taken_there(monkeypatch, fails):
    from usae.torch import _autocast

    monkeypatch.setattr(_autocast, "_fast_path_fails", lambda dtype: fails)
    with pytest.raises(KeyError), _autocast.using_autocast(torch.device("cpu"), torch.bfloat16):
        assert torch.backends.mha.get_fastpath_enabled() != fails and torch.is_autocast_cpu_enabled()
        raise KeyError
    assert torch.backends.mha.get_fastpath_enabled() and not torch.is_autocast_cpu_enabled()


def test_the_fast_path_of_this_pytorch_is_tried_without_random_numbers():
    from usae.torch._autocast import _fast_path_fails

    state = torch.get_rng_state()
    assert _fast_path_fails.__wrapped__(torch.bfloat16) in (True, False)
    assert torch.equal(torch.get_rng_state(), state)
