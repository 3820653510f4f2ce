"""When a run is saved while it trains, and the check of the arguments `checkpoint` and `resume`."""

from __future__ import annotations

import dataclasses
import os

from usae._base import checks
from usae._files import disk
from usae.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class CheckpointSchedule:
    """Where and how often the whole state of training is saved. `usae.Checkpoints` adds reading to it."""

    path: str | os.PathLike[str]
    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        disk.folder_of(self.path)
        if self.every_steps is not None:
            checks.integer(self.every_steps, "every_steps", 1, 2**53, " or None")
        if self.every_minutes is not None and checks.real(self.every_minutes, "every_minutes", _MINUTES) == 0:
            raise InvalidInputError(f"every_minutes must be {_MINUTES}, got {checks.shown(self.every_minutes)}")
        checks.integer(self.keep, "keep", 1, 2**31)


_MINUTES = "a number above 0, or None"


def as_schedule(checkpoint: object, resume: object) -> CheckpointSchedule | None:
    """Check the arguments `checkpoint` and `resume` of `UniversalSAE.fit`, and return the schedule."""
    if not isinstance(resume, bool):
        raise InvalidInputError(f"resume must be True or False, got {disk.shortened(resume)}; the folder is `checkpoint`")
    if checkpoint is None:
        if resume:
            raise InvalidInputError("checkpoint must be given with resume=True, got None; name the folder of the run")
        return None
    if isinstance(checkpoint, CheckpointSchedule):
        return checkpoint
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise InvalidInputError(f"checkpoint must be a path, usae.Checkpoints or None, got {disk.shortened(checkpoint)}")
    return CheckpointSchedule(checkpoint)
