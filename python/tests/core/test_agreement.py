"""Steps that encode several models, and the agreement term, against autograd in float64."""

import itertools

import numpy as np
import pytest

import usae
from reference import agreement as reference
from reference import problems

WIDTHS = {"a": 24, "b": 40, "c": 13, "d": 24}  # two of the same width, which share memory
N_TOKENS, N_CONCEPTS, K = 48, 101, 7
TOLERANCE = 1e-4

AUX = [("none", "none", False), ("unchosen", "residual", False), ("dead", "none", True), ("dead", "residual", False)]
CODES = {
    "topk": {},
    "drawn prefixes": dict(prefixes=(0.06, 0.3, 1), prefix_loss="drawn"),
    "mean prefixes": dict(prefixes=(0.06, 0.3, 1)),
    "batchtopk": dict(selection="batchtopk", k_max=20),
    "batchtopk of drawn prefixes": dict(selection="batchtopk", prefixes=(0.06, 0.3, 1), prefix_loss="drawn"),
}
TERMS = {
    "no term": {},
    "preactivations": dict(agreement=0.7),
    "codes": dict(agreement=0.7, agreement_on="codes", agreement_scale=3.0),
}


def recipe_for(encoded_models="two", encoder="linear", loss="mse", aux=AUX[0], update="all", **changes):
    return usae.recipes.default(
        encoded_models=encoded_models, encoder=encoder, loss=loss, aux=aux[0], aux_scale=aux[1], aux_detach=aux[2],
        update=update, aux_coefficient=0.3, dead_tokens=1000, clip_norm=1.0,
        **{"prefixes": None, "prefix_loss": "mean", "agreement": 0.0, "agreement_scale": None} | changes,
    )  # fmt: skip


def prepared(problem, recipe, k=K, seed=0):
    """An SAE with the problem's parameters. Its dead concepts are dead in all models but the last."""
    sae = usae.UniversalSAE(len(problem.dead), k, recipe=recipe, seed=seed)
    sae.initialize({j: x.shape[1] for j, x in problem.batch.items()})
    for index, (j, own) in enumerate(problem.parameters.items()):
        keep = own if recipe.encoder == "batchnorm" else {n: v for n, v in own.items() if not n.startswith("bn_")}
        sae.set_parameters(j, keep)
        silent = np.where(dead_in(problem)[j], recipe.dead_tokens, recipe.dead_tokens - 1).astype(np.int64)
        sae._autoencoder.write(index, "silent_tokens", silent)
    return sae


def dead_in(problem):
    return {j: problem.dead & (j != "d") for j in problem.batch}


def is_separated(problem, encoders, recipe, k, prefix):
    return all(problems.is_separated(problem, e, recipe, k, prefix) for e in encoders)


def problem_for(recipe, encoders, k=K, prefix=None, n_tokens=N_TOKENS, widths=None, **options):
    """The first problem that no rounding can turn."""
    for seed in range(1000):
        problem = problems.standard(seed, widths or WIDTHS, n_tokens, N_CONCEPTS, **options)
        if is_separated(problem, encoders, recipe, k, prefix):
            return problem
    raise AssertionError("no seed separates the problem; it is too large for its rounding")


def encoders_of(recipe, first, seed, k=K, widths=None, present=None):
    """The models that the first step encodes, and the concepts that reconstruct in it."""
    widths = widths or WIDTHS
    sae = usae.UniversalSAE(N_CONCEPTS, k, recipe=recipe, seed=seed).initialize(widths)
    batch = {j: np.zeros((2, widths[j]), np.float32) for j in present or widths}
    report, _ = sae.gradients(usae.WeaklyPaired(batch) if present else batch, encoder=first)
    return report.encoders, report.prefix


def check(recipe, first="b", seed=0, k=K, present=None, **options):
    """Compares all gradients of a step; the largest error / norm. `present` are the models of the batch."""
    encoders, prefix = encoders_of(recipe, first, seed, k, options.get("widths"), present)
    problem = problem_for(recipe, encoders, k, prefix, **options)
    batch = {j: problem.batch[j] for j in present or problem.batch}
    step, expected = reference.gradients(
        problem.parameters, batch, encoders, recipe, k, dead_in(problem), prefix, seed=seed
    )  # fmt: skip
    given = usae.WeaklyPaired(batch) if present else batch
    report, found = prepared(problem, recipe, k, seed).gradients(given, encoder=first)
    assert report.encoders == encoders
    assert report.encoder == first
    assert report.loss == pytest.approx(step.loss.item(), rel=1e-5)
    found_losses = {j: loss for j, loss in report.losses.items() if j in batch}
    assert found_losses == pytest.approx({j: loss.item() for j, loss in step.losses.items()}, rel=1e-5)
    assert report.own_losses == pytest.approx({e: one.losses[e].item() for e, one in step.steps.items()}, rel=1e-5)
    assert report.agreement == pytest.approx(step.agreement.item() if recipe.agreement else 0, rel=1e-5)
    assert {j: set(own) for j, own in found.items()} == {j: set(own) for j, own in expected.items()}
    worst = 0.0
    for j, own in expected.items():
        for name, gradient in own.items():
            if recipe.encoder == "batchnorm" and name == "encoder_bias":  # BatchNorm subtracts it again: exactly 0
                assert not found[j][name].any()
                continue
            error = np.linalg.norm(found[j][name] - gradient) / np.linalg.norm(gradient)
            assert error < TOLERANCE, f"{j} {name}: {error:.3g}"
            worst = max(worst, error)
    return worst


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize("encoded_models", ["two", "all"])
def test_gradients_with_noise_in_what_encoders_read_equal_autograd_in_float64(encoded_models, encoder, term, record_property):
    for codes in CODES.values():
        recipe = recipe_for(encoded_models, encoder, aux=AUX[3], input_noise=0.7, **codes | TERMS[term])
        record_property("worst", check(recipe))


PRESENT = [("b",), ("a", "b"), ("b", "c", "d"), ("d", "b")]


@pytest.mark.parametrize("aux", AUX, ids=str)
@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize("encoded_models", ["one", "two", "all"])
def test_gradients_with_another_weight_of_the_same_model_equal_autograd_in_float64(
    encoded_models, encoder, aux, record_property
):
    for codes in CODES.values():
        recipe = recipe_for(encoded_models, encoder, aux=aux, same_model_weight=5.0, agreement=0.7, **codes)
        record_property("worst", check(recipe))
        record_property("worst without some models", check(recipe, present=PRESENT[2]))


@pytest.mark.parametrize("present", PRESENT, ids="+".join)
@pytest.mark.parametrize("aux", AUX, ids=str)
@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize("encoded_models", ["two", "all"])
def test_gradients_of_batches_without_some_models_equal_autograd_in_float64(
    encoded_models, encoder, aux, present, record_property
):
    for term in TERMS.values():
        for codes in CODES.values():
            recipe = recipe_for(encoded_models, encoder, aux=aux, **codes | term)
            record_property("worst", check(recipe, present=present, seed=1))


def name_of(one):
    return "-".join(map(str, one)) if isinstance(one, tuple) else str(one)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("encoded_models", ["two", "all"])
def test_gradients_of_steps_of_several_encoders_equal_autograd_in_float64(encoded_models, codes, term, record_property):
    for seed in (0, 1, 3):
        recipe = recipe_for(encoded_models, aux=AUX[3], **CODES[codes], **TERMS[term])
        record_property("worst", check(recipe, "abd"[seed % 3], seed))


SETTINGS = list(itertools.product(["two", "all"], ["linear", "batchnorm"], ["l1", "mse"], AUX, ["all", "encoder"]))


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_of_several_encoders_hold_in_every_setting(setting, record_property):
    record_property("worst", check(recipe_for(*setting, agreement=0.7)))


SHAPES = {
    "k-1": dict(k=1),
    "k-all": dict(k=N_CONCEPTS),
    "fewer-than-k": dict(k=24, positive=0.12),
    "token-without-codes": dict(k=5, positive=0.3, zero_token=True),
    "one-token": dict(n_tokens=1),
    "many-tokens": dict(n_tokens=150),
    "two-models": dict(widths={"b": 40, "a": 24}),
}


@pytest.mark.parametrize("on", ["preactivations", "codes"])
@pytest.mark.parametrize("encoded_models", ["two", "all"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_several_encoders_hold_at_the_edges(shape, encoded_models, on, record_property):
    recipe = recipe_for(encoded_models, aux=AUX[2], agreement=0.7, agreement_on=on)
    record_property("worst", check(recipe, **SHAPES[shape]))
