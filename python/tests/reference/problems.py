"""Small training problems, and the distance of a problem from the places where float32 and float64 may part ways.

Selection and the sign of an L1 residual are discontinuous: a float32 step may choose another concept, or another sign, than
float64 wherever two pre-activations, or a residual and zero, lie closer than rounding. Such a step is not wrong, but its
gradient differs by far more than 1e-4. `separated` therefore walks seeds until every such distance of the problem exceeds the
worst-case rounding of a float32 implementation; the test then compares like with like, and has lost nothing, because
discontinuities have measure zero.
"""

from dataclasses import dataclass

import numpy as np
import torch

from . import step as reference

UNIT = 2.0**-24  # relative rounding error of one float32 operation


@dataclass
class Problem:
    parameters: dict  # {model: {name: float32 array}}
    batch: dict  # {model: float32 [N, d_j]}
    dead: np.ndarray  # [m] bool


def standard(seed, widths, n_tokens, n_concepts, *, positive=0.5, zero_token=False, dead=0.3):
    """Random parameters and correlated activations.

    `positive` is about the share of positive pre-activations; `zero_token` makes token 0 the one without any.
    """
    random = np.random.default_rng(seed)
    shared = random.standard_normal((n_tokens, 8))
    batch, parameters = {}, {}
    shift = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(positive, dtype=torch.float64)))
    for name, width in widths.items():
        x = shared @ random.standard_normal((8, width)) / np.sqrt(8) + 0.5 * random.standard_normal((n_tokens, width))
        mean, scale = random.normal(0, 0.3, width), np.exp(random.normal(0, 0.2, width))
        if zero_token:
            # The token lies near the mean of the others: its pre-activations are close to the biases (linear) or to bn_bias
            # (batchnorm), and both are negative.
            x -= x[1:].mean(0)
            x[0] *= 0.05
        weight = random.standard_normal((n_concepts, width)) / np.sqrt(width)
        low = -1.0 if zero_token else 0.0
        parameters[name] = {
            "mean": mean,
            "scale": scale,
            "encoder_weight": weight,
            "encoder_bias": random.normal(shift + low, 0.05, n_concepts),
            "bn_weight": random.uniform(0.7, 1.3, n_concepts),
            "bn_bias": random.normal(shift + low, 0.05, n_concepts),
            "bn_running_mean": random.normal(0, 0.1, n_concepts),
            "bn_running_var": random.uniform(0.5, 2, n_concepts),
            "dictionary": random.standard_normal((n_concepts, width)) * random.uniform(0.5, 2, (n_concepts, 1)),
        }
        batch[name] = x * scale + mean
    as_float32 = {j: {n: np.float32(v) for n, v in p.items()} for j, p in parameters.items()}
    return Problem(as_float32, {j: np.float32(a) for j, a in batch.items()}, random.random(n_concepts) < dead)


def is_separated(problem, encoder, recipe, k, prefix=None, seed=0):
    """Whether no decision of the step could be turned by the rounding of a float32 implementation."""
    tensors = reference.to_tensors(problem.parameters, torch.float64)
    data = {j: torch.tensor(a, dtype=torch.float64) for j, a in problem.batch.items()}
    recipe = recipe.replace(aux_every=1)  # so that the step may teach dead concepts by any tokens
    step = reference.forward(tensors, data, encoder, recipe, k, torch.tensor(problem.dead), prefix, seed=seed)
    error = preactivation_error(tensors[encoder], step, step.inputs, recipe)

    n_concepts = step.pre.shape[1]
    everything = torch.ones_like(step.chosen)
    if recipe.selection == "batchtopk":
        k_max = reference.most_of_a_token(recipe, n_concepts, k)
        offered = reference.largest(step.pre, everything, k_max)
        safe = [selection_is_safe(step.pre, error, offered, everything, k_max)]
        as_one = (t.reshape(1, -1) for t in (step.pre, error, step.chosen, offered))
        safe.append(selection_is_safe(*as_one, int(k * len(step.pre))))
    else:
        safe = [selection_is_safe(step.pre, error, step.chosen, everything, k)]
    if step.auxiliary is not None:
        allowed = ~step.chosen if recipe.aux == "unchosen" else ~step.chosen & torch.tensor(problem.dead)
        count = reference.aux_count(recipe, n_concepts, k)
        safe.append(selection_is_safe(step.pre, error, step.auxiliary, allowed, count))
    if recipe.loss == "l1":
        for j, residual in step.residual.items():
            dictionary = step.dictionary[j].abs()
            used = step.chosen if prefix is None else step.chosen & (torch.arange(n_concepts) < prefix)
            safe.append(signs_are_safe(step, error, used, dictionary, step.x[j], residual))
            for end, shorter in zip(reference.shorter_prefixes(recipe, n_concepts), step.shorter_residuals[j], strict=True):
                within = step.chosen & (torch.arange(n_concepts) < end)
                safe.append(signs_are_safe(step, error, within, dictionary, step.x[j], shorter))
            if step.auxiliary is not None:
                both, residual = step.chosen | step.auxiliary, step.auxiliary_residual[j]
                safe.append(signs_are_safe(step, error, both, dictionary, step.x[j], residual))
    return all(safe)


def preactivation_error(own, step, x, recipe):
    """Bound on the rounding of each pre-activation, [N, m].

    An exact dot product of d multiply-adds errs by at most d u sum |w x|; standardisation adds three roundings to x, the bias
    one.
    """
    error = UNIT * (x.shape[1] + 4) * (x.abs() @ own["encoder_weight"].abs().T + own["encoder_bias"].abs())
    if recipe.encoder == "linear":
        return error
    # BatchNorm's mean and standard deviation err by no more than the pre-activations do; sigma's error is multiplied by
    # |xhat|. The last operations round a few times more.
    inverse = 1 / (step.linear.var(0, correction=0) + reference.BN_EPSILON).sqrt()
    normalized = (step.linear - step.linear.mean(0)) * inverse
    of_statistics = error.mean(0) * inverse * (1 + normalized.abs())
    error = own["bn_weight"].abs() * (error * inverse + of_statistics)
    return error + 8 * UNIT * (step.pre.abs() + own["bn_bias"].abs())


def selection_is_safe(pre, error, kept, allowed, count):
    """Whether kept entries stay above zero and their rivals, and rivals below zero where they would have a slot."""
    lowest_kept = torch.where(kept, pre - error, torch.inf).amin(1)
    highest_rival = torch.where(allowed & ~kept, pre + error, -torch.inf).amax(1)
    unfilled = kept.sum(1) < count
    safe = (lowest_kept > 0) & (lowest_kept > highest_rival) & (~unfilled | (highest_rival < 0))
    return bool(safe.all())


def signs_are_safe(step, error, active, dictionary, x, residual):
    codes = torch.where(active, step.pre, 0)
    rounding = (active.sum(1).amax() + 6) * UNIT * (x.abs() + codes.abs() @ dictionary)
    rounding = rounding + torch.where(active, error, 0) @ dictionary
    return bool((residual.abs() > rounding).all())


def separated(recipe, k, encoder, widths, n_tokens, n_concepts, prefix=None, **options):
    """The first seed's problem that is safely away from every discontinuity."""
    for seed in range(400):
        problem = standard(seed, widths, n_tokens, n_concepts, **options)
        if is_separated(problem, encoder, recipe, k, prefix):
            return problem
    raise AssertionError("no seed separates the problem; it is too large for its rounding")


def mixtures(seed, widths, n_tokens, n_factors=96, active=6, noise=0.1):
    """Activations of models that see the same sparse factors: {model: float32 [n_tokens, d]}."""
    random = np.random.default_rng(seed)
    strength = np.zeros((n_tokens, n_factors))
    for token in range(n_tokens):
        strength[token, random.choice(n_factors, active, replace=False)] = random.gamma(4.0, 0.5, active)
    result = {}
    for name, width in widths.items():
        directions = random.standard_normal((n_factors, width)) / np.sqrt(width)
        x = strength @ directions + noise * random.standard_normal((n_tokens, width))
        result[name] = np.float32(x)
    return result
