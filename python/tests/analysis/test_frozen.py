import numpy as np
import pytest

import usae
from support.autoencoders import RECIPE, WIDTHS
from usae._data.activations import as_aligned
from usae.analysis.frozen import HALVES, train_frozen

pytestmark = pytest.mark.slow


def fitted(acts, **changes):
    return usae.UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3, n_threads=1).fit(acts, steps=40, progress=False)


def frozen(sae, acts, half, steps):
    return train_frozen(sae, as_aligned(acts, "train"), half, steps, False)


@pytest.mark.parametrize("changes", [{}, {"encoder": "batchnorm"}, {"merge_cosine": 0.3, "merge_every": 5}])
@pytest.mark.parametrize("half", HALVES)
def test_one_half_stays_as_it_was_drawn_and_the_other_learns(acts, changes, half):
    sae = fitted(acts, **changes)
    before, after = frozen(sae, acts, half, 1), frozen(sae, acts, half, 40)
    assert after.n_steps_ == 40
    for name in WIDTHS:
        old, new = before.parameters(name), after.parameters(name)
        assert np.array_equal(old["dictionary"], new["dictionary"]) == (half == "dictionary")
        if half == "dictionary":
            assert not np.array_equal(old["encoder_weight"], new["encoder_weight"])
            assert np.allclose(np.linalg.norm(new["dictionary"], axis=1), 1, atol=1e-6)  # as drawn, and not as some token
            continue
        scaled = "bn_weight" if changes.get("encoder") == "batchnorm" else "encoder_weight"
        factor = new[scaled] / old[scaled]
        assert np.allclose(factor, factor.flat[0], rtol=1e-5) and factor.flat[0] > 0  # two roundings, of each of two products
        if scaled == "bn_weight":
            assert np.array_equal(old["encoder_weight"], new["encoder_weight"])


def test_a_frozen_encoder_selects_the_same_concepts_before_and_after(acts, held_out):
    sae = fitted(acts, dictionary_norm="unit")
    before, after = (frozen(sae, acts, "encoder", steps) for steps in (1, 60))
    for name in WIDTHS:
        old, new = (each.encode(held_out[name], name).to_dense() for each in (before, after))
        assert np.mean((old > 0) == (new > 0)) > 0.999  # but where rounding makes two equal
    # Codes have found their size: a factor for all of them does not explain more.
    x, code = held_out["vit"], after.encode(held_out["vit"], "vit")
    r2 = [1 - ((x - after.decode(usae.Codes(code.values * f, code.indices, 32), "vit")) ** 2).sum() for f in (0.7, 1, 1.4)]
    assert r2[1] > max(r2[0], r2[2])


def test_frozen_halves_are_rows_of_the_table_and_the_autoencoder_is_not_changed(acts, held_out):
    sae = fitted(acts)
    before = sae.evaluate(held_out).to_dict()
    names = [f"frozen_{half}" for half in HALVES]
    first, again = (usae.controls(sae, held_out, train=acts, include=names, progress=False) for _ in range(2))
    assert first.to_dict() == again.to_dict() and sae.evaluate(held_out).to_dict() == before
    table = first.table()
    for row in ("frozen random dictionary", "frozen random encoder"):
        assert table[row]["r2_same"] < table["this autoencoder"]["r2_same"] and row in first.summary()
    assert "frozen_dictionary, frozen_encoder" in repr(first)
    # Random encoders of different models have nothing in common, whatever their dictionaries learn.
    assert abs(table["frozen random encoder"]["agreement"]) < 0.2 < table["this autoencoder"]["agreement"]
    short = usae.controls(sae, held_out, train=acts, include=names[:1], steps=2, progress=False)
    assert short.frozen_dictionary.r2.mean() != first.frozen_dictionary.r2.mean()
