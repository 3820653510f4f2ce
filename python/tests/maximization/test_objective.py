"""`usae.objective`: values and gradients against autograd of PyTorch in float64, and what is refused."""

import numpy as np
import pytest
import torch

import usae
from support.autoencoders import RECIPE, WIDTHS, planted
from support.refusals import refuses

torch.set_num_threads(1)

VIEWS, TOKENS, MODEL = 5, 12, "siglip"
RECIPES = {
    "linear": RECIPE,
    "by dimension": RECIPE.replace(center="dimension", scale="dimension"),
    "batchnorm": usae.recipes.published(total_steps=40).replace(batch_size=128, learning_rate=3e-3, statistics_tokens=None),
    "batchtopk": RECIPE.replace(selection="batchtopk", k_max=10),
}
KINDS = [("alignment", 0.0), ("alignment", 1.0), ("alignment", 2.0), ("alignment", 3.0)]
KINDS += [("preactivation", 2.0), ("code", 2.0), ("logsumexp", 2.0)]


@pytest.fixture(scope="module", params=list(RECIPES))
def fitted(request, acts):
    sae = usae.UniversalSAE(32, 4, recipe=RECIPES[request.param], seed=3).fit(acts, steps=40)
    if request.param == "batchnorm":  # half of the concepts look the other way; training rarely gets there
        weight = sae.parameters(MODEL)["bn_weight"]
        weight[::2] *= -1
        sae.set_parameters(MODEL, {"bn_weight": weight})
    return sae


@pytest.fixture(scope="module")
def x():
    return planted(VIEWS * TOKENS, seed=9)[MODEL].reshape(VIEWS, TOKENS, WIDTHS[MODEL])


def busy_concept(sae, x):
    """One that some tokens have in their codes and others have not."""
    codes = sae.encode(x.reshape(-1, x.shape[-1]), MODEL)
    counts = np.bincount(codes.indices[codes.values > 0], minlength=32)
    return int(np.abs(counts - len(codes.values) / 3).argmin())


def reference(sae, x, concept, kind, power, token):
    """Values of the views, and the gradient of their mean, by the definitions."""
    p = {name: torch.tensor(values, dtype=torch.float64) for name, values in sae.parameters(MODEL).items()}
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    a = (leaf - p["mean"]) / p["scale"]
    w, bias = p["encoder_weight"][concept], p["encoder_bias"][concept]
    if "bn_weight" in p:
        factor = (p["bn_weight"] / torch.sqrt(p["bn_running_var"] + 1e-5))[concept]
        w, bias = factor * w, factor * (bias - p["bn_running_mean"][concept]) + p["bn_bias"][concept]
    product = a @ w
    if kind == "alignment":
        cosine = product / (a.norm(dim=-1) * w.norm())
        each = product * torch.clamp(cosine, min=0.1) ** power
        if token is None:  # both sides of the kink, or the test would be of one formula
            assert (cosine > 0.1).any() and (cosine < 0.1).any()
    elif kind == "code":
        codes = sae.encode(x.reshape(-1, x.shape[-1]), MODEL)
        here = ((codes.indices == concept) & (codes.values > 0)).any(1).reshape(x.shape[:2])
        assert here.any() and not here.all()
        each = (product + bias) * torch.tensor(here)
    else:
        each = product + bias
    counted = each if token is None else each[:, token : token + 1]
    values = torch.logsumexp(counted, 1) - np.log(counted.shape[1]) if kind == "logsumexp" else counted.mean(1)
    values.mean().backward()
    return values.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("token", [None, 0, TOKENS - 1])
@pytest.mark.parametrize(("kind", "power"), KINDS)
def test_values_and_gradients_are_those_of_autograd(fitted, x, kind, power, token):
    concept = busy_concept(fitted, x)
    values, gradient = usae.objective(fitted, x, MODEL, concept, kind=kind, power=power, token=token)
    expected, slopes = reference(fitted, x, concept, kind, power, token)
    # Standardised tokens and products are float32 sums of 24 numbers: 24 * 6e-8 of their sizes, a cosine times its power.
    # Measured: 6e-7 and 4e-7.
    assert np.abs(values - expected).max() <= 5e-6 * max(1, np.abs(expected).max())
    assert np.linalg.norm(gradient - slopes) <= 5e-6 * np.linalg.norm(slopes)
    assert (values.dtype, gradient.dtype, gradient.shape) == (np.float64, np.float32, x.shape)


@pytest.mark.parametrize("kind", ["alignment", "preactivation", "code", "logsumexp"])
def test_only_the_given_token_has_a_gradient(fitted, x, kind):
    _, gradient = usae.objective(fitted, x, MODEL, busy_concept(fitted, x), kind=kind, token=3)
    assert not np.delete(gradient, 3, 1).any()


def test_codes_are_those_of_encode(fitted, x):
    concept = busy_concept(fitted, x)
    values, gradient = usae.objective(fitted, x, MODEL, concept, kind="code")
    codes = fitted.encode(x.reshape(-1, x.shape[-1]), MODEL)
    sums = np.where(codes.indices == concept, codes.values, 0).sum(1).reshape(VIEWS, TOKENS)
    np.testing.assert_allclose(values, sums.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient.any(2), sums > 0)


def test_views_do_not_change_each_other(fitted, x):
    together, _ = usae.objective(fitted, x, MODEL, 3)
    alone = [usae.objective(fitted, x[i : i + 1], MODEL, 3)[0][0] for i in range(VIEWS)]
    np.testing.assert_allclose(alone, together, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_activations_of_other_types_and_strides_are_read(trained, x, dtype):
    given = np.asfortranarray(x.astype(dtype))
    values, gradient = usae.objective(trained, given, MODEL, 3)
    expected, slopes = usae.objective(trained, given.astype(np.float32), MODEL, 3)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(gradient, slopes)


def test_a_token_that_is_the_mean_has_a_slope_and_no_nan(trained, x):
    at_mean = np.broadcast_to(trained.parameters(MODEL)["mean"], x.shape).astype(np.float32)
    for kind in ("alignment", "preactivation", "logsumexp"):
        values, gradient = usae.objective(trained, at_mean, MODEL, 3, kind=kind)
        assert np.isfinite(values).all() and np.isfinite(gradient).all() and gradient.any()


def test_huge_preactivations_do_not_overflow_the_soft_maximum(trained, x):
    values, gradient = usae.objective(trained, x * 1e6, MODEL, 3, kind="logsumexp")
    assert np.isfinite(values).all() and np.isfinite(gradient).all() and gradient.any()


BAD = [
    ({"concept": 32}, "concept", "32"),
    ({"concept": -1}, "concept", "-1"),
    ({"concept": 1.5}, "concept", "1.5"),
    ({"concept": 2**70}, "concept", "1180591620717411303424"),
    ({"model": "siglp"}, "model", ""),
    ({"kind": "cosine"}, "kind", "'cosine'"),
    ({"kind": ["code"]}, "kind", "['code']"),
    ({"power": -1}, "power", "-1"),
    ({"power": 101}, "power", "101"),
    ({"power": float("nan")}, "power", "nan"),
    ({"power": "2"}, "power", "'2'"),
    ({"token": TOKENS}, "token", "12"),
    ({"token": -1}, "token", "-1"),
]


@pytest.mark.parametrize(("arguments", "argument", "got"), BAD)
def test_bad_arguments_are_refused_by_name(trained, x, arguments, argument, got):
    with refuses(argument, got):
        usae.objective(trained, **{"activations": x, "model": MODEL, "concept": 3} | arguments)


def test_activations_that_cannot_be_used_are_refused(trained, x):
    with refuses("activations of 'siglip'", "17"):
        usae.objective(trained, x[..., :17], MODEL, 3)
    for shape in ((60, 24), (0, 12, 24), (5, 0, 24), (5, 3, 4, 24)):
        with refuses("activations"):
            usae.objective(trained, np.zeros(shape, np.float32), MODEL, 3)
    for bad in (np.nan, np.inf):
        broken = x.copy()
        broken[2, 3, 4] = bad
        with refuses("activations of 'siglip'", f"{bad} in view 2, token 3"):
            usae.objective(trained, broken, MODEL, 3)
    with refuses("activations of 'siglip'", "int64"):
        usae.objective(trained, np.zeros((5, 12, 24), int), MODEL, 3)
    with refuses("activations", "shape []"):
        usae.objective(trained, None, MODEL, 3)
    with refuses("sae", "dict"):
        usae.objective({}, x, MODEL, 3)
    with pytest.raises(usae.NotInitializedError):
        usae.objective(usae.UniversalSAE(32, 4), x, MODEL, 3)
