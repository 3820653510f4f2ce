"""Activations whose mean is huge against their spread: computed in the type that came, or warned of."""

import numpy as np
import pytest

import usae
from support.worlds import fit_two, two_models

HELD_OUT = two_models(500, seed=5)


def moved(acts, offset, dtype=np.float64):
    return {name: (x.astype(float) + offset).astype(dtype) for name, x in acts.items()}


@pytest.fixture(scope="module")
def plain():
    return fit_two(two_models(), steps=100)


@pytest.mark.parametrize("offset", [1e5, 1e8, -1e8, 1e10])
def test_float64_with_a_huge_mean_gives_the_results_of_none(plain, offset, tmp_path):
    sae = fit_two(moved(two_models(), offset), steps=100)
    held_out = moved(HELD_OUT, offset)
    assert np.allclose(sae.evaluate(held_out).r2, plain.evaluate(HELD_OUT).r2, atol=2e-3)
    codes = sae.encode(held_out["a"], "a")
    assert (codes.indices == plain.encode(HELD_OUT["a"], "a").indices).mean() > 0.97
    decoded = sae.decode(codes, "b")
    assert np.square(decoded - held_out["b"]).mean() < 0.4 * HELD_OUT["b"].var()
    latent = usae.latent_scaling(sae, held_out, progress=False)
    known = usae.latent_scaling(plain, HELD_OUT, progress=False)
    assert np.nanmedian(np.abs(latent.beta_activation - known.beta_activation)) < 1e-2


def test_what_float32_cannot_hold_of_the_mean_is_saved_and_copied(tmp_path):
    acts = moved(two_models(300), 1e8)
    sae = fit_two(acts, steps=3)
    sae.save(tmp_path / "sae")
    loaded = usae.load(tmp_path / "sae")
    fresh = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize(sae.n_features_in_)
    for name in ("a", "b"):
        backwards = dict(reversed(sae.parameters(name).items()))  # a mean that is set resets its rest
        fresh.set_parameters(name, backwards)
    for other in (loaded, fresh):
        assert np.array_equal(other.encode(acts["a"], "a").values, sae.encode(acts["a"], "a").values)
        assert np.array_equal(other.parameters("b")["mean_rest"], sae.parameters("b")["mean_rest"])
    sae.set_parameters("a", {"mean": np.zeros(24)})
    assert not np.any(sae._initialized().read(0, "mean_rest"))


def test_a_run_with_a_huge_mean_resumes_to_the_same_bits(tmp_path):
    acts = moved(two_models(600), 1e8)
    whole = fit_two(acts, steps=6)
    sae = usae.UniversalSAE(64, 4, recipe=whole.recipe, seed=0)
    sae.fit(acts, steps=6, checkpoint=tmp_path / "run", callbacks=[lambda report: report.step == 3])
    resumed = usae.UniversalSAE(64, 4, recipe=whole.recipe, seed=0).fit(acts, steps=6, checkpoint=tmp_path / "run", resume=True)
    for tensor, values in whole.parameters("a").items():
        assert np.array_equal(values, resumed.parameters("a")[tensor])


def test_an_ordinary_mean_leaves_no_rest(plain):
    assert "mean_rest" not in plain.parameters("a")


@pytest.mark.parametrize(("dtype", "offset"), [(np.float16, 3000), (np.float16, 300), (np.float32, 1e7)])
def test_rounding_of_the_array_is_warned_of(dtype, offset):
    with pytest.warns(UserWarning, match=f"'a'.*{np.dtype(dtype).name}"):
        fit_two(moved(two_models(300), offset, dtype), steps=2)


def test_units_that_float16_rounds_are_warned_of():
    with pytest.warns(UserWarning, match="'a'.*float16"):
        fit_two({name: (x.astype(float) * 1e-7).astype(np.float16) for name, x in two_models(300).items()}, steps=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_ordinary_rounding_is_not(dtype, recwarn):
    fit_two(moved(two_models(300), 1, dtype), steps=2)
    assert not recwarn.list
