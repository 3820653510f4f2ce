"""Training while the models run: extraction and `usae.UniversalSAE.fit_stream` put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from usae._core.reports import StepReport
from usae._estimator.universal_sae import UniversalSAE
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae.torch._extract import batches
from usae.torch._layers import Grid
from usae.torch._model import Model


def fit(
    sae: UniversalSAE,
    models: Mapping[str, Model],
    images: Any,
    *,
    steps: int | None = None,
    buffer_tokens: int = 65_536,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    validation: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callable[[StepReport], object]] = (),
    checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> UniversalSAE:
    """Train on the activations of models as they are computed; nothing is stored.

    The models run in the background, on a GPU for one, while the autoencoder trains on the CPU. Images are gone through again
    and again until the steps are done, and computed again each time: where they are few, `extract` once.

    Parameters
    ----------
    sae : UniversalSAE
        Learns anew; it is also what is returned.
    models, images, batch_size, grid, crop, dtype
        As for `extract`. Images in a random order train best: tokens mix within `buffer_tokens` only. An iterator, which cannot
        be gone through again, has to last.
    steps, buffer_tokens, validation, callbacks, checkpoint, resume, progress
        As for `UniversalSAE.fit_stream`.

    Returns
    -------
    UniversalSAE
        `sae`; ``sae.stream_report_`` tells whether the models or the training were waited for.

    Raises
    ------
    InvalidInputError
        As `extract` and `UniversalSAE.fit_stream`.
    """
    first = batches(models, images, batch_size=batch_size, grid=grid, crop=crop, dtype=dtype)  # which checks arguments
    stream: Iterable[dict[str, np.ndarray]] = first
    if not isinstance(images, Iterator):
        stream = _Again(lambda: batches(models, images, batch_size=batch_size, grid=grid, crop=crop, dtype=dtype))
    return sae.fit_stream(
        stream,
        steps=steps,
        buffer_tokens=buffer_tokens,
        validation=validation,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )


class _Again:
    """What begins anew whenever it is gone through."""

    def __init__(self, begin: Callable[[], Iterator[dict[str, np.ndarray]]]):
        self._begin = begin

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self._begin()
