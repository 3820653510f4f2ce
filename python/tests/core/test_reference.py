"""The two references against each other and against finite differences: no core involved."""

import itertools

import numpy as np
import pytest
import torch

from reference import problems, published
from reference import step as reference
from usae import recipes

WIDTHS = {"a": 24, "b": 40}


@pytest.mark.slow
def test_the_step_and_the_plain_published_loop_agree_in_float64():
    torch.manual_seed(0)
    saes = {j: published.TopKSAE(width, 50, 4).double() for j, width in WIDTHS.items()}
    plain = published.Training(saes, total_steps=12, warmup_steps=3)
    parameters = {
        j: {**published.to_parameters(sae), "mean": np.zeros(WIDTHS[j]), "scale": np.ones(WIDTHS[j])} for j, sae in saes.items()
    }
    trainer = reference.Trainer(parameters, recipes.published(total_steps=12, warmup_steps=3), k=4)
    random = np.random.default_rng(0)
    for _ in range(30):  # each model's schedule runs through warm-up, decay and past its end
        batch = {j: random.standard_normal((32, width)) for j, width in WIDTHS.items()}
        drawn = str(random.choice(list(WIDTHS)))
        expected = plain.step({j: torch.tensor(x) for j, x in batch.items()}, drawn)
        assert trainer.step(batch, drawn).loss.item() == pytest.approx(expected, rel=1e-10)
    for j, sae in saes.items():
        for name, value in published.to_parameters(sae).items():
            np.testing.assert_allclose(trainer.parameters()[j][name], value, rtol=0, atol=1e-10, err_msg=f"{j} {name}")


@pytest.mark.parametrize(
    ("encoder", "loss", "aux"),
    list(itertools.product(["linear", "batchnorm"], ["l1", "mse"], ["none", "unchosen", "dead"])),
)
def test_gradients_of_the_step_are_its_finite_differences(encoder, loss, aux):
    # A detached target or scale makes the gradient that of another function, so those two fields stay off here.
    recipe = recipes.default(encoder=encoder, loss=loss, aux=aux, aux_scale="none", aux_detach=False, aux_coefficient=0.3)
    problem = problems.separated(recipe, 5, "a", WIDTHS, 40, 70)
    _, gradients = reference.gradients(problem.parameters, problem.batch, "a", recipe, 5, problem.dead)
    random = np.random.default_rng(1)
    # Truncation is O(h^2) and rounding 1e-16 / h; h is small enough that no selection changes along the way.
    h = 1e-7
    for j, own in gradients.items():
        for name, gradient in own.items():
            direction = random.standard_normal(gradient.shape) / np.sqrt(gradient.size)
            losses = []
            for sign in (1, -1):
                moved = {model: dict(p) for model, p in problem.parameters.items()}
                moved[j][name] = np.float64(moved[j][name]) + sign * h * direction
                step, _ = reference.gradients(moved, problem.batch, "a", recipe, 5, problem.dead)
                losses.append(step.loss.item())
            slope = (losses[0] - losses[1]) / (2 * h)
            assert slope == pytest.approx((gradient * direction).sum(), rel=1e-4, abs=1e-7), f"{j} {name}"


def test_ties_go_to_the_lower_concept_and_zeros_are_never_chosen():
    values = torch.tensor([[0.5, 2.0, 2.0, 0.0, 2.0], [-1.0, 0.0, 0.0, 3.0, -2.0]])
    everything = torch.ones_like(values, dtype=torch.bool)
    chosen = reference.largest(values, everything, 2)
    assert chosen.tolist() == [[False, True, True, False, False], [False, False, False, True, False]]


@pytest.mark.parametrize(("schedule", "share"), [("linear", 0.25), ("cosine", 1.0), ("constant", 0.5)])
def test_the_learning_rate_warms_up_holds_and_falls(schedule, share):
    recipe = recipes.default(
        schedule=schedule, decay_share=share, learning_rate=1.0, warmup_learning_rate=0.0,
        final_learning_rate=0.1, warmup_steps=4, total_steps=20,
    )  # fmt: skip
    rates = [reference.learning_rate(recipe, t) for t in range(30)]
    assert rates[:5] == [0, 0.25, 0.5, 0.75, 1]
    last = 1.0 if schedule == "constant" else pytest.approx(0.1)
    assert rates[20:] == [last] * 10
    start = {"linear": 15, "cosine": 4, "constant": 20}[schedule]
    assert rates[4 : start + 1] == [1.0] * (start - 3)
    halfway = {"linear": (17, 1 - 0.9 * 2 / 5), "cosine": (12, 0.55), "constant": (12, 1.0)}[schedule]
    assert rates[halfway[0]] == pytest.approx(halfway[1])
