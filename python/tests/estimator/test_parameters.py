"""Parameters and gradients, out and in."""

import numpy as np
import pytest
import torch

from support.autoencoders import WIDTHS, everything, small
from support.refusals import refuses
from usae import UniversalSAE


def test_parameters_can_be_carried_to_another_autoencoder(sae, acts):
    other = UniversalSAE(32, 4, recipe=sae.recipe).initialize(WIDTHS)
    for name in WIDTHS:
        other.set_parameters(name, sae.parameters(name))
    for name, x in acts.items():
        assert other.encode(x, name) == sae.encode(x, name)
        assert np.array_equal(other.reconstruct(x, name, "vit"), sae.reconstruct(x, name, "vit"))


def test_parameters_have_the_shapes_that_are_documented(sae):
    batchnorm = {name: (32,) for name in ("bn_weight", "bn_bias", "bn_running_mean", "bn_running_var")}
    for name, width in WIDTHS.items():
        expected = {"mean": (width,), "scale": (width,), "encoder_weight": (32, width), "encoder_bias": (32,)}
        expected |= {"dictionary": (32, width)} | (batchnorm if sae.recipe_.encoder == "batchnorm" else {})
        assert {key: values.shape for key, values in sae.parameters(name).items()} == expected
        assert all(values.dtype == np.float32 for values in sae.parameters(name).values())


def test_parameters_are_copies(trained):
    before = everything(trained)
    trained.parameters("vit")["mean"][:] = 5
    trained.dictionary("vit")[:] = 5
    assert everything(trained) == before


def test_parameters_may_be_of_any_float_type(sae):
    new = np.arange(WIDTHS["vit"]) / 8
    for values in (new, new.astype(np.float16), torch.tensor(new), torch.tensor(new).bfloat16(), new[::-1].copy()[::-1]):
        sae.set_parameters("vit", {"mean": np.zeros(WIDTHS["vit"])})
        sae.set_parameters("vit", {"mean": values})
        assert np.array_equal(sae.parameters("vit")["mean"], new)


GOOD = {"encoder_bias": np.ones(32), "mean": np.ones(17)}


@pytest.mark.parametrize(
    ("bad", "argument", "got"),
    [
        ({"bias": np.ones(32)}, "parameters", ""),
        ({"dictionary": np.ones((32, 16))}, "parameters['dictionary']", "[32, 16]"),
        ({"dictionary": np.ones((32, 17), int)}, "parameters['dictionary']", "int64"),
        ({"encoder_weight": np.full((32, 17), np.nan)}, "parameters['encoder_weight']", "nan at [0, 0]"),
        ({"encoder_weight": np.full((32, 17), 1e39)}, "parameters['encoder_weight']", "inf at [0, 0]"),
        ({"scale": np.zeros(17)}, "scale of 'vit'", ""),
        ({"scale": -np.ones(17)}, "scale of 'vit'", ""),
        ({"scale": None}, "parameters['scale']", "NoneType of Python objects"),
    ],
)
def test_bad_parameters_are_refused_and_none_is_set(trained, bad, argument, got):
    before = everything(trained)
    with refuses(argument, got):
        trained.set_parameters("vit", GOOD | bad)
    with refuses(argument, got):
        trained.set_parameters("vit", bad | GOOD)
    assert everything(trained) == before
    with refuses("parameters", "list"):
        trained.set_parameters("vit", [np.ones(3)])


def test_batchnorm_parameters_belong_to_the_batchnorm_encoder(acts, trained):
    with refuses("parameters"):
        trained.set_parameters("vit", {"bn_bias": np.ones(32)})
    sae = small(encoder="batchnorm").fit(acts, steps=1)
    before = everything(sae)
    with refuses("bn_running_var of 'vit'", "-1.0 at position 0"):
        sae.set_parameters("vit", GOOD | {"bn_running_var": -np.ones(32)})
    assert everything(sae) == before


@pytest.mark.parametrize("norm", ["unit", "bounded"])
@pytest.mark.parametrize("factor", [1e19, 1e30, 1e37])
def test_the_dictionary_is_the_one_that_decodes_whatever_the_length_of_its_rows(acts, factor, norm):
    sae = small(dictionary_norm=norm).fit(acts, steps=2)
    sae.set_parameters("vit", {"dictionary": 1.5 * sae.parameters("vit")["dictionary"]})  # longer than 1
    codes, expected = sae.encode(acts["vit"], "vit"), sae.dictionary("vit")
    decoded = sae.decode(codes, "vit")
    sae.set_parameters("vit", {"dictionary": sae.parameters("vit")["dictionary"].astype(float) * factor})
    np.testing.assert_allclose(sae.decode(codes, "vit"), decoded, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sae.dictionary("vit"), expected, rtol=1e-5, atol=1e-6)


def test_preactivations_that_float32_does_not_hold_are_refused(acts):
    sae = small().fit(acts, steps=2)
    sae.set_parameters("vit", {"encoder_weight": sae.parameters("vit")["encoder_weight"].astype(float) * 3e38})
    with refuses("x", "infinity or NaN for row 6"):
        sae.preactivations(acts["vit"], "vit", mask=np.arange(len(acts["vit"])) > 5)


@pytest.mark.parametrize("update", ["all", "encoder"])
def test_gradients_are_those_of_the_tensors_that_a_step_would_change_and_change_nothing(acts, update):
    sae = small(encoder="batchnorm", update=update).fit(acts, steps=3)
    before = everything(sae)
    report, gradients = sae.gradients(acts, encoder="siglip")
    assert everything(sae) == before
    assert report.encoder == "siglip" and report.loss > 0
    own = {"encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary"}
    expected = {"siglip": own} if update == "encoder" else {"dinov2": {"dictionary"}, "siglip": own, "vit": {"dictionary"}}
    assert {name: set(tensors) for name, tensors in gradients.items()} == expected
    for name, tensors in gradients.items():
        parameters = sae.parameters(name)
        for tensor, values in tensors.items():
            assert values.shape == parameters[tensor].shape and np.isfinite(values).all()
            assert tensor == "encoder_bias" or np.abs(values).max() > 0  # a bias in front of BatchNorm has none
    assert sae.partial_fit(acts, encoder="siglip").loss == report.loss
