"""The photographs, and the networks that look at them."""

import pytest

from usae.demo import networks, photographs


@pytest.fixture(scope="session")
def pictures():
    return photographs.load()


@pytest.fixture(scope="session")
def shipped():
    return networks.load_networks()


@pytest.fixture(scope="session")
def images(pictures):
    return photographs.crops(pictures, "held_out", 5, seed=3).images
