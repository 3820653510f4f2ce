"""Numbers that overflow in the middle of a computation are an error that names the row, or have a right result."""

import numpy as np
import pytest

import usae
from support.refusals import refuses
from support.worlds import fit_two, two_models

LARGEST = np.finfo(np.float32).max


@pytest.fixture(scope="module")
def sae():
    return fit_two(two_models(), steps=20)


def with_row(value, row=7, column=3, n=20):
    x = two_models(n)["a"]
    x[row, column] = value
    return x


@pytest.mark.parametrize("call", ["encode", "preactivations", "evaluate", "top_examples"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_activation_that_overflows_is_an_error_that_names_the_row(sae, call, dtype):
    acts = two_models(20)
    acts["a"] = with_row(3e38).astype(dtype)
    calls = {
        "encode": lambda: sae.encode(acts["a"], "a"),
        "preactivations": lambda: sae.preactivations(acts["a"], "a"),
        "evaluate": lambda: sae.evaluate(acts),
        "top_examples": lambda: usae.top_examples(sae, acts, n=2),
    }
    with refuses("activations of 'a'") as error:
        calls[call]()
    assert all(part in str(error.value) for part in ("row 7", "column 3"))


@pytest.mark.parametrize("size", [1e10, 1e19, 1e25, 1e35])
def test_a_large_token_has_the_code_of_a_small_one_times_its_size(sae, size):
    known = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize({"a": 24, "b": 32})
    known.set_parameters("a", {"encoder_bias": np.zeros(64, np.float32)})
    x = two_models(5)["a"]
    codes, expected = known.encode(x * np.float32(size), "a"), known.encode(x, "a")
    assert np.array_equal(codes.indices, expected.indices)
    assert np.allclose(codes.values / size, expected.values, rtol=1e-5)


def test_codes_are_finite_or_refused_at_every_size(sae):
    for exponent in np.arange(36, 38.5, 0.125):
        x = two_models(5)["a"] / 4 * np.float32(10.0**exponent)
        if not np.isfinite(x).all():
            continue
        try:
            codes = sae.encode(x, "a")
        except usae.InvalidInputError as error:
            assert "row" in str(error)
        else:
            assert np.isfinite(codes.values).all() and (codes.indices[:, 0] >= 0).all()


def test_finite_activations_whose_standardised_values_overflow_have_no_empty_code(sae):
    small = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize({"a": 24})
    small.set_parameters("a", {"scale": np.full(24, 1e-20, np.float32)})
    with refuses("activations of 'a'"):
        small.encode(np.full((1, 24), 1e20, np.float32), "a")


def test_codes_whose_activations_overflow_are_refused(sae):
    other = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize({"a": 24})
    other.set_parameters("a", {"scale": np.full(24, 1e3)})
    codes = usae.Codes(np.full((2, 4), [[1.0], [1e38]]), np.tile([0, 1, 2, 3], (2, 1)), 64)
    with refuses("codes", "larger ones in row 1"):
        other.decode(codes, "a")


@pytest.mark.parametrize("call", ["encode", "evaluate"])
def test_parameters_with_which_codes_overflow_are_an_error(sae, call):
    other = usae.UniversalSAE(64, 4, recipe=sae.recipe, seed=0).initialize({"a": 24, "b": 32})
    other.set_parameters("a", {"encoder_weight": np.full((64, 24), 2e38)})
    acts = {name: np.abs(x) for name, x in two_models(20).items()}
    with refuses("activations of 'a'"):
        other.encode(acts["a"], "a") if call == "encode" else other.evaluate(acts)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
@pytest.mark.parametrize("update", ["all", "encoder"])
def test_a_dictionary_row_of_zeros_adds_nothing(epsilon, update):
    sae = fit_two(two_models(300), steps=2, dictionary_epsilon=epsilon, update=update)
    dictionary = sae.parameters("a")["dictionary"]
    dictionary[5] = 0
    sae.set_parameters("a", {"dictionary": dictionary})
    codes = usae.Codes(np.array([[2.0]]), np.array([[5]]), 64)
    assert np.array_equal(sae.decode(codes, "a")[0], sae.parameters("a")["mean"])
    assert np.array_equal(sae.dictionary("a")[5], np.zeros(24))
    for _ in range(3):
        sae.partial_fit(two_models(300))
    assert all(np.isfinite(x).all() for name in ("a", "b") for x in sae.parameters(name).values())
    assert np.isfinite(sae.evaluate(two_models(300)).r2).all()


@pytest.mark.parametrize(
    ("size", "norm"), [(1e-30, "unit"), (1e-22, "unit"), (1e22, "unit"), (1e30, "unit"), (1e22, "bounded"), (1e30, "bounded")]
)
def test_dictionary_rows_of_any_size_decode_alike(sae, size, norm):
    other = usae.UniversalSAE(
        64, 4, recipe=sae.recipe.replace(dictionary_epsilon=0.0, dictionary_norm=norm), seed=0
    ).initialize({"a": 24})
    codes = other.encode(two_models(5)["a"], "a")
    expected = other.decode(codes, "a")
    other.set_parameters("a", {"dictionary": other.parameters("a")["dictionary"] * np.float32(size)})
    assert np.allclose(other.decode(codes, "a"), expected, rtol=1e-5, atol=1e-6)
