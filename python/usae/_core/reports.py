"""Reports of a training step and of training on a stream."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple


class Screening(NamedTuple):
    """How much work int8 screening left to do in a step; see "Screening" in docs/method.md."""

    tokens: int
    """Tokens whose pre-activations were first estimated with int8 products."""
    candidates: int
    """Concepts that the estimates could not rule out, summed over all tokens."""
    computed: int
    """Pre-activations that were then computed in float32."""
    fallbacks: int
    """Tokens whose estimates have no error bound, so that all their pre-activations were computed."""


@dataclasses.dataclass(frozen=True)
class StepReport:
    """Losses and counts of one training step.

    Attributes
    ----------
    step : int
        Number of steps done, this one included.
    encoder : str
        Name of the model that was encoded, or of the first where there are several (`Recipe.encoded_models`).
    loss : float
        Total loss, with the auxiliary loss and the agreement; a mean over the encoded models.
    auxiliary_loss : float
        Auxiliary loss before it is multiplied by `Recipe.aux_coefficient`.
    l0 : float
        Mean number of active concepts of a token.
    learning_rate : float
        Learning rate of `encoder` in this step.
    gradient_norm : float
        Norm of `encoder`'s gradients before clipping. NaN if the step does not need it.
    dead : int
        Number of concepts that were dead in `encoder` before this step.
    prefix : int
        Number of concepts that took part in the reconstruction: all, or the first ones if the recipe draws a prefix for each
        step. The losses are those of this reconstruction.
    losses : dict of str to float
        Main loss of each decoded model, a mean over the encoded models, without weights (`Recipe.same_model_weight`). NaN for
        models that the batch does not have.
    encoders : tuple of str
        Names of all models that were encoded.
    own_losses : dict of str to float
        Main loss of each encoded model, decoded to itself.
    agreement : float
        How far the encoded models' codes differ, before it is multiplied by `Recipe.agreement`. 0 if the loss does not have
        this term.
    screening : Screening or None
        How the code was found; None without screening. It is not in `to_dict`, because the code, and so the training, is the
        same either way.
    """

    step: int
    encoder: str
    loss: float
    auxiliary_loss: float
    l0: float
    learning_rate: float
    gradient_norm: float
    dead: int
    prefix: int
    losses: dict[str, float]
    encoders: tuple[str, ...] = ()
    own_losses: dict[str, float] = dataclasses.field(default_factory=dict)
    agreement: float = 0.0
    screening: Screening | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.encoders:
            object.__setattr__(self, "encoders", (self.encoder,))
            object.__setattr__(self, "own_losses", {self.encoder: self.losses[self.encoder]})

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, without `screening`.

        `encoders`, `own_losses` and `agreement` are left out where one model was encoded.
        """
        values = dataclasses.asdict(self)
        del values["screening"]
        if len(self.encoders) == 1:
            return {name: value for name, value in values.items() if name not in OF_SEVERAL}
        return values | {"encoders": list(self.encoders)}


OF_SEVERAL = ("encoders", "own_losses", "agreement")
"""Attributes of a report that its dictionary has only where several models were encoded."""


@dataclasses.dataclass(frozen=True)
class StreamReport:
    """How `UniversalSAE.fit_stream` spent its time. It is counted from the first batch on, or from where a run was resumed.

    Attributes
    ----------
    steps : int
        Number of training steps.
    tokens : int
        Number of rows that were trained on.
    tokens_read : int
        Number of rows that were taken from the batches, including the first sample and what is left in the buffer. Rows that
        do not count by a mask are not among them.
    epochs : int
        How often iterating over the batches was started.
    seconds : float
        Duration in seconds.
    waited_for_data, waited_for_training : float
        Seconds in which training waited for data, and in which the thread that makes the data waited for training.
    rows_left_out : int
        Number of rows of the batches that do not count by their masks. Default: 0.
    """

    steps: int
    tokens: int
    tokens_read: int
    epochs: int
    seconds: float
    waited_for_data: float
    waited_for_training: float
    rows_left_out: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Rows that were trained on, per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def share_waiting_for_data(self) -> float:
        """Share of the time, 0 to 1, in which training waited. Near 1, the models that make the batches are the bottleneck."""
        return self.waited_for_data / self.seconds if self.seconds else 0.0

    @property
    def share_waiting_for_training(self) -> float:
        """Share of the time, 0 to 1, in which the data waited. Near 1, training is the bottleneck."""
        return self.waited_for_training / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """One line of text: steps, tokens per second, rows that masks leave out, and who waited for whom."""
        masked = f" ({self.rows_left_out:,} more rows left out)" if self.rows_left_out else ""
        return (
            f"{self.steps} steps, {self.tokens_per_second:,.0f} tokens/s{masked}; training waited for data "
            f"{self.share_waiting_for_data:.0%} of the time, data for training {self.share_waiting_for_training:.0%}"
        )
