"""A baseline of the same networks with random weights.

Trained on their activations, an autoencoder comes near one of trained networks on the usual scores (Heap et al., arXiv
2501.17727), so a score that it reaches says nothing about what the networks have learned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from usae._data.activations import Activations, as_aligned, mask_of
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis.consistency import planned_steps, untrained_like
from usae.analysis.evaluation import Evaluation
from usae.errors import InvalidInputError

logger = logging.getLogger("usae")


class Untrained(NamedTuple):
    """Activations of networks with random weights, in the order of the autoencoder's models, to evaluate and to train on."""

    acts: dict[str, Activations]
    train: dict[str, Activations]
    given: Mapping[str, Any]


def checked_untrained(sae: UniversalSAE, acts: object, train: object, mask: object, train_mask: object) -> Untrained | None:
    """Check the arguments `untrained` and `untrained_train` of `usae.controls`. None if neither is given.

    Raises
    ------
    InvalidInputError
        If one of the two is missing, and for activations that are not those of the autoencoder's models: of other names, widths
        or labels of columns, or that are not finite.
    """
    if acts is None and train is None:
        return None
    for argument, given, other in (("untrained", acts, "untrained_train"), ("untrained_train", train, "untrained")):
        if given is None:
            raise InvalidInputError(
                f"{argument} must be given where {other} is, got None; give activations of the untrained networks of what is "
                f"evaluated and of what is trained on"
            )
    autoencoder = sae._initialized()
    found = as_aligned(acts, "untrained", autoencoder.columns, mask)
    learned = as_aligned(train, "untrained_train", autoencoder.columns, train_mask, mask_argument="train_mask")
    try:
        autoencoder.check_finite(learned)
    except InvalidInputError as error:
        error.add_note("These activations are those of the argument 'untrained_train'.")
        raise
    return Untrained(found, learned, {name: train[name] for name in learned})  # type: ignore[index]


def train_untrained(
    sae: UniversalSAE, found: Untrained, steps: int | None, threshold: float, progress: bool | None
) -> Evaluation:
    """Train an autoencoder like `sae` on activations of untrained networks, as `fit` does, and evaluate it on others."""
    logger.info("training on untrained networks")
    control = untrained_like(sae, steps, sae._initialized().seed)
    control.fit(found.given, steps=planned_steps(sae, steps), progress=progress, mask=mask_of(found.train))
    return control._evaluated(found.acts, threshold, progress)
