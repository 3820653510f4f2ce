"""The encoder's BatchNorm, computed without dense pre-activations, against `torch.nn.BatchNorm1d`."""

import numpy as np
import pytest
import torch

import usae
from reference import problems
from reference import step as reference
from support.refusals import refuses

N_CONCEPTS, K, N_TOKENS = 45, 9, 200
WIDTHS = {"a": 20, "b": 31}


def batches(kind, seed=0):
    """Activations by name of what is unkind about them."""
    random = np.random.default_rng(seed)
    result = {}
    for name, width in WIDTHS.items():
        x = random.standard_normal((N_TOKENS, 6)) @ random.standard_normal((6, width))
        x += 0.3 * random.standard_normal((N_TOKENS, width))
        if kind == "large-mean":
            x = 0.1 * x + random.normal(0, 30, width)
        elif kind == "tiny-variance":
            x = 1e-4 * x + random.normal(0, 0.01, width)
        elif kind == "constant-columns":
            x[:, ::3] = random.standard_normal(len(range(0, width, 3)))
        elif kind == "all-constant":
            x[:] = random.standard_normal(width)
        elif kind == "uneven-scales":
            x *= np.exp(random.uniform(-6, 6, width))
        result[name] = np.float32(x)
    return result


KINDS = ["plain", "large-mean", "tiny-variance", "constant-columns", "all-constant", "uneven-scales"]


def recipe_with(**fields):
    base = dict(
        encoder="batchnorm", loss="mse", aux="none", update="all", prefixes=None, warmup_steps=0, total_steps=None,
        encoded_models="one",
    )  # fmt: skip
    return usae.recipes.default(**{**base, **fields})


def prepared(recipe, seed=0):
    """An autoencoder with random parameters, and those parameters."""
    problem = problems.standard(seed, WIDTHS, 4, N_CONCEPTS)
    for own in problem.parameters.values():
        own["mean"], own["scale"] = np.zeros_like(own["mean"]), np.ones_like(own["scale"])
        own["encoder_weight"][0] = 0  # a concept whose pre-activation has no variance at all
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=0).initialize(WIDTHS)
    for j, own in problem.parameters.items():
        sae.set_parameters(j, own)
    return sae, problem.parameters


def torch_layers(own, dtype):
    width = own["encoder_weight"].shape[1]
    linear, norm = torch.nn.Linear(width, N_CONCEPTS), torch.nn.BatchNorm1d(N_CONCEPTS)
    pairs = {
        linear.weight: "encoder_weight", linear.bias: "encoder_bias", norm.weight: "bn_weight", norm.bias: "bn_bias",
        norm.running_mean: "bn_running_mean", norm.running_var: "bn_running_var",
    }  # fmt: skip
    with torch.no_grad():
        for tensor, name in pairs.items():
            tensor.copy_(torch.from_numpy(own[name]))
    return linear.to(dtype), norm.to(dtype)


def chain_error(own, x):
    """Worst rounding of W x + b by d multiply-adds in float32, [N, m]."""
    size = np.abs(x) @ np.abs(own["encoder_weight"].T) + np.abs(own["encoder_bias"])
    return problems.UNIT * (x.shape[1] + 4) * size


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_equals_torch_batchnorm(kind):
    sae, parameters = prepared(recipe_with())
    for j, x in batches(kind).items():
        linear, norm = torch_layers(parameters[j], torch.float64)
        with torch.no_grad():
            expected = norm.eval()(linear(torch.from_numpy(x).double())).numpy()
        own = parameters[j]
        gain = np.abs(own["bn_weight"]) / np.sqrt(own["bn_running_var"] + 1e-5)
        # The affine map may be folded into the weights: two more roundings of each, and the running mean beside the bias.
        allowed = 2 * gain * (chain_error(own, x) + 4 * problems.UNIT * np.abs(own["bn_running_mean"]))
        allowed += 4 * problems.UNIT * (np.abs(own["bn_bias"]) + np.abs(expected))
        error = np.abs(sae.preactivations(x, j) - expected)
        assert (error <= allowed).all(), f"{j}: {(error / allowed).max():.2f} times the bound"


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_follow_torch_batchnorm(kind):
    # Learning rate 0: the statistics move, the parameters do not, and several steps compare the same function.
    sae, parameters = prepared(recipe_with(learning_rate=0.0, final_learning_rate=0.0, warmup_learning_rate=0.0))
    layers = {j: torch_layers(own, torch.float64) for j, own in parameters.items()}
    for seed in range(3):
        batch = batches(kind, seed)
        sae.partial_fit(batch, encoder="b")
        linear, norm = layers["b"]
        pre = linear(torch.from_numpy(batch["b"]).double())
        norm.train()(pre)
    found = sae.parameters("b")
    error = chain_error(parameters["b"], batch["b"]).max(0)
    deviation = pre.detach().std(0).numpy()
    expected_mean, expected_var = norm.running_mean.numpy(), norm.running_var.numpy()
    allowed = error + 8 * problems.UNIT * np.abs(expected_mean)
    assert (np.abs(found["bn_running_mean"] - expected_mean) <= allowed).all()
    # d(sigma^2) = 2 sigma d(sigma) + d(sigma)^2; centring first keeps the mean out of it, all but its rounding.
    allowed = 2 * deviation * error + error**2 + 16 * problems.UNIT * np.abs(expected_var)
    assert (np.abs(found["bn_running_var"] - expected_var) <= allowed).all()
    assert (found["bn_running_var"] >= 0).all()
    for name in ("bn_running_mean", "bn_running_var"):
        np.testing.assert_array_equal(sae.parameters("a")[name], parameters["a"][name], err_msg="a was not encoded")


@pytest.mark.parametrize("kind", ["plain", "large-mean", "tiny-variance", "constant-columns", "uneven-scales"])
def test_training_equals_torch_batchnorm(kind):
    """Loss and all gradients of a step in training mode, through `torch.nn.BatchNorm1d` in float64.

    With k = m nothing is selected but by sign, and few pre-activations are near zero. Rounding of W x + b is amplified by
    1/sigma (without BatchNorm's epsilon, as it is the share of xhat that counts); the tolerance is that amplification.
    """
    recipe = recipe_with()
    parameters = prepared(recipe)[1]
    sae = usae.UniversalSAE(N_CONCEPTS, N_CONCEPTS, recipe=recipe, seed=0).initialize(WIDTHS)
    for own in parameters.values():
        own["bn_bias"] = np.float32(own["bn_bias"] + 6)  # nearly all positive: few signs to turn
    for j, own in parameters.items():
        sae.set_parameters(j, own)
    batch = batches(kind)
    report, found = sae.gradients(batch, encoder="a")

    own = parameters["a"]
    linear, norm = torch_layers(own, torch.float64)
    dictionaries = {j: torch.tensor(p["dictionary"], dtype=torch.float64, requires_grad=True) for j, p in parameters.items()}
    x = {j: torch.from_numpy(a).double() for j, a in batch.items()}
    pre = linear(x["a"])
    codes = torch.relu(norm.train()(pre))
    loss = sum((x[j] - codes @ (d / (d.norm(dim=1, keepdim=True) + 1e-8))).square().mean() for j, d in dictionaries.items())
    loss.backward()

    deviation = pre.detach().std(0).numpy()
    amplified = float((chain_error(own, batch["a"]).max(0)[1:] / deviation[1:]).max())  # concept 0 has no variance
    tolerance = 1e-5 + 4 * amplified
    assert tolerance < 0.05, "the comparison would be empty"
    assert report.loss == pytest.approx(loss.item(), rel=tolerance)
    expected = {
        "encoder_weight": linear.weight.grad, "bn_weight": norm.weight.grad, "bn_bias": norm.bias.grad,
        "dictionary": dictionaries["a"].grad,
    }  # fmt: skip
    for name, gradient in expected.items():
        error = np.linalg.norm(found["a"][name] - gradient.numpy())
        assert error <= tolerance * np.linalg.norm(gradient.numpy()), f"{name}: {error / np.linalg.norm(gradient.numpy()):.3g}"
    error = np.linalg.norm(found["b"]["dictionary"] - dictionaries["b"].grad.numpy())
    assert error <= tolerance * np.linalg.norm(dictionaries["b"].grad.numpy())


def test_a_constant_concept_has_finite_gradients_and_the_code_of_its_bias():
    recipe = recipe_with()
    sae, parameters = prepared(recipe)
    batch = batches("all-constant")
    report, gradients = sae.gradients(batch, encoder="a")
    assert np.isfinite(report.loss)
    for j, own in gradients.items():
        for name, gradient in own.items():
            assert np.isfinite(gradient).all(), f"{j} {name}"
    # No variance anywhere: every token's pre-activation is bn_bias, whose k largest positive entries are the code. What
    # rounding leaves of W x + b minus its mean is divided by sqrt(1e-5), BatchNorm's epsilon.
    step, expected = reference.gradients(parameters, batch, "a", recipe, K)
    left = 4 * float(chain_error(parameters["a"], batch["a"]).max()) / np.sqrt(1e-5)
    assert left < 0.1, "the comparison would be empty"
    assert report.loss == pytest.approx(step.loss.item(), rel=left)
    error = np.linalg.norm(gradients["a"]["bn_bias"] - expected["a"]["bn_bias"])
    assert error <= left * np.linalg.norm(expected["a"]["bn_bias"])


def test_rounding_of_a_constant_column_does_not_become_variance():
    """Naive E[y^2] - E[y]^2 in float32 leaves 0.06 to 1 of y = 1000; centred first, only the rounding of y is left, squared."""
    sae, parameters = prepared(recipe_with(learning_rate=0.0, final_learning_rate=0.0, warmup_learning_rate=0.0))
    batch = {j: np.full((N_TOKENS, width), 1000.1, np.float32) for j, width in WIDTHS.items()}
    sae.partial_fit(batch, encoder="a")
    own = parameters["a"]
    allowed = 0.1 * chain_error(own, batch["a"]).max(0) ** 2 + 4 * problems.UNIT * own["bn_running_var"]
    error = np.abs(sae.parameters("a")["bn_running_var"] - 0.9 * own["bn_running_var"].astype(np.float64))
    assert allowed.max() < 1e-4
    assert (error <= allowed).all(), (error / allowed).max()


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_variance_across_a_dominant_direction_errs_by_the_square_of_its_size(ratio):
    """The price of taking the variance from the covariance C: w C w cancels where w is orthogonal to what dominates C.

    With a direction `ratio` times as strong as the others, variance errs by a few u ratio^2 of itself (1e-4 for 100), and by
    u ratio alone where it is taken from W x + b.
    """
    random = np.random.default_rng(0)
    width, n_tokens = 64, 2000
    direction = random.standard_normal(width) / 8
    x = np.float32(random.standard_normal((n_tokens, width)) + ratio * random.standard_normal((n_tokens, 1)) * direction)
    weight = random.standard_normal((N_CONCEPTS, width)) / 8
    weight = np.float32(weight - np.outer(weight @ direction, direction) / (direction @ direction))
    recipe = recipe_with(learning_rate=0.0, final_learning_rate=0.0, warmup_learning_rate=0.0)
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=0).initialize({"a": width})
    sae.set_parameters("a", {"encoder_weight": weight, "bn_running_var": np.zeros(N_CONCEPTS, np.float32)})
    sae.partial_fit({"a": x}, encoder="a")
    found = sae.parameters("a")["bn_running_var"] / 0.1
    expected = (x.astype(np.float64) @ weight.T.astype(np.float64)).var(0, ddof=1)
    covariance, size = np.cov(x.T.astype(np.float64)), np.abs(weight).astype(np.float64)
    # Rounding of exact dot products over the width in both products, and of C itself, whose sums over tokens are longer still
    # but err at random: sqrt(n) u.
    allowed = problems.UNIT * (2 * width + np.sqrt(n_tokens)) * np.einsum("cd,de,ce->c", size, np.abs(covariance), size)
    assert (np.abs(found - expected) <= allowed).all()
    assert (np.abs(found - expected) <= (1e-6 + 3e-8 * ratio**2) * expected).all()


@pytest.mark.parametrize("n_tokens", [2, 1023, 1024, 1025, 2049])
def test_variance_is_that_of_all_tokens_whatever_their_number(n_tokens):
    random = np.random.default_rng(n_tokens)
    batch = {name: np.float32(random.standard_normal((n_tokens, width)) + 3) for name, width in WIDTHS.items()}
    sae, parameters = prepared(recipe_with(learning_rate=0.0, final_learning_rate=0.0, warmup_learning_rate=0.0))
    sae.partial_fit(batch, encoder="b")
    linear = batch["b"].astype(np.float64) @ parameters["b"]["encoder_weight"].astype(np.float64).T
    expected = 0.9 * parameters["b"]["bn_running_var"] + 0.1 * linear.var(0, ddof=1)
    np.testing.assert_allclose(sae.parameters("b")["bn_running_var"], expected, rtol=2e-6)


@pytest.mark.parametrize("size", [1e19, 1e20, 1e30, 1e36])
@pytest.mark.parametrize("rows", [slice(7, 8), slice(None)], ids=["a-token", "all"])
@pytest.mark.parametrize("aux", ["none", "unchosen"])
def test_a_variance_beyond_float32_is_an_error_and_changes_nothing(size, rows, aux):
    batch = batches("plain")
    recipe = usae.recipes.published(total_steps=10, warmup_steps=1).replace(aux=aux)
    sae = usae.UniversalSAE(N_CONCEPTS, K, recipe=recipe, seed=0)
    sae.partial_fit(batch, encoder="a")
    before = {name: sae.parameters(name) for name in WIDTHS}
    outlier = {name: x.copy() for name, x in batch.items()}
    outlier["a"][rows] *= np.float32(10 * size)
    with refuses("activations of 'a'"):
        sae.partial_fit(outlier, encoder="a")
    for name, own in before.items():
        for key, value in sae.parameters(name).items():
            np.testing.assert_array_equal(value, own[key])
    assert np.isfinite(sae.partial_fit(batch, encoder="a").loss)
