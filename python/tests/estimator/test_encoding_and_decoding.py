"""Codes, reconstructions and dictionaries: what the parameters say."""

import numpy as np
import pytest

import usae
from support.autoencoders import EPS, WIDTHS, small
from support.refusals import refuses
from usae import Codes
from usae._estimator import universal_sae


def affine_encoder(sae, model):
    """Encoder weight and bias that take a model's own units, BatchNorm and standardisation folded in, float64."""
    p = {name: values.astype(float) for name, values in sae.parameters(model).items()}
    gain = p["bn_weight"] / np.sqrt(p["bn_running_var"] + 1e-5) if "bn_weight" in p else np.ones_like(p["encoder_bias"])
    weight = gain[:, None] * p["encoder_weight"] / p["scale"]
    bias = gain * (p["encoder_bias"] - p.get("bn_running_mean", 0)) + p.get("bn_bias", 0) - weight @ p["mean"]
    return weight, bias


def test_preactivations_are_what_the_parameters_say(sae, acts):
    for name, x in acts.items():
        weight, bias = affine_encoder(sae, name)
        got = sae.preactivations(x, name)
        # An exact dot product of d fused multiply-adds, d roundings; some ten more standardise and fold. Each is relative to
        # the largest partial sum, so to the sum of magnitudes.
        magnitude = np.abs(x) @ np.abs(weight).T + np.abs(bias) + np.abs(weight) @ np.abs(sae.parameters(name)["mean"])
        assert got.dtype == np.float32 and got.shape == (600, 32)
        assert (np.abs(got - (x @ weight.T + bias)) <= (WIDTHS[name] + 10) * EPS * magnitude).all()


def test_codes_are_the_largest_positive_preactivations_in_order(sae, acts):
    for name, x in acts.items():
        pre, codes = sae.preactivations(x, name), sae.encode(x, name)
        order = np.argsort(-pre, axis=1, kind="stable")[:, :4]  # stable: ties to the lower index
        values = np.take_along_axis(pre, order, 1)
        assert np.array_equal(codes.indices, np.where(values > 0, order, -1))
        assert np.array_equal(codes.values, np.maximum(values, 0))


def test_fewer_than_k_positive_preactivations_leave_slots_unused(sae, acts):
    bias = np.full(32, -1e6, np.float32)
    bias[5] = 1e6
    name = "encoder_bias" if "bn_bias" not in sae.parameters("vit") else "bn_bias"
    sae.set_parameters("vit", {name: bias})
    codes = sae.encode(acts["vit"], "vit")
    assert (codes.indices == [5, -1, -1, -1]).all() and (codes.values[:, 1:] == 0).all()


def test_decoding_is_the_sum_of_dictionary_rows_in_the_models_units(sae, acts):
    codes = sae.encode(acts["vit"], "vit")
    for name in WIDTHS:
        rows, mean = sae.dictionary(name, units="model").astype(float), sae.parameters(name)["mean"]
        got = sae.decode(codes, name)
        dense = codes.to_dense()
        # k products and sums, and scale, mean and the norm of the row: each rounds once relative to the magnitudes.
        magnitude = dense @ np.abs(rows) + np.abs(mean)
        assert got.dtype == np.float32
        assert (np.abs(got - (dense @ rows + mean)) <= (4 + 10) * EPS * magnitude).all()


def test_codes_made_by_hand_are_decoded_whatever_their_slots(trained):
    rows, mean = trained.dictionary("vit", units="model").astype(float), trained.parameters("vit")["mean"]
    codes = Codes([[0.5, -2.0, 9.0, 0.25, 1.5]], [[3, 31, -1, 3, 0]], 32)
    expected = mean + 0.75 * rows[3] - 2 * rows[31] + 1.5 * rows[0]
    # Six roundings of the products and sums and four of units, relative to the magnitudes.
    magnitude = np.abs(mean) + 0.75 * np.abs(rows[3]) + 2 * np.abs(rows[31]) + 1.5 * np.abs(rows[0])
    assert (np.abs(trained.decode(codes, "vit")[0] - expected) <= 10 * EPS * magnitude).all()
    assert np.array_equal(trained.decode(Codes([[1.0]], [[-1]], 32), "vit")[0], mean)
    assert np.array_equal(trained.decode(Codes(np.empty((2, 0)), np.empty((2, 0), int), 32), "vit"), [mean, mean])
    assert trained.decode(codes[:0], "vit").shape == (0, WIDTHS["vit"])


def test_what_is_no_code_of_this_autoencoder_is_not_decoded(trained):
    with refuses("codes", "ndarray"):
        trained.decode(np.zeros((1, 32)), "vit")
    with refuses("codes", "33"):
        trained.decode(Codes([[1.0]], [[0]], 33), "vit")


def test_reconstruct_is_encode_and_decode(sae, acts):
    expected = sae.decode(sae.encode(acts["vit"], "vit"), "siglip")
    assert np.array_equal(sae.reconstruct(acts["vit"], "vit", "siglip"), expected)


def test_dense_preactivations_are_refused_above_a_size(trained, monkeypatch):
    monkeypatch.setattr(universal_sae, "LARGEST_PREACTIVATIONS", 4 * 32 * 100)
    assert trained.preactivations(np.zeros((100, 17), np.float32), "vit").shape == (100, 32)
    with refuses("x", "101"):
        trained.preactivations(np.zeros((101, 17), np.float32), "vit")
    with refuses("x", "1,000,000,000,000"):  # before the array is looked at
        trained.preactivations(np.broadcast_to(np.float32(0), (10**12, 17)), "vit")


@pytest.mark.parametrize("norm", ["unit", "bounded"])
def test_dictionary_rows_have_their_norm_and_models_units_are_their_scale(acts, norm):
    sae = small(dictionary_norm=norm, weight_decay=1.0).fit(acts, steps=30)
    for name, width in WIDTHS.items():
        rows = sae.dictionary(name)
        assert rows.shape == (32, width) and rows.dtype == np.float32
        # A float32 sum of d squares rounds d times, the root halves that, the division adds one; epsilon is 1e-8.
        norms = np.linalg.norm(rows.astype(float), axis=1)
        if norm == "unit":
            assert np.abs(norms - 1).max() <= (width / 2 + 2) * EPS
        else:
            assert norms.max() <= 1 + 1e-6 + (width / 2 + 2) * EPS and norms.min() < 0.95
        assert np.array_equal(sae.dictionary(name, units="model"), rows * sae.parameters(name)["scale"])
    with refuses("units", "'raw'"):
        sae.dictionary("vit", units="raw")


@pytest.mark.parametrize("shape", [(0, 17), (0, 5, 17), (3, 0, 17)])
def test_nothing_in_gives_nothing_out(sae, shape):
    nothing = np.empty(shape, np.float32)
    codes = sae.encode(nothing, "vit")
    assert codes.shape == (0, 32) and codes.k == sae.encode(np.zeros((1, 17)), "vit").k
    assert codes.values.dtype == np.float32 and codes.indices.dtype == np.int32
    assert sae.decode(codes, "siglip").shape == sae.reconstruct(nothing, "vit", "siglip").shape == (0, 24)
    assert sae.preactivations(nothing, "vit").shape == (0, 32)
    assert codes.to_dense().shape == codes.to_csr().shape == (0, 32)


@pytest.mark.parametrize("shape", [(0, 16), (3, 0), (0, 0), (0, 0, 0), (0,)])
def test_nothing_of_another_width_is_refused(sae, shape):
    for use in (sae.encode, sae.preactivations):
        with refuses("x"):
            use(np.empty(shape, np.float32), "vit")


def test_numbers_of_no_rows_are_refused_because_they_are_means(sae, acts):
    for use in (sae.evaluate, sae.partial_fit, lambda x: sae.fit(x, steps=1)):
        with pytest.raises(usae.InvalidInputError):
            use({name: x[:0] for name, x in acts.items()})
