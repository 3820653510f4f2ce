"""`Explorer.find` of a picture, through the networks that the explorer's activations came from."""

import numpy as np
import pytest

import usae

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("crop", [False, True])
def test_a_picture_of_the_explorer_finds_itself(tmp_path, crop):
    from support.networks import convolutional
    from usae.torch import Model, extract

    torch.manual_seed(0)
    layers = {"a": (convolutional(), "3"), "b": (torch.nn.Conv2d(3, 9, 4, 4), "")}
    networks = {name: Model(network, layer, size=32, mean=0.5, std=0.5) for name, (network, layer) in layers.items()}
    pictures = np.random.default_rng(0).integers(0, 256, (12, 24, 60, 3), np.uint8)
    pictures[:, :, :18], pictures[:, :, 42:] = 0, 255  # what a crop leaves out
    acts = extract(networks, pictures, crop=crop, progress=False)
    sae = usae.UniversalSAE(24, 4, seed=0).fit(acts, steps=30, progress=False)
    page = usae.explorer(sae, acts, pictures, tmp_path / "page", crop=crop, progress=False)
    found = page.find(pictures[7], networks, n=3)
    assert found.images[0][0] == 7
    for name, x in acts.items():
        codes = sae.encode(x[7], name)
        assert found.concepts[name][0][1] == pytest.approx(codes.values.max(), rel=1e-5)
