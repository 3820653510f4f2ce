"""`usae.Maximizer`: an image that is optimised step by step in a loop that the user writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae.errors import InvalidInputError
from usae.maximization.image_models import check_input_known, deviations, sides, three

PARAMETRIZATIONS = {"phase": _usae.IMAGE_PHASE, "fourier": _usae.IMAGE_SPECTRUM, "pixels": _usae.IMAGE_PIXELS}
OPTIMIZERS = {"nadam": _usae.ASCENT_NADAM, "adam": _usae.ASCENT_ADAM}
LEARNING_RATES = {"phase": 0.3, "fourier": 0.3, "pixels": 0.05}


class Maximizer:
    """An image that is optimised step by step. `ask` returns views of it, and `tell` takes the gradient of the objective.

    Views are random crops of the canvas with a little noise, resized without aliasing to the input size of a model. Their boxes
    and noise depend only on the seed and the step. Maximizers with the same seed start from the same image and use the same
    crops, so that differences between their images are due to the models (coordinated activation maximization, Thasarathan et
    al., ICML 2025, section 3.3).

    Parameters
    ----------
    models : model, or mapping of str to model
        An object with `size`, `mean` and `std`, such as a `usae.torch.Model` or a `FunctionModel`. With a mapping, one image is
        optimised for all its models; `ask` then returns a mapping, and `tell` takes one.
    canvas : int or (int, int), optional
        Height and width of the image, in pixels. Default: None, which takes a square of some 2.3 times the largest side of the
        models' images (512 for 224).
    steps : int
        Planned number of steps. Over these steps the learning rate falls to 0 as a cosine, and crops shrink. Default: 256.
    views : int
        Number of crops in a step. Default: 16.
    parametrization : "phase", "fourier" or "pixels"
        "phase" optimises only the phases of the image's spectrum; magnitudes are those of natural images (MACO, Fel et al.,
        arXiv 2306.06805). "fourier" optimises real and imaginary parts of the spectrum, relative to 1/f. "pixels" optimises the
        logits of the colours. Default: "phase".
    magnitude : array, optional
        For "phase" and "fourier", magnitudes of the spectrum (`numpy.fft.rfft2`) of the decorrelated logits,
        [3, height, width // 2 + 1]. Default: None, which takes a closed form that matches ImageNet's mean.
    start : array, optional
        Image to start from, [3, height, width], with colours from 0 to 1. Default: None, which starts from noise.
    crops : (float, float)
        Side of the crops in the first and in the last step, as a share of the canvas's shorter side. Small crops produce detail
        that is lost when the whole image is shown to a model (docs/maximization.md). Default: (1.0, 0.5).
    noise : float
        Standard deviation of the views' noise, for colours from 0 to 1. Default: 0.05.
    total_variation, l2 : float
        Weights of the regularisers |differences of neighbouring pixels| and (pixel - .5)^2, relative to the objective's
        gradient, whose length is 1. Default: 0.0 and 0.0.
    contrast : float
        Standard deviation of the logits of the colours, if magnitudes have a closed form. Default: 1.0.
    decorrelate : bool
        Whether to optimise in a colour space in which natural colours are not correlated, instead of red, green and blue.
        Default: True.
    optimizer : "nadam" or "adam"
        Optimiser, with PyTorch's betas. Default: "nadam".
    learning_rate : float, optional
        Initial learning rate. Default: None, which takes .05 for "pixels" and .3 otherwise, a tenth of half a turn of a phase.
    seed : int
        Seed of start, crops and noise. Default: 0.
    n_threads : int, optional
        Number of threads, as for `UniversalSAE`. Results do not depend on it. Default: None.

    Raises
    ------
    InvalidInputError
        For an argument that cannot be used.

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
        self._formats = {name: _ImageFormat(model, f"models[{name!r}]" if name else "models") for name, model in named.items()}
        self.shape = default_canvas(named) if canvas is None else sides(canvas, "canvas")
        self.steps = checks.integer(steps, "steps", 1, 2**30)
        self.views = checks.integer(views, "views", 1, 1024)
        _one_of(parametrization, PARAMETRIZATIONS, "parametrization")
        _one_of(optimizer, OPTIMIZERS, "optimizer")
        self.crops = first, last = _crops(crops)
        height, width = self.shape
        self._coverage = np.zeros((height + 1, width + 1), np.float32)
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
            decorrelate=checks.boolean(decorrelate, "decorrelate"),
            seed=checks.integer(seed, "seed", 0, 2**64 - 1),
            n_threads=thread_count(n_threads, "n_threads"),
            magnitude=_float32(magnitude, "magnitude"),
            start=_float32(start, "start"),
        )

    def ask(self) -> Any:
        """Return the views of this step, normalised for the model, float32 [views, 3, height, width], or a mapping of these."""
        found = {}
        for name, image_format in self._formats.items():
            out = np.empty((self.views, 3, *image_format.size), np.float32)
            self._core.views(out, image_format.mean, image_format.std)
            found[name] = out
        return found[""] if self._single else found

    def tell(self, gradient: Any) -> Any:
        """Do one step of gradient ascent.

        Parameters
        ----------
        gradient : array, or mapping of str to array
            Gradient of the objective with respect to this step's views, in their shape. It is turned into a gradient of the
            image and scaled to length 1, so that several models have equal weight.

        Returns
        -------
        float, or dict of str to float
            Length of the image's gradient before scaling. 0 means that the objective does not depend on the image yet.

        Raises
        ------
        InvalidInputError
            For a gradient of another shape or one that is not finite, and after the last planned step. Nothing is changed.
        """
        if self._single:
            gradient = {"": gradient}
        elif not isinstance(gradient, Mapping) or set(gradient) != set(self._formats):
            got = checks.shown(list(gradient)) if isinstance(gradient, Mapping) else type(gradient).__name__
            raise InvalidInputError(f"gradient must map the models {list(self._formats)} to arrays, got {got}")
        if self.step_count >= self.steps:
            raise InvalidInputError(
                f"gradient must be of one of the {self.steps} planned steps, got one more; make a maximizer of more"
            )
        arrays = {name: self._checked(name, gradient[name]) for name in self._formats}
        lengths = {
            name: self._core.add_gradient(array, self._formats[name].mean, self._formats[name].std, 1.0)
            for name, array in arrays.items()
        }
        boxes = self.boxes
        self._core.advance()
        self._add_coverage(boxes)
        return lengths[""] if self._single else lengths

    @property
    def step_count(self) -> int:
        """Number of steps done."""
        return self._core.step_count

    @property
    def image(self) -> np.ndarray:
        """The present image, float32 [3, height, width], with colours from 0 to 1."""
        out = np.empty((3, *self.shape), np.float32)
        self._core.image(out)
        return out

    @property
    def attribution(self) -> np.ndarray:
        """How much each pixel influenced the objective, float32 [height, width].

        It is the absolute gradient of the pixel, summed over channels and steps, where the gradient of each step is scaled to
        length 1. The sum is divided by the square root of the number of views that contained the pixel, because a sum of random
        gradients grows like that.
        """
        out = np.empty(self.shape, np.float32)
        self._core.attribution(out)
        coverage = self._coverage.cumsum(0).cumsum(1)[:-1, :-1]
        return out / np.sqrt(np.maximum(coverage, 1))

    @property
    def boxes(self) -> np.ndarray:
        """Boxes of this step's views, int64 [views, 4]: top, left, height, width, in pixels of the canvas."""
        out = np.empty((self.views, 4), np.int64)
        self._core.boxes(out)
        return out

    def _add_coverage(self, boxes: np.ndarray) -> None:
        """Add boxes to the coverage. Cumulative sums over these corners give the number of boxes that contain a pixel."""
        top, left, height, width = boxes.T
        bottom, right = top + height, left + width
        for rows, columns, sign in ((top, left, 1), (bottom, left, -1), (top, right, -1), (bottom, right, 1)):
            np.add.at(self._coverage, (rows, columns), sign)

    def __repr__(self) -> str:
        height, width = self.shape
        return f"Maximizer({height} x {width}, step {self.step_count} of {self.steps}, {self.views} views)"

    def _checked(self, name: str, gradient: Any) -> np.ndarray:
        label = f"gradient[{name!r}]" if name else "gradient"
        array = _float32(gradient, label)
        expected = (self.views, 3, *self._formats[name].size)
        if array is None or array.shape != expected:
            got = "none" if array is None else list(array.shape)
            raise InvalidInputError(f"{label} must have the views' shape {list(expected)}, got {got}")
        if not np.isfinite(array).all():  # checked before any model's gradient is added
            raise InvalidInputError(f"{label} must be finite, got NaN or infinity; float16 overflows easily, bfloat16 does not")
        return array


def default_canvas(models: Mapping[str, Any]) -> tuple[int, int]:
    """Return some 2.3 times the largest side of the models' images, as a multiple of 16: 512 for 224, 144 for 64."""
    largest = max(side for name, model in models.items() for side in _ImageFormat(model, f"models[{name!r}]").size)
    side = min(8192, 16 * max(1, round(largest / 7)))
    return side, side


class _ImageFormat:
    """Size, mean and standard deviation of the images that a model takes."""

    def __init__(self, model: Any, label: str):
        for name in ("size", "mean", "std"):
            try:
                getattr(model, name)
            except Exception as error:  # it has none, or its own code raises
                got = f"{type(model).__name__} without {name}"
                raise InvalidInputError(f"{label} must have size, mean and std, got {got}: {error}") from error
        check_input_known(model, label)
        self.size = sides(model.size, f"size of {label}")
        self.mean, self.std = three(model.mean, f"mean of {label}"), deviations(model.std, f"std of {label}")


def resized(image: np.ndarray, model: Any, boxes: np.ndarray | None = None) -> np.ndarray:
    """Resize and normalise an image, [3, height, width] in 0..1, or boxes of it, [n, 4], for a model: float32 [n, 3, *size]."""
    image_format = _ImageFormat(model, "model")
    if boxes is None:
        boxes = np.array([[0, 0, *image.shape[1:]]])
    out = np.empty((len(boxes), 3, *image_format.size), np.float32)
    _usae.crop_resize(
        np.ascontiguousarray(image, np.float32), boxes.astype(np.int64), out, image_format.mean, image_format.std, 0
    )
    return out


def _one_of(value: object, known: Mapping[str, int], name: str) -> None:
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {checks.shown(value)}")


def _number(value: object, name: str) -> float:
    number = checks.as_float(value)
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number, got {checks.shown(value)}")
    return number


def _crops(value: Any) -> tuple[float, float]:
    try:
        first, last = value
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(
            f"crops must be two numbers, those of the first and of the last step, got {checks.shown(value)}"
        ) from error
    shares = checks.as_float(first), checks.as_float(last)
    if not all(0.001 <= share <= 1 for share in shares):
        raise InvalidInputError(f"crops must be shares of the canvas from 0.001 to 1, got {checks.shown(value)}")
    return shares


def _float32(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused later
                return np.ascontiguousarray(array, np.float32)
        got = str(array.dtype)
    except Exception:  # of PyTorch for tensors with a graph or on a GPU, of NumPy, or of the value's own methods
        got = type(value).__name__
    raise InvalidInputError(f"{name} must be an array of real numbers, got {got}")
