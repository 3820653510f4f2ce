"""Result of coordinated activation maximization: images and their scores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import html
from usae._base.json import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from usae.analysis.top_examples import TopExamples

SUPER_STIMULUS = 1.5
"""Strength above which an image is called a super-stimulus: it fires the concept so much more than the dataset does that it
shows to what activations the network can be driven, and not what the network responds to in natural images."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Firing:
    """How strongly images fire a concept in models. Arrays are [M, M]; [i, j] is the image of model i, shown to model j.

    Attributes
    ----------
    share : ndarray of float64
        Share of the tokens in which the concept fires.
    peak : ndarray of float64
        Largest code of the concept.
    rank : ndarray of float64
        Mean rank of the concept among the active concepts of a token, over the tokens in which it is active. 1 is the
        strongest. NaN if it is active in none.
    of_code : ndarray of float64
        Specificity: the concept's share of the sum of all codes.
    """

    share: np.ndarray
    peak: np.ndarray
    rank: np.ndarray
    of_code: np.ndarray

    @property
    def fires(self) -> np.ndarray:
        """Whether the concept fires in any token, bool [M, M]."""
        return self.peak > 0

    def of_images(self, there: np.ndarray) -> Firing:
        """Return a copy with NaN in the rows of images that do not exist."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Firing(**{name: np.where(there[:, None], values, np.nan) for name, values in fields.items()})


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Maximization:
    """Result of `usae.maximize` for M models. A joint image is repeated for every model.

    Attributes
    ----------
    concept : int
        Number of the concept.
    model_names : tuple of str, [M]
        Names of the models.
    joint : bool
        Whether there is one image for all models.
    images : ndarray of float32, [M, 3, height, width]
        The images, with colours from 0 to 1. An image without `started`, and its scores, are NaN.
    attribution : ndarray of float32, [M, height, width]
        How much each pixel influenced the objective.
    history : ndarray of float64, [M, steps]
        The objective in each step, averaged over views.
    started : ndarray of bool, [M]
        Whether any step had a gradient that is not 0. Without one, there is no image.
    whole : Firing
        Scores of the whole images, resized to each model's input.
    parts : Firing
        Scores of sixteen crops of the sizes that were optimised, without noise.
    before : Firing
        Scores of the images from which the optimisation started. Scores are meaningful only above these.
    dataset_peak : ndarray of float64, [M]
        Largest code of the concept in the dataset that was given. NaN without a dataset, 0 if the concept is dead there.
    dataset_r2 : ndarray of float64, [M]
        R2 of the autoencoder on the dataset, from each model to itself. NaN without a dataset.
    r2 : ndarray of float64, [M]
        R2 of the autoencoder on the activations of a model's own image, relative to the mean of the training data. Far below
        `dataset_r2`, the image is off the manifold of the data.
    stability : ndarray of float64, [M]
        Smallest peak of the images of all seeds, divided by the largest. NaN with one seed.
    """

    concept: int
    model_names: tuple[str, ...]
    joint: bool
    images: np.ndarray
    attribution: np.ndarray
    history: np.ndarray
    started: np.ndarray
    whole: Firing
    parts: Firing
    before: Firing
    dataset_peak: np.ndarray
    dataset_r2: np.ndarray
    r2: np.ndarray
    stability: np.ndarray

    @property
    def transfer(self) -> np.ndarray:
        """How strongly the image of model i (row) fires the concept in model j (column), float64 [M, M].

        It is the peak of the whole image, divided by model j's peak on its own image. NaN if that is 0.
        """
        own = np.diag(self.whole.peak)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(own > 0, self.whole.peak / own, np.nan)

    @property
    def strength(self) -> np.ndarray:
        """Peak of the whole image, divided by the dataset's peak, [M, M]. Above 1.5 the image is a super-stimulus."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.dataset_peak > 0, self.whole.peak / self.dataset_peak, np.nan)

    @property
    def fires(self) -> np.ndarray:
        """Whether each model's own image fires the concept in it, bool [M]."""
        return np.diag(self.whole.fires)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, but no images, as plain Python values, ready for JSON."""
        result: dict[str, Any] = {"concept": self.concept, "model_names": list(self.model_names), "joint": self.joint}
        for name in ("started", "fires", "dataset_peak", "dataset_r2", "r2", "stability", "transfer", "strength", "history"):
            result[name] = plain(getattr(self, name))
        for name in ("whole", "parts", "before"):
            firing = getattr(self, name)
            result[name] = {field.name: plain(getattr(firing, field.name)) for field in dataclasses.fields(firing)}
        return result

    def report(self) -> str:
        """Return a table as text: one line for each image, then the transfer matrix."""
        width = max(5, *map(len, self.model_names))
        lines = [
            f"concept {self.concept}" + (", one image for all models" if self.joint else ""),
            f"{'':<{width}}  fires in (before)  rank  of code  peak (before)  of dataset  R2 (dataset)  stability",
        ]
        lines += [f"{name:<{width}}  {self._line(i)}" for i, name in enumerate(self.model_names)]
        if len(self.model_names) > 1 and not self.joint:
            lines += ["", "transfer: the image of a row, looked at by a column"]
            lines.append(f"{'':<{width}}  " + "  ".join(f"{name:>{max(6, len(name))}}" for name in self.model_names))
            for name, row in zip(self.model_names, self.transfer, strict=True):
                cells = (_cell(x, f"{max(6, len(to))}.2f") for x, to in zip(row, self.model_names, strict=True))
                lines.append(f"{name:<{width}}  " + "  ".join(cells))
        return "\n".join(lines)

    def _line(self, i: int) -> str:
        """Return the report's line for one model's image."""
        if np.isnan(self.whole.peak[i, i]):
            return "never started: the objective had no gradient in any step"
        whole, before = self.whole, self.before
        notes = "" if self.fires[i] else "  does not fire"
        if self.strength[i, i] > SUPER_STIMULUS:
            notes += "  super-stimulus"
        if self.dataset_peak[i] == 0:
            notes += "  dead in the dataset"
        share = f"{whole.share[i, i]:.1%} ({before.share[i, i]:.1%})"
        peak = f"{whole.peak[i, i]:.3g} ({before.peak[i, i]:.3g})"
        r2 = f"{self.r2[i]:.2f}" + ("" if np.isnan(self.dataset_r2[i]) else f" ({self.dataset_r2[i]:.2f})")
        return (
            f"{share:>17}  {_cell(whole.rank[i, i], '4.1f')}  {whole.of_code[i, i]:7.1%}  {peak:>13}  "
            f"{_cell(self.strength[i, i], '10.2f')}  {r2:>12}  {_cell(self.stability[i], '9.2f')}{notes}"
        )

    def _repr_html_(self) -> str:
        """Return a line for each image as a table, for notebooks."""
        whole, rows = self.whole, []
        for i, name in enumerate(self.model_names):
            numbers = (whole.peak[i, i], self.strength[i, i], self.r2[i], self.stability[i])
            told = "does not start" if not self.started[i] else f"{whole.share[i, i]:.1%}"
            rows.append([name, told, *("-" if np.isnan(number) else f"{number:.2f}" for number in numbers)])
        head = ["image of", "fires in", "peak", "of dataset", "R2", "stability"]
        return html.table(f"concept {self.concept}{', one image for all models' if self.joint else ''}", head, rows)

    def plot(self, top: TopExamples | None = None, images: Any = None, **options: Any) -> Figure:
        """Draw the images and their scores with `usae.plot.maximization`.

        Parameters
        ----------
        top : TopExamples, optional
            Examples of natural images, as for `usae.plot.maximization`. Default: None.
        images : array, optional
            The pictures of the examples. Default: None.
        **options
            Further options of `usae.plot.maximization`.
        """
        from usae.plot._maximization import maximization

        return maximization([self], top, images, **options)

    def __repr__(self) -> str:
        fires = f"{self.fires.sum()} of {len(self.model_names)}"
        return f"Maximization(concept {self.concept}, {', '.join(self.model_names)}; fires in {fires})"


def _cell(value: float, form: str) -> str:
    return " " * (int(form.split(".")[0]) - 1) + "-" if np.isnan(value) else format(value, form)
