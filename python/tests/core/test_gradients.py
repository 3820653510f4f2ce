"""Gradients of every trainable tensor against autograd in float64, for each setting that changes them."""

import itertools

import numpy as np
import pytest
import torch

import usae
from reference import problems
from reference import step as reference

pytestmark = pytest.mark.slow  # test_published_curve.py, which is quick, follows PyTorch too

TOLERANCE = 1e-4
WIDTHS = {"a": 24, "b": 40, "c": 13}  # 24 = 16 + 8, 40 = 32 + 8 and an odd one: every tail of a 16-wide kernel
N_TOKENS = 48
N_CONCEPTS = 101  # no multiple of 32

AUX = [("none", "none", False)] + list(itertools.product(["unchosen", "dead"], ["none", "residual"], [False, True]))
SETTINGS = list(itertools.product(["linear", "batchnorm"], ["l1", "mse"], AUX, ["all", "encoder"]))
SHAPES = {
    "k-1": dict(k=1),
    "k-all": dict(k=N_CONCEPTS),
    "fewer-than-k": dict(k=24, positive=0.12),
    "token-without-codes": dict(k=5, positive=0.3, zero_token=True),
    "nothing-dead": dict(k=6, dead=0.0),
    "everything-dead": dict(k=6, dead=1.0),
}


def recipe_for(encoder, loss, aux, update):
    return usae.recipes.default(
        encoder=encoder, loss=loss, aux=aux[0], aux_scale=aux[1], aux_detach=aux[2],
        update=update, aux_coefficient=0.3, dead_tokens=1000, clip_norm=1.0, prefixes=None, prefix_loss="mean",
        encoded_models="one", dictionary_norm="unit",
    )  # fmt: skip


def prepared(problem, recipe, k, seed=0):
    """An SAE with the problem's parameters."""
    n_concepts = len(problem.dead)
    sae = usae.UniversalSAE(n_concepts, k, recipe=recipe, seed=seed)
    sae.initialize({j: x.shape[1] for j, x in problem.batch.items()})
    for j, own in problem.parameters.items():
        keep = own if recipe.encoder == "batchnorm" else {n: v for n, v in own.items() if not n.startswith("bn_")}
        sae.set_parameters(j, keep)
    silence(sae, problem, recipe)
    return sae


def silence(sae, problem, recipe):
    """Makes the problem's dead concepts dead in every model."""
    for index in range(len(problem.batch)):
        # One token below the threshold is alive, at the threshold it is dead.
        silent = np.where(problem.dead, recipe.dead_tokens, recipe.dead_tokens - 1).astype(np.int64)
        sae._autoencoder.write(index, "silent_tokens", silent)


def core_gradients(problem, encoder, recipe, k, seed=0):
    return prepared(problem, recipe, k, seed).gradients(problem.batch, encoder=encoder)


def smallest_norms(parameters, encoder, step, recipe):
    """{(model, name): what is added to a gradient's norm before dividing by it}, for gradients that cancel by nature.

    Where terms cancel, float32 leaves rounding of the terms; divided by its smallest norm that rounding is TOLERANCE at most.
    - A bias in front of BatchNorm does not change the loss: its gradient, a sum over N tokens, is exactly 0, of which N u
      sum_n |g_n| may be left.
    - A dictionary row is divided by its norm: its gradient is what the normalised row's gradient g has across the row, over
      the norm. The part along the row cancels, a few u |g| of it may be left. With width 1 there is nothing else.
    """
    result = {}
    for j, normalized in step.dictionary.items():
        if normalized.grad is not None:
            norms = np.linalg.norm(parameters[j]["dictionary"], axis=1, keepdims=True)
            result[j, "dictionary"] = 4 * problems.UNIT * np.linalg.norm(normalized.grad.numpy() / norms) / TOLERANCE
    if recipe.encoder == "batchnorm":
        terms = step.linear.grad.abs().sum(0)
        result[encoder, "encoder_bias"] = float(len(step.linear) * problems.UNIT * terms.norm() / TOLERANCE)
    return result


def check(
    recipe, k, encoder="b", n_concepts=N_CONCEPTS, widths=None, n_tokens=N_TOKENS, prefix=None, seed=0, present=None, **options
):
    """Compares all gradients; the largest error / (norm + smallest norm).

    The first step of an SAE with `seed` draws `prefix`, where the recipe draws one. `present` are the models of the batch.
    """
    problem = problems.separated(recipe, k, encoder, widths or WIDTHS, n_tokens, n_concepts, prefix=prefix, **options)
    batch = {j: problem.batch[j] for j in present or problem.batch}
    step, expected = reference.gradients(
        problem.parameters, batch, encoder, recipe, k, problem.dead, prefix=prefix, seed=seed
    )  # fmt: skip
    given = usae.WeaklyPaired(batch) if present else batch
    report, found = prepared(problem, recipe, k, seed).gradients(given, encoder=encoder)
    assert report.prefix == (prefix or n_concepts)
    assert {j for j, loss in report.losses.items() if np.isfinite(loss)} == set(batch)
    return compare(problem, encoder, recipe, step, expected, report, found)


def compare(problem, encoder, recipe, step, expected, report, found):
    """Compares a report and gradients with the reference's; the largest error / (norm + smallest norm)."""
    # Sums of at most N d values with relative error near u; 1e-5 leaves an order of magnitude.
    assert report.loss == pytest.approx(step.loss.item(), rel=1e-5)
    assert {j: set(own) for j, own in found.items()} == {j: set(own) for j, own in expected.items()}
    smallest, worst = smallest_norms(problem.parameters, encoder, step, recipe), 0.0
    for j, own in expected.items():
        for name, gradient in own.items():
            assert found[j][name].shape == gradient.shape, f"{j} {name}"
            error = np.linalg.norm(found[j][name] - gradient)
            norm = np.linalg.norm(gradient) + smallest.get((j, name), 0.0)
            relative = error / norm if norm else error
            assert relative < TOLERANCE, f"{j} {name}: error {error:.3g}, norm {norm:.3g}, relative {relative:.3g}"
            worst = max(worst, relative)
    return worst


def name_of(setting):
    encoder, loss, aux, update = setting
    return "-".join([encoder, loss, aux[0], aux[1], "detached" if aux[2] else "attached", update])


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_equal_autograd_in_float64(setting, record_property):
    record_property("worst", check(recipe_for(*setting), k=7))


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_of_rows_that_may_be_shorter_equal_autograd_in_float64(setting, record_property):
    recipe = recipe_for(*setting).replace(dictionary_norm="bounded")  # the problem has rows on both sides of 1
    record_property("worst", check(recipe, k=7))
    record_property("worst of prefixes", check(recipe.replace(prefixes=(0.06, 0.3, 1)), k=7))


@pytest.mark.parametrize("encoder", ["a", "c"])
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_with_noise_in_what_encoders_read_equal_autograd_in_float64(setting, encoder, record_property):
    record_property("worst", check(recipe_for(*setting).replace(input_noise=0.7), k=7, encoder=encoder))


PRESENT = [("b",), ("a", "b"), ("b", "c")]


@pytest.mark.parametrize("weight", [0.2, 5.0])
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_with_another_weight_of_the_same_model_equal_autograd_in_float64(setting, weight, record_property):
    recipe = recipe_for(*setting).replace(same_model_weight=weight)
    record_property("worst", check(recipe, k=7))
    record_property("worst of prefixes", check(recipe.replace(prefixes=(0.06, 0.3, 1)), k=7))
    for present in PRESENT:
        record_property(f"worst of {present}", check(recipe, k=7, present=present))


@pytest.mark.parametrize("present", PRESENT, ids="+".join)
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_of_batches_without_some_models_equal_autograd_in_float64(setting, present, record_property):
    record_property("worst", check(recipe_for(*setting), k=7, present=present))


@pytest.mark.parametrize("present", PRESENT, ids="+".join)
@pytest.mark.parametrize("selection", ["topk", "batchtopk"])
@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_gradients_of_batches_without_some_models_hold_with_prefixes(loss, encoder, selection, present, record_property):
    shares = (0.06, 0.3, 1)
    for aux in AUX:
        recipe = recipe_for(encoder, loss, aux, "all").replace(prefixes=shares, selection=selection)
        record_property("worst", check(recipe, k=7, present=present))
        recipe = recipe.replace(prefix_loss="drawn")
        for prefix, seed in first_draws(shares).items():
            record_property("worst", check(recipe, k=7, prefix=prefix, seed=seed, present=present))


PREFIXES = {
    "two": (0.25, 1),
    "four": (1 / N_CONCEPTS, 0.1, 0.5, 1),  # the first is one concept
    "nearly-all-of-them": (99 / N_CONCEPTS, 1),
    "only-all-of-them": (1,),
}


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_of_nested_prefixes_equal_autograd_in_float64(setting, record_property):
    record_property("worst", check(recipe_for(*setting).replace(prefixes=(0.06, 0.3, 1)), k=7))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prefixes", PREFIXES)
def test_gradients_of_nested_prefixes_hold_at_the_edges(shape, prefixes, record_property):
    for loss, aux in (("l1", "unchosen"), ("mse", "dead")):
        recipe = recipe_for("linear", loss, (aux, "residual", False), "all").replace(prefixes=PREFIXES[prefixes])
        record_property("worst", check(recipe, **SHAPES[shape]))


def first_draws(shares):
    """{concepts that the first step draws: a seed that draws it}."""
    draws = {}
    batch = {"a": np.zeros((2, 3), np.float32)}
    for seed in range(40):
        sae = usae.UniversalSAE(N_CONCEPTS, 2, recipe=usae.recipes.default(prefixes=shares), seed=seed)
        sae.initialize({"a": 3})
        draws.setdefault(sae.gradients(batch, encoder="a")[0].prefix, seed)
    return draws


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["topk", "batchtopk"])
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_gradients_of_drawn_prefixes_equal_autograd_in_float64(setting, selection, record_property):
    shares = (0.06, 0.3, 1)
    draws = first_draws(shares)
    assert sorted(draws) == [6, 30, N_CONCEPTS]
    recipe = recipe_for(*setting).replace(prefixes=shares, prefix_loss="drawn", selection=selection)
    for prefix, seed in draws.items():
        record_property("worst", check(recipe, k=7, prefix=prefix, seed=seed))


BATCHES = {
    "default": dict(k_max=None),
    "most tokens are full": dict(k_max=8),
    "as topk": dict(k_max=7),
    "no limit": dict(k_max=N_CONCEPTS),
    "with prefixes": dict(prefixes=(0.1, 0.4, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
@pytest.mark.parametrize("batch", BATCHES)
def test_gradients_of_a_selection_by_batch_equal_autograd_in_float64(setting, batch, record_property):
    recipe = recipe_for(*setting).replace(selection="batchtopk", **BATCHES[batch])
    record_property("worst", check(recipe, k=7))


@pytest.mark.parametrize("k", [1.3, 6.6, 7.02])
def test_gradients_of_a_fractional_mean_equal_autograd_in_float64(k, record_property):
    for encoder, loss, aux in (("linear", "mse", "dead"), ("batchnorm", "l1", "unchosen")):
        recipe = recipe_for(encoder, loss, (aux, "residual", False), "all").replace(selection="batchtopk")
        record_property("worst", check(recipe, k=k))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_a_selection_by_batch_hold_at_the_edges(shape, record_property):
    for loss, aux in (("l1", "unchosen"), ("mse", "dead")):
        recipe = recipe_for("linear", loss, (aux, "residual", False), "all").replace(selection="batchtopk")
        record_property("worst", check(recipe, **SHAPES[shape]))


@pytest.mark.parametrize("k_max", [8, 20, N_CONCEPTS])
@pytest.mark.parametrize("aux", ["none", "unchosen", "dead"])
def test_gradients_do_not_depend_on_what_earlier_batches_kept(aux, k_max):
    recipe = recipe_for("linear", "mse", (aux, "none", False), "all").replace(selection="batchtopk", k_max=k_max)
    problem = problems.standard(0, WIDTHS, N_TOKENS, N_CONCEPTS, dead=0.5)
    fresh, expected = core_gradients(problem, "b", recipe, 7)
    sae = usae.UniversalSAE(N_CONCEPTS, 7, recipe=recipe, seed=0).initialize(WIDTHS)
    for j, own in problem.parameters.items():
        sae.set_parameters(j, {name: values for name, values in own.items() if not name.startswith("bn_")})
    silent = np.where(problem.dead, recipe.dead_tokens, 0).astype(np.int64)
    sae._autoencoder.write(1, "silent_tokens", silent)
    for size in (1, 1e-3, 1e3, 1):  # of the batch before: alike, far larger, far smaller
        report, found = sae.gradients(problem.batch, encoder="b")
        assert report.to_dict() == fresh.to_dict()
        for j, own in expected.items():
            for name, gradient in own.items():
                np.testing.assert_array_equal(found[j][name], gradient, err_msg=f"{j} {name}")
        sae.gradients({j: size * x for j, x in problem.batch.items()}, encoder="b")


@pytest.mark.parametrize("aux_k", [1, 5, N_CONCEPTS])
def test_dead_concepts_that_the_batch_left_out_come_first(aux_k, record_property):
    recipe = recipe_for("linear", "mse", ("dead", "none", False), "all").replace(aux_k=aux_k, selection="batchtopk")
    for k_max in (3, 12, 40):
        record_property("worst", check(recipe.replace(k_max=k_max), k=3, dead=0.6))


@pytest.mark.parametrize("aux", ["none", "unchosen", "dead"])
@pytest.mark.parametrize("loss", ["l1", "mse"])
@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_hold_at_the_edges_of_sparsity(shape, encoder, loss, aux, record_property):
    recipe = recipe_for(encoder, loss, (aux, "none", False), "all")
    record_property("worst", check(recipe, **SHAPES[shape]))


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
@pytest.mark.parametrize(
    ("widths", "n_concepts", "n_tokens"),
    [
        ({"a": 1, "b": 2}, 3, 5),
        ({"a": 16, "b": 32}, 64, 64),  # every length a full vector
        ({"a": 15, "b": 17}, 31, 33),
        ({"a": 65, "b": 129}, 57, 600),  # several tiles of tokens
        ({"b": 20}, 40, 32),  # one model: an ordinary sparse autoencoder
    ],
)
def test_gradients_hold_for_awkward_sizes(widths, n_concepts, n_tokens, encoder, record_property):
    # Among 600 tokens some residual always lies within rounding of zero, so that L1 has no well-defined sign there.
    for loss, aux in [("l1", "unchosen"), ("mse", "dead")] if n_tokens < 500 else [("mse", "none"), ("mse", "dead")]:
        recipe = recipe_for(encoder, loss, (aux, "none", False), "all")
        worst = check(recipe, min(3, n_concepts), widths=widths, n_concepts=n_concepts, n_tokens=n_tokens)
        record_property("worst", worst)


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
def test_the_published_auxiliary_loss_holds_over_many_tiles(encoder):
    # 2,000 tokens are two tiles and a part, 300 concepts a block and a part. A few of the residuals lie within rounding of
    # zero, where their sign, and with it the slope, is float32's own: some 1e-5 of the signs, 3e-3 of the gradient's norm. A
    # tile or a block left out would be a tenth and more.
    recipe = recipe_for(encoder, "l1", ("unchosen", "none", False), "all")
    problem = problems.standard(0, WIDTHS, 2000, 300)
    _, expected = reference.gradients(problem.parameters, problem.batch, "b", recipe, 7, problem.dead)
    _, found = core_gradients(problem, "b", recipe, 7)
    for j, own in expected.items():
        for name in own.keys() - {"encoder_bias"}:
            error = np.linalg.norm(found[j][name] - own[name]) / np.linalg.norm(own[name])
            assert error < 0.02, f"{j} {name}: {error:.3g}"


@pytest.mark.parametrize("first", [0, 960])
def test_slopes_of_exactly_zero_are_no_signs(first):
    # A dimension that is constant and that no dictionary uses is reconstructed exactly: in all tokens, or, in the second case,
    # in those of the second tile alone, so that one tile is made from signs and the other is not.
    recipe = recipe_for("linear", "l1", ("unchosen", "none", False), "all")
    problem = problems.standard(0, WIDTHS, 1100, 64)
    for name in WIDTHS:
        problem.batch[name][first:, 5] = problem.parameters[name]["mean"][5]
        problem.parameters[name]["dictionary"][:, 5] = 0
    _, expected = reference.gradients(problem.parameters, problem.batch, "b", recipe, 7, problem.dead)
    _, found = core_gradients(problem, "b", recipe, 7)
    for j, own in expected.items():
        for name, gradient in own.items():
            error = np.linalg.norm(found[j][name] - gradient) / np.linalg.norm(gradient)
            assert error < 0.02, f"{j} {name}: {error:.3g}"
        if first == 0:
            assert not found[j]["dictionary"][:, 5].any()


@pytest.mark.parametrize("aux_k", [1, 3, N_CONCEPTS])
@pytest.mark.parametrize("aux", ["unchosen", "dead"])
def test_the_number_of_auxiliary_codes_is_respected(aux, aux_k, record_property):
    recipe = recipe_for("linear", "mse", (aux, "residual", True), "all").replace(aux_k=aux_k)
    record_property("worst", check(recipe, k=7))


TEACHING = SHAPES | {"one-token": dict(k=7, n_tokens=1), "five-tokens": dict(k=7, n_tokens=5), "many": dict(k=7, dead=0.5)}


@pytest.mark.parametrize("selection", ["topk", "batchtopk"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("every", [2, 8])
@pytest.mark.parametrize("shape", TEACHING)
def test_each_step_teaches_dead_concepts_by_other_tokens(shape, every, detach, selection):
    recipe = recipe_for("linear", "mse", ("dead", "residual", detach), "all").replace(aux_every=every)
    recipe = recipe.replace(learning_rate=0.0, renormalize=False, selection=selection, k_max=None)  # parameters stay
    options = {"n_tokens": N_TOKENS} | TEACHING[shape]
    k = options.pop("k")
    problem = problems.separated(recipe, k, "b", WIDTHS, n_concepts=N_CONCEPTS, **options)
    seed = 2**40 + 3
    sae = prepared(problem, recipe, k, seed)
    taught = []
    for number in range(6):
        silence(sae, problem, recipe)
        step, expected = reference.gradients(
            problem.parameters, problem.batch, "b", recipe, k, problem.dead, number=number, seed=seed
        )  # fmt: skip
        compare(problem, "b", recipe, step, expected, *sae.gradients(problem.batch, encoder="b"))
        taught.append(tuple(step.auxiliary_tokens.nonzero().ravel().tolist()))
        sae.partial_fit(problem.batch, encoder="b")
    n_tokens = options["n_tokens"]
    assert all(len(tokens) == -(-n_tokens // every) for tokens in taught)
    assert n_tokens == 1 or len(set(taught)) > 1


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one[2][0] == "dead"], ids=name_of)
def test_gradients_with_auxk_on_every_token_equal_autograd_in_float64(setting, record_property):
    record_property("worst", check(recipe_for(*setting).replace(aux_every=1), k=7))


@pytest.mark.parametrize("every", [2, 3, 7, 47, 48, 49, 2**53])
def test_gradients_hold_for_any_number_of_tokens_in_one(every, record_property):
    for loss, detach in (("l1", False), ("mse", True)):
        recipe = recipe_for("linear", loss, ("dead", "residual", detach), "all").replace(aux_every=every)
        record_property("worst", check(recipe, k=7, seed=every))


def test_the_published_auxk_is_on_every_token():
    recipe = recipe_for("batchnorm", "l1", ("unchosen", "none", False), "encoder")
    problem = problems.separated(recipe, 7, "b", WIDTHS, N_TOKENS, N_CONCEPTS)
    (one, expected), (other, found) = (core_gradients(problem, "b", recipe.replace(aux_every=n), 7) for n in (1, 8))
    assert one == other
    for j, own in expected.items():
        for name, gradient in own.items():
            assert np.array_equal(found[j][name], gradient)


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
def test_a_gradient_step_leaves_the_autoencoder_alone(encoder):
    recipe = recipe_for(encoder, "mse", ("dead", "none", False), "all")
    problem = problems.standard(0, WIDTHS, N_TOKENS, N_CONCEPTS)
    sae = usae.UniversalSAE(N_CONCEPTS, 7, recipe=recipe, seed=0).initialize(WIDTHS)
    sae.partial_fit(problem.batch, encoder="a")
    before = {j: sae.parameters(j) for j in WIDTHS}
    state = [(index, name, sae._autoencoder.read(index, name)) for index in range(3) for name in ("counters", "silent_tokens")]
    sae.gradients(problem.batch, encoder="a")
    for j in WIDTHS:
        for name, value in sae.parameters(j).items():
            np.testing.assert_array_equal(value, before[j][name], err_msg=f"{j} {name}")
    for index, name, value in state:
        np.testing.assert_array_equal(sae._autoencoder.read(index, name), value, err_msg=name)
    assert sae.n_steps_ == 1


@pytest.mark.parametrize("encoder", ["linear", "batchnorm"])
def test_the_problems_are_what_their_names_say(encoder):
    def active(shape, **changes):
        options = {**SHAPES[shape], **changes}
        recipe = recipe_for(encoder, "l1", ("dead", "none", False), "all").replace(aux_every=1)
        k = options.pop("k")
        problem = problems.separated(recipe, k, "b", WIDTHS, N_TOKENS, N_CONCEPTS, **options)
        step, _ = reference.gradients(problem.parameters, problem.batch, "b", recipe, k, problem.dead)
        auxiliary = step.auxiliary if step.auxiliary is not None else torch.zeros_like(step.chosen)
        return step.chosen.sum(1), auxiliary.sum(1), problem.dead

    # A selection by batch gives some tokens more than k, some fewer, and some all that they can have.
    recipe = recipe_for(encoder, "mse", ("dead", "none", False), "all").replace(selection="batchtopk", k_max=8, aux_every=1)
    problem = problems.separated(recipe, 7, "b", WIDTHS, N_TOKENS, N_CONCEPTS)
    step, _ = reference.gradients(problem.parameters, problem.batch, "b", recipe, 7, problem.dead)
    assert step.chosen.sum() == 7 * N_TOKENS
    assert step.chosen.sum(1).min() < 7 and (step.chosen.sum(1) == 8).any()
    # Dead concepts are both among a token's eight that the batch left out and beyond them.
    offered = reference.largest(step.pre, torch.ones_like(step.chosen), 8)
    assert (step.auxiliary & offered).any() and (step.auxiliary & ~offered).any()

    chosen, auxiliary, dead = active("fewer-than-k")
    assert 0 < chosen.min() < 24
    assert 0 < dead.sum() < N_CONCEPTS
    assert auxiliary.max() > 0
    chosen, _, _ = active("token-without-codes")
    assert chosen[0] == 0
    assert chosen.max() == 5
    assert active("k-1")[0].unique().tolist() == [1]
    assert active("k-all")[1].max() == 0  # everything positive is chosen, nothing is left for the auxiliary code
    assert active("nothing-dead")[1].max() == 0
    assert active("everything-dead")[1].min() > 0
