"""What the commands work on."""

import numpy as np
import pytest
from PIL import Image

from support.autoencoders import WIDTHS, planted
from support.commands import SMALL, run
from usae.demo import photographs


def write_pictures(folder, split, n):
    folder.mkdir()
    for number, image in enumerate(photographs.crops(photographs.load(), split, n, seed=0).images):
        Image.fromarray(image).save(folder / f"{number:02}.png")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with pictures, and a store and an autoencoder made of them by the commands. For tests that change nothing."""
    folder = tmp_path_factory.mktemp("made")
    for name, split, n in (("photographs", "train", 12), ("held-out-photographs", "held_out", 6)):
        write_pictures(folder / name, split, n)
    run("extract", "--images", folder / "photographs", "--network", "demo", "--output", folder / "acts")
    run("extract", "--images", folder / "held-out-photographs", "--network", "demo", "--output", folder / "held-out")
    run("train", "--acts", folder / "acts", "--output", folder / "model", *SMALL)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """NAME=FILE.npy for three models that are not the demonstration's."""
    for name, x in planted(100, seed=0).items():
        np.save(tmp_path / f"{name}.npy", x)
    return [f"{name}={tmp_path / name}.npy" for name in WIDTHS]
