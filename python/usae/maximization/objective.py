"""Objectives of activation maximization: how strongly activations of a model show a concept."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from usae import _usae
from usae._base import checks
from usae._data.activations import as_activations
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.errors import InvalidInputError

Objective = Literal["alignment", "preactivation", "code", "logsumexp"]

OBJECTIVES = {
    "alignment": _usae.OBJECTIVE_ALIGNMENT,
    "preactivation": _usae.OBJECTIVE_PREACTIVATION,
    "code": _usae.OBJECTIVE_CODE,
    "logsumexp": _usae.OBJECTIVE_LOG_SUM_EXP,
}


def objective(
    sae: UniversalSAE,
    activations: Any,
    model: str,
    concept: int,
    *,
    kind: Objective = "alignment",
    power: float = 2.0,
    token: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute how strongly activations of a model show a concept, and the gradient with respect to the activations.

    Let a be the standardised token and w the concept's encoder row, with BatchNorm folded in.

    ===============  ====================================================================================================
    kind             value of a token
    ===============  ====================================================================================================
    "alignment"      (a . w) max(0.1, cos(a, w))^power. The token must point in the concept's direction; tokens of large
                     norm, which fire many concepts, gain little.
    "preactivation"  a . w + bias, the input of ReLU and of the selection
    "code"           the code, which is 0 and has no gradient if the concept is not selected
    "logsumexp"      a soft maximum of "preactivation" over the tokens, instead of their mean
    ===============  ====================================================================================================

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    activations : array, [views, tokens, width]
        Activations of the model, in the model's own units.
    model : str
        Name of the model.
    concept : int
        Number of the concept.
    kind : "alignment", "preactivation", "code" or "logsumexp"
        Objective, see the table. Default: "alignment".
    power : float
        Exponent of "alignment", from 0 to 100. Default: 2.0.
    token : int, optional
        The one token of each view that counts. Default: None, which takes the mean over all tokens.

    Returns
    -------
    values : ndarray of float64, [views]
        Value of each view.
    gradient : ndarray of float32, [views, tokens, width]
        Gradient of the mean of the values.

    Raises
    ------
    InvalidInputError
        For an unknown model, concept, kind or token, and for activations of another width or with NaN.
    """
    autoencoder = checked_sae(sae)._initialized()
    index = autoencoder.index(model)
    concept = checks.integer(concept, "concept", 0, autoencoder.n_concepts - 1)
    check_kind(kind)
    power = check_power(power)
    try:
        shape = np.shape(activations)
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(
            f"activations must be an array [views, tokens, width], got {checks.shown(activations)}: {error}"
        ) from error
    if len(shape) != 3 or 0 in shape:
        raise InvalidInputError(f"activations must be [views, tokens, width], got shape {list(shape)}")
    if shape[2] != autoencoder.widths[model]:
        raise InvalidInputError(
            f"activations of {model!r} must be {autoencoder.widths[model]} wide, got {shape[2]}; use the layer that the "
            f"autoencoder was trained on"
        )
    if token is not None:
        token = checks.integer(token, "token", 0, shape[1] - 1)
    values = np.empty(shape[0])
    gradient = np.empty((shape[0] * shape[1], shape[2]), np.float32)
    given = as_activations(activations, f"activations of {model!r}")
    autoencoder.columns[model].check(given.labels, given.label, "activations")
    selected = -1 if token is None else token
    try:
        autoencoder.core.objective(
            index, concept, OBJECTIVES[kind], power, selected, shape[0], given.native, values, gradient
        )  # fmt: skip
    except InvalidInputError as error:
        bad = np.argwhere(~np.isfinite(given.array)) if not given.bfloat16 else np.empty((0, 3), int)
        if not len(bad):
            raise
        where = f"view {bad[0, 0]}, token {bad[0, 1]}"
        raise InvalidInputError(
            f"activations of {model!r} must be finite, got {given.array[tuple(bad[0])]} in {where}; look at the model's "
            f"numbers, float16 overflows easily"
        ) from error
    return values, gradient.reshape(shape)


def check_kind(kind: object) -> None:
    if not isinstance(kind, str) or kind not in OBJECTIVES:
        raise InvalidInputError(f"kind must be one of {', '.join(OBJECTIVES)}, got {checks.shown(kind)}")


def check_power(power: object) -> float:
    number = checks.real(power, "power", "a number from 0 to 100")
    if number > 100:
        raise InvalidInputError(f"power must be a number from 0 to 100, got {checks.shown(power)}")
    return number
