"""Training while the models run: extraction combined with `usae.UniversalSAE.fit_stream`."""

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
    """Train on the activations of models as they are computed, without storing them.

    The models run in the background, for example on a GPU, while the autoencoder trains on the CPU. Images are repeated until
    the steps are done, and their activations are computed again each time. If there are few images, `extract` them once
    instead.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder. It is trained from the beginning.
    models, images, batch_size, grid, crop, dtype
        As for `extract`, except that the default of `dtype` is "float32". Images should be in random order, because tokens are
        shuffled only within `buffer_tokens`. An iterator cannot be repeated, so it must have enough images.
    steps, buffer_tokens, validation, callbacks, checkpoint, resume, progress
        As for `UniversalSAE.fit_stream`.

    Returns
    -------
    UniversalSAE
        The same object, `sae`. ``sae.stream_report_`` shows whether the models or the training is the bottleneck.

    Raises
    ------
    InvalidInputError
        As for `extract` and `UniversalSAE.fit_stream`.
    """
    first = batches(models, images, batch_size=batch_size, grid=grid, crop=crop, dtype=dtype)  # checks the arguments
    stream: Iterable[dict[str, np.ndarray]] = first
    if not isinstance(images, Iterator):
        stream = _Repeatable(lambda: batches(models, images, batch_size=batch_size, grid=grid, crop=crop, dtype=dtype))
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


class _Repeatable:
    """An iterable that starts again whenever it is iterated over."""

    def __init__(self, begin: Callable[[], Iterator[dict[str, np.ndarray]]]):
        self._begin = begin

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self._begin()
