import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE

pytestmark = pytest.mark.slow  # together: each is short


def first(codes, n_concepts):
    """The codes without the concepts from `n_concepts` on."""
    within = codes.indices < n_concepts
    return usae.Codes(np.where(within, codes.values, 0), np.where(within, codes.indices, -1), codes.n_concepts)


def error_of_first(sae, acts, n_concepts):
    x = acts["vit"]
    return np.mean((sae.decode(first(sae.encode(x, "vit"), n_concepts), "vit") - x) ** 2)


@pytest.mark.parametrize("loss", ["mse", "l1"])
@pytest.mark.parametrize("prefix_loss", ["mean", "drawn"])
def test_the_first_concepts_reconstruct_by_themselves(acts, held_out, loss, prefix_loss):
    recipe = RECIPE.replace(loss=loss, prefixes=None, prefix_loss=prefix_loss)
    plain = usae.UniversalSAE(32, 4, recipe=recipe, seed=3).fit(acts, steps=300)
    nested = usae.UniversalSAE(32, 4, recipe=recipe.replace(prefixes=(0.25, 1)), seed=3).fit(acts, steps=300)
    assert error_of_first(nested, held_out, 8) < 0.85 * error_of_first(plain, held_out, 8)
    assert error_of_first(nested, held_out, 8) > error_of_first(nested, held_out, 32)
