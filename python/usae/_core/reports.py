"""What training reports: of a step, and of a stream."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple


class Screening(NamedTuple):
    """What screening with bytes left to do in a step; see "Screening" in docs/method.md."""

    tokens: int
    """Tokens whose pre-activations were estimated from bytes first."""
    candidates: int
    """Concepts that the estimates could not rule out, over all tokens."""
    computed: int
    """Pre-activations then computed in float32."""
    fallbacks: int
    """Tokens for which the estimates said nothing."""


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one training step did.

    Attributes
    ----------
    step : int
        Steps done, this one included.
    encoder : str
        The model that was encoded.
    loss : float
        The whole loss, auxiliary part included.
    auxiliary_loss : float
        Its auxiliary part, before the coefficient.
    l0 : float
        Mean number of active concepts in a token.
    learning_rate : float
        Of this step.
    gradient_norm : float
        Of the encoded model before clipping; NaN where the step does not need it.
    dead : int
        Concepts that were dead in the encoded model before this step.
    prefix : int
        Concepts that had to reconstruct: all, or the first of them where the recipe draws a prefix for each step; the losses
        are those of what they reconstruct.
    losses : dict of str to float
        Main loss of each decoded model.
    screening : Screening or None
        How the code was found. Not in `to_dict`: the code, and so the training, is the same either way.
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
    screening: Screening | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain Python values, without `screening`."""
        values = dataclasses.asdict(self)
        del values["screening"]
        return values


@dataclasses.dataclass(frozen=True)
class StreamReport:
    """How `UniversalSAE.fit_stream` spent its time, from the first batch on; of a run that was resumed, since then.

    Attributes
    ----------
    steps : int
        Training steps.
    tokens : int
        Rows that were trained on.
    tokens_read : int
        Rows that were taken from the batches, those of the first sample and those left in the buffer included.
    epochs : int
        How often the batches were begun.
    seconds : float
    waited_for_data, waited_for_training : float
        Seconds in which training waited for data, and in which the thread that makes data waited for training.
    """

    steps: int
    tokens: int
    tokens_read: int
    epochs: int
    seconds: float
    waited_for_data: float
    waited_for_training: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def share_waiting_for_data(self) -> float:
        """Of the time, 0 to 1: near 1, the models that make the batches are the bottleneck."""
        return self.waited_for_data / self.seconds if self.seconds else 0.0

    @property
    def share_waiting_for_training(self) -> float:
        """Of the time, 0 to 1: near 1, training is the bottleneck."""
        return self.waited_for_training / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        return (
            f"{self.steps} steps, {self.tokens_per_second:,.0f} tokens/s; training waited for data "
            f"{self.share_waiting_for_data:.0%} of the time, data for training {self.share_waiting_for_training:.0%}"
        )
