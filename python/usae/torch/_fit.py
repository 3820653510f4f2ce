"""Training while the models run: extraction combined with `usae.UniversalSAE.fit_stream`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from usae._core.reports import StepReport
from usae._estimator.universal_sae import UniversalSAE
from usae._training.checkpoint_schedule import CheckpointSchedule
from usae.errors import InvalidInputError
from usae.torch._extract import OnError, batches
from usae.torch._layer_output import Grid
from usae.torch._model import Model
from usae.torch._preprocessing import Crop
from usae.torch._reader import SkippedPicture


def fit(
    sae: UniversalSAE,
    models: Mapping[str, Model],
    images: Any,
    *,
    steps: int | None = None,
    buffer_tokens: int = 65_536,
    batch_size: int = 32,
    grid: Grid | int | None = None,
    crop: Crop = False,
    dtype: Literal["float32", "float16"] = "float32",
    validation: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callable[[StepReport], object]] = (),
    checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
    resume: bool = False,
    progress: bool | None = None,
    mask: Any = None,
    on_error: OnError = "raise",
    skipped: list[SkippedPicture] | None = None,
    num_workers: int | None = None,
    prefetch: int | None = None,
    reduce: bool = False,
) -> UniversalSAE:
    """Train on the activations of models as they are computed, without storing them.

    The models run in the background, for example on a GPU, while the autoencoder trains on the CPU. Images are repeated until
    the steps are done, and their activations are computed again each time. If there are few images, `extract` them once
    instead.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder. It is trained from the beginning.
    models, images, batch_size, grid, crop, dtype, on_error, skipped, num_workers, prefetch, reduce
        As for `extract`, except that the default of `dtype` is "float32", and that a picture is left out again, and appended to
        `skipped` again, whenever images are repeated. Images should be in random order, because tokens are
        shuffled only within `buffer_tokens`. An iterator cannot be repeated, so it must have enough images.
    steps, buffer_tokens, validation, callbacks, checkpoint, resume, progress
        As for `UniversalSAE.fit_stream`.
    mask
        Which tokens of each picture count, as for `extract`. Masks are repeated with the images. Default: None.

    Returns
    -------
    UniversalSAE
        The same object, `sae`. ``sae.stream_report_`` shows whether the models or the training is the bottleneck.

    Raises
    ------
    InvalidInputError
        As for `extract` and `UniversalSAE.fit_stream`.
    """

    def begin() -> Iterator[Mapping[str, np.ndarray]]:
        return batches(
            models,
            images,
            batch_size=batch_size,
            grid=grid,
            crop=crop,
            dtype=dtype,
            mask=mask,
            on_error=on_error,
            skipped=skipped,
            num_workers=num_workers,
            prefetch=prefetch,
            reduce=reduce,
        )

    first = begin()  # checks the arguments
    stream: Iterable[Mapping[str, np.ndarray]] = first
    if not isinstance(images, Iterator):
        if isinstance(mask, Iterator):
            raise InvalidInputError(
                f"mask must support iterating again, because images are repeated, got {type(mask).__name__}; give a list or an "
                f"array"
            )
        stream = _Repeatable(begin)
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

    def __init__(self, begin: Callable[[], Iterator[Mapping[str, np.ndarray]]]):
        self._begin = begin

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        return self._begin()
