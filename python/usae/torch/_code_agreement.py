"""How many of an encoder module's codes are the core's, and whether the others differ by rounding alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from usae._base import checks
from usae._base.tensors import on_cpu
from usae._estimator.codes import Codes
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Encoder

ROWS_AT_ONCE = 2048

SAFETY = 1.02
"""Covers what the bound on rounding leaves out: terms of second order, and rounding in the norms themselves."""


class CodeAgreement(NamedTuple):
    """How the codes of an encoder module agree with those of the core.

    Attributes
    ----------
    n_tokens : int
        Number of tokens that were compared.
    same : float
        Share of tokens with the same concepts in both codes.
    within_rounding : float
        Share of tokens with other concepts, all of which are as close to the limit of the selection as rounding can explain.
    beyond : float
        Share of the other tokens. It is 0 unless something else than rounding in the type of the product is at work.
    largest_difference : float
        Largest difference of the values of a concept that both codes have, relative to the token's largest value.
    """

    n_tokens: int
    same: float
    within_rounding: float
    beyond: float
    largest_difference: float


def code_agreement(sae: UniversalSAE, encoder: Encoder, x: Tensor, model: str) -> CodeAgreement:
    """Compare the codes of an encoder module with those of `UniversalSAE.encode`.

    Call it as you encode, for example within `torch.autocast` and on a GPU, to see what that changes.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    encoder : Encoder
        Its encoder of the model, on any device.
    x : Tensor, [..., width]
        Activations of the model, on the device of the encoder.
    model : str
        Name of the model.

    Returns
    -------
    CodeAgreement
        Shares of tokens, and the largest difference of values.

    Raises
    ------
    InvalidInputError
        As for `UniversalSAE.encode`, and for an encoder of other sizes.

    Notes
    -----
    With u the unit of rounding of the product's type, v that of float32 and d the width, a pre-activation of a token x and an
    encoder row w differs from the exact one by at most (3 u + (d + 32) v) (|b| + |x| |w|): inputs and result are rounded to the
    type of the product, and sums are in float32. A difference is called rounding if it is at most that of both computations.
    """
    known = checked_sae(sae)
    if not isinstance(encoder, Encoder):
        raise InvalidInputError(f"encoder must be a usae.torch.Encoder, got {type(encoder).__name__}")
    sizes = known._initialized().widths.get(model, encoder.width), known._initialized().n_concepts
    if (encoder.width, encoder.n_concepts) != sizes:
        raise InvalidInputError(
            f"encoder must have the sizes of model {checks.shown(model)}, width {sizes[0]} and {sizes[1]} concepts, got "
            f"{encoder.width} and {encoder.n_concepts}"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim:
        raise InvalidInputError(
            f"x must be a tensor of floats [..., {encoder.width}] on the device of the encoder, got {checks.shown(x)}"
        )
    counts, largest = np.zeros(3, np.int64), 0.0
    for rows in x.reshape(-1, x.shape[-1]).split(ROWS_AT_ONCE):
        expected = known.encode(rows, model)
        with torch.no_grad():
            found = encoder.sparse(rows)
        differing, difference = _differing(Codes(found.values.float(), found.indices, found.n_concepts), expected)
        beyond = np.zeros(0, bool)
        if differing.size:
            some = rows[torch.from_numpy(differing).to(rows.device)]
            beyond = _beyond_rounding(known, encoder, some, model, found.values.dtype, expected[differing])
        counts += (len(expected) - len(differing), np.sum(~beyond), np.sum(beyond))
        largest = max(largest, difference)
    n = int(counts.sum())
    same, within, beyond_share = (counts / n).tolist() if n else (float("nan"),) * 3
    return CodeAgreement(n, same, within, beyond_share, largest)


def _differing(found: Codes, expected: Codes) -> tuple[np.ndarray, float]:
    """Return the tokens that have other concepts, and the largest relative difference where both have a concept."""
    if not len(expected):
        return np.zeros(0, np.int64), 0.0
    ours, theirs = found.to_csr(), expected.to_csr()
    has, had = ours.astype(bool), theirs.astype(bool)
    differing = np.flatnonzero(np.asarray((has != had).sum(1)).ravel())
    both = abs(ours.multiply(had) - theirs.multiply(has))
    size = expected.values.max(1, initial=0)
    relative = both.max(1).toarray().ravel() / np.where(size > 0, size, 1) if expected.k else np.zeros(1)
    return differing, float(relative.max())


def _beyond_rounding(
    sae: UniversalSAE, encoder: Encoder, x: Tensor, model: str, of_product: torch.dtype, expected: Codes
) -> np.ndarray:
    """Return for each token whether a concept that one code alone has is farther from the limit of the selection."""
    exact = sae.preactivations(on_cpu(x), model).astype(float)
    with torch.no_grad():
        ours = encoder.sparse(x).to_dense().float().cpu().numpy() > 0
        norms = encoder.standardized(x).double().norm(dim=1).cpu().numpy()
        rows = encoder.weight.double().norm(dim=1).cpu().numpy()
        constants = encoder.bias.double().abs().cpu().numpy()
    unit, single = (torch.finfo(kind).eps / 2 for kind in (of_product, torch.float32))
    share = SAFETY * (3 * unit + (encoder.width + 32) * single)
    bound = 2 * share * (constants + norms[:, None] * rows)
    theirs = expected.to_dense() > 0
    smallest = np.where(theirs, exact, np.inf).min(1)
    threshold = encoder.threshold.double().cpu().numpy()  # one, or one for each concept
    full = theirs.sum(1, keepdims=True) >= encoder.k
    limit = np.where(full, np.maximum(smallest[:, None], threshold), threshold)
    other = ours != theirs
    of_limit = np.where(theirs, bound, 0).max(1, keepdims=True)
    return (other & (abs(exact - limit) > bound + of_limit)).any(1)
