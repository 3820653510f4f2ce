"""The activations that the package brings: what is in them, and that the shipped networks make them."""

import subprocess
import sys

import numpy as np
import pytest

import usae
from usae.demo import shipped_activations

pytestmark = pytest.mark.slow

WIDTHS = {"classifier": 96, "masked": 128, "contrastive": 64}


def test_the_activations_are_aligned_small_and_finite():
    train, held_out = usae.demo.activations()
    for split, n_crops in ((train, shipped_activations.TRAINING_CROPS), (held_out, shipped_activations.HELD_OUT_CROPS)):
        assert {name: x.shape for name, x in split.items()} == {
            name: (n_crops, shipped_activations.GRID**2, width) for name, width in WIDTHS.items()
        }
        assert all(x.dtype == np.float32 and np.isfinite(x).all() and x.std() > 0.1 for x in split.values())


def test_the_activations_need_numpy_alone():
    script = """
import sys
for name in ("torch", "skimage", "sklearn", "matplotlib", "safetensors", "PIL", "scipy", "tqdm"):
    sys.modules[name] = None  # importing it is an ImportError
import usae
print(len(usae.demo.activations()))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "2\n"


@pytest.mark.slow
def test_what_two_networks_share_can_be_learned_from_them():
    train, held_out = usae.demo.activations()
    r2 = usae.UniversalSAE(n_concepts=128, k=8, seed=0).fit(train, steps=200).evaluate(held_out).r2
    assert r2.min() > 0.3  # predicting the mean scores 0; a training on wrongly paired rows less


def test_the_crops_and_networks_give_the_shipped_activations():
    for needed in ("skimage", "sklearn", "torch", "matplotlib"):
        pytest.importorskip(needed)
    for images, shipped in zip(usae.demo.crops(), usae.demo.activations(), strict=True):
        assert len(images) == len(shipped["masked"])
        for name, values in shipped_activations.compute(images[:12]).items():
            # The file has float16: half a unit of 2**-10. Other batches and threads add up in another order: 1e-4 more.
            np.testing.assert_allclose(shipped[name][:12], values, rtol=2**-11, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_where_a_package_is_missing_the_crops_name_the_remedy(package):
    script = f"""
import sys
sys.modules[{package!r}] = None
import usae
try:
    usae.demo.crops()
except ImportError as error:
    print("pip install 'usae[demo]'" in str(error))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "True\n"
