"""The three networks that the demonstration ships."""

import importlib
import pathlib
import sys

import numpy as np
import pytest
import torch

import usae.demo
from support.refusals import refuses
from usae.demo import measures, networks, photographs


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
    with refuses("images", "uint8 [5, 32, 64, 3]", error=ValueError):
        networks.activations(shipped, images[:, :32])
    with refuses("images", "float32", error=ValueError):
        networks.activations(shipped, images.astype(np.float32))
    with refuses("batch_size", "0", error=ValueError):
        networks.activations(shipped, images, batch_size=0)


@pytest.mark.slow
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


def test_without_torch_the_error_names_the_remedy_and_photographs_still_load(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "usae.demo.networks")
    monkeypatch.setattr(usae.demo, "networks", networks)  # put back afterwards, should the import get that far
    with pytest.raises(ImportError, match="torch"):
        importlib.import_module("usae.demo.networks")
    assert photographs.load()
