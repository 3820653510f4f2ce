"""One training step of any recipe, dense and differentiated by autograd.

Notation: N tokens, m concepts, d_j the width of model j. A recipe is any object with the fields of `usae.Recipe`.
Parameters are {model: {"encoder_weight": [m, d], "encoder_bias": [m], "bn_weight": [m], "bn_bias": [m],
"bn_running_mean": [m], "bn_running_var": [m], "dictionary": [m, d], "mean": [d], "scale": [d]}}, as `sae.parameters` gives
them; the `bn_*` ones exist only with the batchnorm encoder.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1
AUXILIARY_TOKENS = 13  # the core's number of the random numbers that choose tokens for AuxK
INPUT_NOISE = 15  # and of those that are added to what encoders read


@dataclass
class Step:
    """What one forward pass computes; tensors keep their graph."""

    x: dict  # {model: [N, d_j]} standardised
    inputs: torch.Tensor  # [N, d] what the encoder reads
    linear: torch.Tensor  # [N, m] W x + b, before BatchNorm
    pre: torch.Tensor  # [N, m]
    chosen: torch.Tensor  # [N, m] bool: the k that are kept
    auxiliary: torch.Tensor | None  # [N, m] bool: those of the auxiliary code
    auxiliary_tokens: torch.Tensor  # [N] bool: the tokens that can have one, over which the auxiliary loss is a mean
    dictionary: dict  # {model: [m, d_j]} with normalised rows
    residual: dict  # {model: [N, d_j]}
    shorter_residuals: dict  # {model: [[N, d_j]]} of the prefixes but the last
    auxiliary_residual: dict  # {model: [N, d_j]}, empty without auxiliary loss
    losses: dict  # {model: scalar} main loss, without weights
    auxiliary_loss: torch.Tensor  # sum over models, before the coefficient
    loss: torch.Tensor


def largest(values, allowed, count):
    """The `count` largest positive entries of each row among the allowed ones, ties to the lower column, as a mask."""
    candidates = torch.where(allowed & (values > 0), values, torch.full_like(values, -math.inf))
    ranked, order = candidates.sort(dim=1, descending=True, stable=True)
    kept = ranked[:, :count] > -math.inf
    return torch.zeros_like(allowed).scatter(1, order[:, :count], kept)


def used(dictionary, recipe):
    norms = dictionary.norm(dim=1, keepdim=True)
    return dictionary / (divisors(norms) if recipe.dictionary_norm == "bounded" else norms + recipe.dictionary_epsilon)


def divisors(norms):
    """Rows that were divided by their norms are as they are, whatever their rounding."""
    return torch.where(norms > 1 + 1e-6, norms, torch.ones_like(norms))


def element_loss(name, residual):
    return residual.abs().mean() if name == "l1" else residual.square().mean()


def aux_count(recipe, n_concepts, k):
    if recipe.aux_k is not None:
        return min(recipe.aux_k, n_concepts)
    return n_concepts // 2 if recipe.aux == "unchosen" else min(math.ceil(2 * k), n_concepts)


def auxiliary_tokens(recipe, n_tokens, number, seed):
    """The tokens that have an auxiliary code after `number` steps, as a mask: one that is drawn of each few."""
    every = recipe.aux_every if recipe.aux == "dead" else 1
    mask = torch.zeros(n_tokens, dtype=torch.bool)
    for group, first in enumerate(range(0, n_tokens, every)):
        high, low, _, _ = philox((group, 0, AUXILIARY_TOKENS, number), seed)
        mask[first + ((high << 32 | low) * min(every, n_tokens - first) >> 64)] = True
    return mask


def philox(counter, seed):
    """Philox4x32-10 (Salmon et al., 2011), four numbers of 32 bits."""
    a, b, c, d = counter
    key = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 ^ b ^ key[0], right & 0xFFFFFFFF, left >> 32 ^ d ^ key[1], left & 0xFFFFFFFF
        key = key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF
    return a, b, c, d


def input_noise(recipe, model, x, number, seed):
    """The noise of a model's tokens after `number` steps: sums of eight bytes, whose deviation is made that of the recipe."""
    noise = torch.zeros_like(x)
    if not recipe.input_noise:  # None is none in single steps
        return noise
    unit = np.float32(recipe.input_noise) * np.float32(0.00478426)
    for row in range(len(x)):
        for c in range(x.shape[1]):
            words = philox((c // 32 * 16 + c % 16, row, INPUT_NOISE | model << 8, number), seed)
            two = words[:2] if c % 32 < 16 else words[2:]
            noise[row, c] = float(unit) * (sum(word >> shift & 255 for word in two for shift in (0, 8, 16, 24)) - 1020)
    return noise


def largest_of_batch(values, k, k_max):
    """The k for each row on average that are the largest positive entries of all rows, at most k_max of a row, as a mask.

    Ties go to the upper row, then to the lower column.
    """
    offered = largest(values, torch.ones_like(values, dtype=torch.bool), k_max)
    entries = torch.where(offered, values, -math.inf).flatten()
    order = entries.sort(descending=True, stable=True).indices[: int(k * len(values))]
    kept = torch.zeros_like(entries, dtype=torch.bool).index_fill(0, order, True).view_as(values)
    return kept & offered


def most_of_a_token(recipe, n_concepts, k):
    """k_max of a recipe."""
    return min(recipe.k_max or math.ceil(4 * k), n_concepts)


def shorter_prefixes(recipe, n_concepts):
    """Numbers of concepts of the prefixes whose losses are averaged, but the last, which is all of them."""
    if recipe.prefix_loss == "drawn":
        return []
    return [math.floor(share * n_concepts + 0.5) for share in (recipe.prefixes or (1,))[:-1]]


def forward(parameters, batch, encoder, recipe, k, dead=None, prefix=None, number=0, seed=0):
    """The loss of the step after `number` others, for tensors `parameters` and `batch` {model: [N, d_j]}.

    `dead` [m] bool is for aux="dead"; `prefix` is the number of concepts that were drawn to reconstruct, None for all.
    """
    x = {j: (a - parameters[j]["mean"]) * (1 / parameters[j]["scale"]) for j, a in batch.items()}
    own = parameters[encoder]
    inputs = x[encoder] + input_noise(recipe, list(parameters).index(encoder), x[encoder], number, seed)
    linear = pre = inputs @ own["encoder_weight"].T + own["encoder_bias"]
    if recipe.encoder == "batchnorm":
        mean, variance = linear.mean(0), linear.var(0, correction=0)
        pre = (linear - mean) / (variance + BN_EPSILON).sqrt() * own["bn_weight"] + own["bn_bias"]
    everything = torch.ones_like(pre, dtype=torch.bool)
    if recipe.selection == "batchtopk":
        chosen = largest_of_batch(pre.detach(), k, most_of_a_token(recipe, pre.shape[1], k))
    else:
        chosen = largest(pre.detach(), everything, k)
    codes = torch.where(chosen, pre, 0)
    is_whole = prefix is None or prefix == pre.shape[1]
    if not is_whole:
        codes = torch.where(torch.arange(pre.shape[1]) < prefix, codes, 0)

    auxiliary = auxiliary_codes = None
    tokens = auxiliary_tokens(recipe, len(pre), number, seed)
    has_auxiliary = recipe.aux == "unchosen" or (recipe.aux == "dead" and dead.any())  # with nothing dead there is none
    if has_auxiliary and is_whole:
        allowed = ~chosen if recipe.aux == "unchosen" else ~chosen & dead
        auxiliary = largest(pre.detach(), allowed & tokens[:, None], aux_count(recipe, pre.shape[1], k))
        auxiliary_codes = torch.where(auxiliary, pre, 0)

    dictionary, residual, shorter_residuals, auxiliary_residual, losses = {}, {}, {}, {}, {}
    auxiliary_loss = pre.new_zeros(())
    for j in batch:
        dictionary[j] = used(parameters[j]["dictionary"], recipe)
        residual[j] = x[j] - codes @ dictionary[j]
        shorter_residuals[j] = [x[j] - codes[:, :end] @ dictionary[j][:end] for end in shorter_prefixes(recipe, pre.shape[1])]
        prefix_losses = [element_loss(recipe.loss, r) for r in (*shorter_residuals[j], residual[j])]
        losses[j] = sum(prefix_losses) / len(prefix_losses)
        if auxiliary is None:
            continue
        target = residual[j].detach() if recipe.aux_detach else residual[j]
        auxiliary_residual[j] = target - auxiliary_codes @ dictionary[j]
        term = element_loss(recipe.loss, auxiliary_residual[j][tokens])
        if recipe.aux_scale == "residual":
            spread = element_loss(recipe.loss, residual[j] - residual[j].mean(0)).detach()
            term = term / spread if spread > 0 else 0 * term
        auxiliary_loss = auxiliary_loss + term
    weights = loss_weights(recipe, encoder, batch)
    loss = sum(weights[j] * losses[j] for j in batch) + recipe.aux_coefficient * auxiliary_loss
    return Step(
        x, inputs, linear, pre, chosen, auxiliary, tokens, dictionary, residual, shorter_residuals, auxiliary_residual, losses,
        auxiliary_loss, loss,
    )  # fmt: skip


def loss_weights(recipe, encoder, models):
    """The weight of each model's main loss: `same_model_weight` for the encoded one, 1 for others, divided by their mean."""
    weights = {j: recipe.same_model_weight if j == encoder else 1.0 for j in models}
    return {j: weight * len(weights) / sum(weights.values()) for j, weight in weights.items()}


def encoder_names(recipe):
    names = ["encoder_weight", "encoder_bias"]
    return names + ["bn_weight", "bn_bias"] if recipe.encoder == "batchnorm" else names


def stepped_names(recipe, models, encoder):
    """{model: names of the tensors that a step with this encoder changes}."""
    names = {j: ["dictionary"] for j in models if recipe.update == "all" or j == encoder}
    names[encoder] = encoder_names(recipe) + names[encoder]
    return names


def to_tensors(parameters, dtype):
    return {j: {n: torch.tensor(np.asarray(v), dtype=dtype) for n, v in p.items()} for j, p in parameters.items()}


def gradients(parameters, batch, encoder, recipe, k, dead=None, dtype=torch.float64, prefix=None, number=0, seed=0):
    """The step after `number` others and its raw gradients {model: {name: array}} for arrays `parameters` and `batch`."""
    tensors = to_tensors(parameters, dtype)
    names = stepped_names(recipe, list(batch), encoder)
    for j, own in names.items():
        for name in own:
            tensors[j][name].requires_grad_()
    data = {j: torch.tensor(np.asarray(a), dtype=dtype) for j, a in batch.items()}
    dead = None if dead is None else torch.tensor(np.asarray(dead))
    step = forward(tensors, data, encoder, recipe, k, dead, prefix, number, seed)
    for intermediate in (step.linear, *(step.dictionary[j] for j in names)):
        intermediate.retain_grad()
    step.loss.backward()
    return step, {j: {name: tensors[j][name].grad.numpy() for name in own} for j, own in names.items()}


def learning_rate(recipe, t, width=1, effective_dimensions=None):
    """The rate of a model in the step with schedule index `t`, counted from 0."""
    base, final, total, warmup = (
        recipe.learning_rate, recipe.final_learning_rate, recipe.total_steps, recipe.warmup_steps,
    )  # fmt: skip
    if recipe.step_limit is not None:
        base = min(base, recipe.step_limit * math.sqrt(max(32, effective_dimensions or width)) / width)
    if t == 0 and recipe.first_step_full:
        return base
    if t < warmup:
        steps = max(1, warmup - 1) if recipe.warmup_inclusive else warmup
        return recipe.warmup_learning_rate + (base - recipe.warmup_learning_rate) * t / steps
    if total is None or recipe.schedule == "constant":
        return base
    start = max(warmup, math.floor(total * (1 - recipe.decay_share)))
    if t < start:
        return base
    progress = min((t - start) / (total - start), 1) if total > start else 1.0
    if recipe.schedule == "linear":
        return base + (final - base) * progress
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2


class Trainer:
    """Steps of any recipe with `torch.optim.AdamW`, one optimiser for each (model, encoder) and (model, dictionary)."""

    def __init__(self, parameters, recipe, k, dead_tokens=0, dtype=torch.float64, seed=0):
        self.recipe, self.k, self.dead_tokens, self.dtype, self.seed = recipe, k, dead_tokens, dtype, seed
        self.tensors = to_tensors(parameters, dtype)
        self.steps = 0
        self.draws = dict.fromkeys(parameters, 0)
        self.silent = {
            j: torch.zeros(p["dictionary"].shape[0], dtype=torch.int64) for j, p in self.tensors.items()
        }  # fmt: skip
        self.optimizers = {}
        for j, p in self.tensors.items():
            for part, names in (("encoder", encoder_names(recipe)), ("dictionary", ["dictionary"])):
                self.optimizers[j, part] = torch.optim.AdamW(
                    [p[name].requires_grad_() for name in names],
                    betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, weight_decay=recipe.weight_decay,
                )  # fmt: skip

    def step(self, batch, encoder, prefix=None):
        """One step on arrays `batch`, of the first `prefix` concepts; the Step of its forward pass."""
        recipe = self.recipe
        data = {j: torch.tensor(np.asarray(a), dtype=self.dtype) for j, a in batch.items()}
        dead = self.silent[encoder] >= self.dead_tokens if self.dead_tokens > 0 else self.silent[encoder] < 0
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        step = forward(self.tensors, data, encoder, recipe, self.k, dead, prefix, self.steps, self.seed)
        step.loss.backward()

        names = stepped_names(recipe, list(batch), encoder)
        t = self.steps if recipe.clock == "global" else self.draws[encoder]
        for j, own in names.items():
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_([self.tensors[j][name] for name in own], recipe.clip_norm)
            for part in ("encoder", "dictionary") if j == encoder else ("dictionary",):
                self.optimizers[j, part].param_groups[0]["lr"] = learning_rate(recipe, t, batch[j].shape[-1])
                self.optimizers[j, part].step()
            if recipe.renormalize:
                with torch.no_grad():
                    norms = self.tensors[j]["dictionary"].norm(dim=1, keepdim=True)
                    self.tensors[j]["dictionary"].div_(divisors(norms) if recipe.dictionary_norm == "bounded" else norms)
        if recipe.encoder == "batchnorm":
            self._follow_statistics(encoder, step.linear.detach())
        fired = step.chosen.any(0)
        self.silent[encoder] = torch.where(fired, 0, self.silent[encoder] + len(step.pre))
        self.steps += 1
        self.draws[encoder] += 1
        return step

    def _follow_statistics(self, encoder, linear):
        own = self.tensors[encoder]
        for name, now in (("bn_running_mean", linear.mean(0)), ("bn_running_var", linear.var(0, correction=1))):
            own[name] = (1 - BN_MOMENTUM) * own[name] + BN_MOMENTUM * now

    def parameters(self):
        return {j: {n: t.detach().numpy().copy() for n, t in p.items()} for j, p in self.tensors.items()}
