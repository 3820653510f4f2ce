"""Results do not depend on the units of the activations."""

import numpy as np
import pytest

import usae
from support import worlds
from support.refusals import refuses
from support.worlds import two_models

pytestmark = pytest.mark.slow

HELD_OUT = two_models(500, seed=5)


def fit_two(acts, **changes):
    """Without merging: the last bit can decide whether two concepts become one."""
    return worlds.fit_two(acts, **{"merge_cosine": None} | changes)


def times(acts, factor):
    """Powers of two change no bit of a float32's fraction, others round once more."""
    return {name: (x.astype(float) * factor).astype(np.float32) for name, x in acts.items()}


@pytest.fixture(scope="module")
def plain():
    sae = fit_two(two_models())
    return sae, sae.evaluate(HELD_OUT)


def test_the_world_is_learned(plain):
    assert np.allclose(plain[1].r2, [[0.92, 0.87], [0.93, 0.95]], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e-6, 2.0**-40, 1e3, 1e30])
def test_codes_r2_and_parameters_are_those_of_other_units(plain, factor):
    sae, expected = plain
    scaled = fit_two(times(two_models(), factor))
    held_out = times(HELD_OUT, factor)
    found = scaled.evaluate(held_out)
    assert np.allclose(found.r2, expected.r2, atol=1e-4)
    assert np.allclose(found.mse, expected.mse * factor**2, rtol=1e-3, atol=0)
    for name in ("a", "b"):
        codes, known = scaled.encode(held_out[name], name), sae.encode(HELD_OUT[name], name)
        assert (codes.indices == known.indices).mean() > 0.999
        assert np.allclose(codes.values, known.values, rtol=1e-2, atol=1e-2)
        parameters, same = scaled.parameters(name), sae.parameters(name)
        for tensor in ("mean", "scale"):
            assert np.allclose(parameters[tensor] / factor, same[tensor], rtol=1e-4, atol=1e-5)
        assert np.allclose(parameters["dictionary"], same["dictionary"], atol=1e-2)
        assert np.allclose(
            scaled.decode(known, name).astype(float) / factor, sae.decode(known, name).astype(float), rtol=1e-2, atol=1e-2
        )


RECIPES = {
    "batchtopk": dict(selection="batchtopk"),
    "batchnorm": dict(encoder="batchnorm"),
    "dimension": dict(scale="dimension"),
    "scalar": dict(center="scalar"),
    "l1": dict(loss="l1"),
    "random": dict(initialization="random"),
    "merging": dict(merge_every=5, merge_cosine=0.5),
}


# Where the last bit decides, about merging or in the sign of a residual, the difference grows from step to step.
DIFFERENCES = {"merging": 2e-2, "l1": 5e-3}


@pytest.mark.parametrize("factor", [1e-30, 1e30])
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_depends_on_units(recipe, factor):
    acts = two_models(600)
    sae, scaled = (fit_two(x, steps=30, **RECIPES[recipe]) for x in (acts, times(acts, factor)))
    found, expected = scaled.evaluate(times(HELD_OUT, factor)), sae.evaluate(HELD_OUT)
    for field in ("r2", "r2_standardized", "r2_scalar_mean", "l0"):
        assert np.allclose(getattr(found, field), getattr(expected, field), atol=DIFFERENCES.get(recipe, 2e-3)), field
    assert (found.firing_counts == expected.firing_counts).mean() > (0.95 if recipe not in DIFFERENCES else 0.5)


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e30])
def test_constant_dimensions_are_divided_by_a_scale_in_the_units_of_the_others(factor):
    acts = times(two_models(300), factor)
    for x in acts.values():
        x[:, 3] = 7 * factor
    sae = fit_two(acts, steps=1, scale="dimension")
    scale = sae.parameters("a")["scale"]
    assert scale[3] == pytest.approx(np.sqrt((np.delete(scale, 3).astype(float) ** 2).mean()), rel=0.1)
    assert sae.standardization_["a"].constant_dimensions.tolist() == [3]


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_baselines_do_not_depend_on_units(factor, plain):
    train = two_models(400)
    known = usae.controls(plain[0], HELD_OUT, train=train, include=("linear",), progress=False)
    scaled = fit_two(times(train, factor), steps=1)
    found = usae.controls(scaled, times(HELD_OUT, factor), train=times(train, factor), include=("linear",), progress=False)
    assert np.allclose(found.linear.r2, known.linear.r2, atol=1e-4)


def test_latent_scaling_does_not_depend_on_units(plain):
    sae, _ = plain
    scaled = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize({"a": 24, "b": 32})
    for name in ("a", "b"):
        parameters = sae.parameters(name)
        scaled.set_parameters(name, parameters | {tensor: parameters[tensor] * 2.0**-90 for tensor in ("mean", "scale")})
    found = usae.latent_scaling(scaled, times(HELD_OUT, 2.0**-90), progress=False)
    known = usae.latent_scaling(sae, HELD_OUT, progress=False)
    for field in ("beta_error", "beta_reconstruction", "beta_activation", "any_direction"):
        assert np.allclose(getattr(found, field), getattr(known, field), rtol=1e-3, atol=1e-4, equal_nan=True)


def test_a_spread_that_float32_cannot_hold_is_refused():
    acts = {name: x.astype(float) * 1e-42 for name, x in two_models(300).items()}
    with refuses("activations of 'a'"):
        fit_two(acts, steps=1)
