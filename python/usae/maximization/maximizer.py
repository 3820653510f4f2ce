"""An image that is optimised while the loop stays in the user's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae.errors import InvalidInputError
from usae.maximization.image_models import check_size_known, deviations, sides, three

PARAMETRIZATIONS = {"phase": _usae.IMAGE_PHASE, "fourier": _usae.IMAGE_SPECTRUM, "pixels": _usae.IMAGE_PIXELS}
OPTIMIZERS = {"nadam": _usae.ASCENT_NADAM, "adam": _usae.ASCENT_ADAM}
LEARNING_RATES = {"phase": 0.3, "fourier": 0.3, "pixels": 0.05}


class Maximizer:
    """One image, optimised by asking for views and telling the gradient of what is to be maximised.

    Views are random crops of the canvas, resized without aliasing to what a model takes, with a little noise. They depend on
    the seed and the step alone: maximizers of one seed start from the same image and show the same crops, so that what differs
    between their images differs between the models (coordinated activation maximization, Thasarathan et al., ICML 2025,
    section 3.3).

    Parameters
    ----------
    models : model, or mapping of str to model
        Anything with `size`, `mean` and `std`: a `usae.torch.Model`, a `FunctionModel`. With a mapping `ask` gives a mapping
        and `tell` wants one: an image for all of them at once.
    canvas : int or (int, int), optional
        Height and width of the image, in pixels. Left out: square, some 2.3 times the largest side of the models' images
        (512 for 224).
    steps : int
        Planned steps: the learning rate falls to 0 in them as a cosine, and crops shrink.
    views : int
        Crops of a step.
    parametrization : "phase", "fourier" or "pixels"
        "phase": only the phases of the image's spectrum are free, magnitudes are those of natural images (MACO, Fel et al.,
        arXiv 2306.06805). "fourier": real and imaginary parts, over 1/f. "pixels": the logits of the colours.
    magnitude : array, optional
        For "phase" and "fourier": that of the spectrum (`numpy.fft.rfft2`) of the decorrelated logits, [3, height, width // 2
        + 1]. Left out: a closed form that matches ImageNet's mean.
    start : array, optional
        An image to start from, [3, height, width] from 0 to 1. Left out: noise.
    crops : (float, float)
        Side of the crops as a share of the canvas's shorter side, in the first and in the last step. Small crops make detail
        that is lost where the whole image is looked at (docs/maximization.md).
    noise : float
        Standard deviation of the views' noise; colours go from 0 to 1.
    total_variation, l2 : float
        Weights of |differences of neighbouring pixels| and of (pixel - .5)^2, on the scale of the objective's gradient, whose
        length is 1.
    contrast : float
        Standard deviation of the logits of the colours, where magnitudes have a closed form.
    decorrelate : bool
        Optimise in a space where natural colours are not correlated, instead of red, green and blue.
    optimizer : "nadam" or "adam"
        With PyTorch's betas.
    learning_rate : float, optional
        Left out: .3 (a tenth of half a turn of a phase), .05 for "pixels".
    seed : int
        Of start, crops and noise.
    n_threads : int, optional
        As of `UniversalSAE`. Results do not depend on it.

    Examples
    --------
    >>> maximizer = usae.Maximizer(model, steps=128)
    >>> for _ in range(128):
    ...     activations, pull = model.vjp(maximizer.ask())
    ...     values, gradient = usae.objective(sae, activations, "dinov2", concept=1530)
    ...     maximizer.tell(pull(gradient))
    >>> plt.imshow(maximizer.image.transpose(1, 2, 0))
    """

    def __init__(
        self,
        models: Any,
        *,
        canvas: int | tuple[int, int] | None = None,
        steps: int = 256,
        views: int = 16,
        parametrization: Literal["phase", "fourier", "pixels"] = "phase",
        magnitude: Any = None,
        start: Any = None,
        crops: tuple[float, float] = (1.0, 0.5),
        noise: float = 0.05,
        total_variation: float = 0.0,
        l2: float = 0.0,
        contrast: float = 1.0,
        decorrelate: bool = True,
        optimizer: Literal["nadam", "adam"] = "nadam",
        learning_rate: float | None = None,
        seed: int = 0,
        n_threads: int | None = None,
    ):
        self._single = not isinstance(models, Mapping)
        named = {"": models} if self._single else dict(models)
        if not named:
            raise InvalidInputError("models must hold at least one, got none")
        self._looks = {name: _Look(model, f"models[{name!r}]" if name else "models") for name, model in named.items()}
        self.shape = default_canvas(named) if canvas is None else sides(canvas, "canvas")
        self.steps = checks.integer(steps, "steps", 1, 2**30)
        self.views = checks.integer(views, "views", 1, 1024)
        _one_of(parametrization, PARAMETRIZATIONS, "parametrization")
        _one_of(optimizer, OPTIMIZERS, "optimizer")
        self.crops = first, last = _crops(crops)
        height, width = self.shape
        self._seen = np.zeros((height + 1, width + 1), np.float32)
        self._core = _usae.Maximizer(
            parametrization=PARAMETRIZATIONS[parametrization],
            optimizer=OPTIMIZERS[optimizer],
            height=height,
            width=width,
            steps=self.steps,
            views=self.views,
            learning_rate=LEARNING_RATES[parametrization] if learning_rate is None else _number(learning_rate, "learning_rate"),
            first_crop=first,
            last_crop=last,
            noise=_number(noise, "noise"),
            total_variation=_number(total_variation, "total_variation"),
            l2=_number(l2, "l2"),
            contrast=_number(contrast, "contrast"),
            decorrelate=bool(decorrelate),
            seed=checks.integer(seed, "seed", 0, 2**64 - 1),
            n_threads=thread_count(n_threads, "n_threads"),
            magnitude=_float32(magnitude, "magnitude"),
            start=_float32(start, "start"),
        )

    def ask(self) -> Any:
        """Views of this step: float32 [views, 3, height, width] as the model takes them, or a mapping of these."""
        found = {}
        for name, look in self._looks.items():
            out = np.empty((self.views, 3, *look.size), np.float32)
            self._core.views(out, look.mean, look.std)
            found[name] = out
        return found[""] if self._single else found

    def tell(self, gradient: Any) -> Any:
        """Go one step uphill.

        Parameters
        ----------
        gradient : array, or mapping of str to array
            Gradient of what is to be maximised with respect to this step's views, in their shape. Only the direction of the
            image's gradient counts: with several models each has an equal say.

        Returns
        -------
        float, or dict of str to float
            Length of the image's gradient. 0: the objective does not depend on the image yet.

        Raises
        ------
        InvalidInputError
            For a gradient of another shape or one that is not finite, and after the last planned step. Nothing is changed.
        """
        if self._single:
            gradient = {"": gradient}
        elif not isinstance(gradient, Mapping) or set(gradient) != set(self._looks):
            got = list(gradient) if isinstance(gradient, Mapping) else type(gradient).__name__
            raise InvalidInputError(f"gradient must map the models {list(self._looks)} to arrays, got {got}")
        if self.step_count >= self.steps:
            raise InvalidInputError(f"steps: all {self.steps} planned steps are done; make a maximizer of more")
        arrays = {name: self._checked(name, gradient[name]) for name in self._looks}
        lengths = {
            name: self._core.add_gradient(array, self._looks[name].mean, self._looks[name].std, 1.0)
            for name, array in arrays.items()
        }
        boxes = self.boxes
        self._core.advance()
        self._note_seen(boxes)
        return lengths[""] if self._single else lengths

    @property
    def step_count(self) -> int:
        """Steps done."""
        return self._core.step_count

    @property
    def image(self) -> np.ndarray:
        """The present image, float32 [3, height, width], colours from 0 to 1."""
        out = np.empty((3, *self.shape), np.float32)
        self._core.image(out)
        return out

    @property
    def attribution(self) -> np.ndarray:
        """How much each pixel had to do with the objective, float32 [height, width].

        The size of its gradients, each step's scaled to length 1, summed over channels and steps; over the root of how often
        views saw the pixel, which is how such a sum grows where gradients have nothing to say.
        """
        out = np.empty(self.shape, np.float32)
        self._core.attribution(out)
        seen = self._seen.cumsum(0).cumsum(1)[:-1, :-1]
        return out / np.sqrt(np.maximum(seen, 1))

    @property
    def boxes(self) -> np.ndarray:
        """Where this step's views are, int64 [views, 4]: top, left, height, width, in pixels of the canvas."""
        out = np.empty((self.views, 4), np.int64)
        self._core.boxes(out)
        return out

    def _note_seen(self, boxes: np.ndarray) -> None:
        """Corners of boxes, whose sums from the upper left are how many boxes have a pixel in them."""
        top, left, height, width = boxes.T
        bottom, right = top + height, left + width
        for rows, columns, sign in ((top, left, 1), (bottom, left, -1), (top, right, -1), (bottom, right, 1)):
            np.add.at(self._seen, (rows, columns), sign)

    def __repr__(self) -> str:
        height, width = self.shape
        return f"Maximizer({height} x {width}, step {self.step_count} of {self.steps}, {self.views} views)"

    def _checked(self, name: str, gradient: Any) -> np.ndarray:
        label = f"gradient[{name!r}]" if name else "gradient"
        array = _float32(gradient, label)
        expected = (self.views, 3, *self._looks[name].size)
        if array is None or array.shape != expected:
            got = "none" if array is None else list(array.shape)
            raise InvalidInputError(f"{label} must have the views' shape {list(expected)}, got {got}")
        if not np.isfinite(array).all():  # before the first is added, so that none is
            raise InvalidInputError(f"{label} must be finite, got NaN or infinity; float16 overflows easily, bfloat16 does not")
        return array


def default_canvas(models: Mapping[str, Any]) -> tuple[int, int]:
    """Some 2.3 times the largest side of the models' images, a multiple of 16: 512 for 224, 144 for 64."""
    largest = max(side for name, model in models.items() for side in _Look(model, f"models[{name!r}]").size)
    side = min(8192, 16 * max(1, round(largest / 7)))
    return side, side


class _Look:
    """How a model looks at pictures."""

    def __init__(self, model: Any, label: str):
        for name in ("size", "mean", "std"):
            if not hasattr(model, name):
                raise InvalidInputError(f"{label} must have size, mean and std, got {type(model).__name__} without {name}")
        check_size_known(model, label)
        self.size = sides(model.size, f"size of {label}")
        self.mean, self.std = three(model.mean, f"mean of {label}"), deviations(model.std, f"std of {label}")


def resized(image: np.ndarray, look: Any, boxes: np.ndarray | None = None) -> np.ndarray:
    """An image [3, height, width] in 0..1, or boxes [n, 4] of it, as a model takes it: float32 [n, 3, its size]."""
    look = _Look(look, "model")
    if boxes is None:
        boxes = np.array([[0, 0, *image.shape[1:]]])
    out = np.empty((len(boxes), 3, *look.size), np.float32)
    _usae.crop_resize(np.ascontiguousarray(image, np.float32), boxes.astype(np.int64), out, look.mean, look.std, 0)
    return out


def _one_of(value: object, known: Mapping[str, int], name: str) -> None:
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _number(value: object, name: str) -> float:
    number = checks.as_float(value)
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number, got {value!r}")
    return number


def _crops(value: Any) -> tuple[float, float]:
    try:
        first, last = value
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"crops must be two numbers, those of the first and of the last step, got {value!r}") from error
    shares = checks.as_float(first), checks.as_float(last)
    if not all(0.001 <= share <= 1 for share in shares):
        raise InvalidInputError(f"crops must be shares of the canvas from 0.001 to 1, got {value!r}")
    return shares


def _float32(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            with np.errstate(over="ignore"):  # infinity is found later
                return np.ascontiguousarray(array, np.float32)
        got = str(array.dtype)
    except (TypeError, ValueError, RuntimeError):  # PyTorch's words for tensors that have a graph or are not in memory
        got = type(value).__name__
    raise InvalidInputError(f"{name} must be an array of real numbers, got {got}")
