"""What was found in the activations that standardisation was computed from, and the warnings that it calls for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import float_types
from usae._base.json import plain
from usae._base.warning import warn
from usae._data.activations import Activations
from usae._data.chunks import chunks, rows_of
from usae.recipes import Recipe

if TYPE_CHECKING:
    from usae._core.autoencoder import Autoencoder

FEWEST_ROWS = 32
"""With fewer rows, a mean is off by more than a sixth of the standard deviation."""

MANY_EQUAL = 0.1
"""Share of equal rows from which on they are probably padding."""

MOST_ROUNDING, LOST = 0.01, 0.1
"""Shares of the variance that may be rounding to the type of the array: of the whole, and of a single dimension."""

MOST_OUTLYING = 0.1
"""Share of the squared distances that outlying rows may have. Rows of heavy tails, 5 or 6 median distances away, have less."""

DOMINATES = 100.0
"""A dimension dominates if its variance is more than this multiple of the median dimension's."""

DEFAULT_MULTIPLE = Recipe().outlier_multiple or 5.0
"""How far is outlying for a recipe that does not say."""

SAMPLE_ROWS = 65_536
"""Most rows of which squared distances are added, evenly spaced."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StandardizationReport:
    """What was found in the rows that the mean and scale of one model were computed from: `UniversalSAE.standardization_`.

    Attributes
    ----------
    model : str
        Name of the model.
    dtype : str
        Type of the array: "float16", "bfloat16", "float32" or "float64".
    rows : int
        Number of rows: all, or a sample of `Recipe.statistics_tokens`.
    outlying_rows : int
        Rows farther from the mean than `Recipe.outlier_multiple` (5 if that is None) times the median distance.
    left_out_rows : int
        Those of them that count for neither mean nor scale: all, or none if they are more than 5 % or the recipe says so.
    identical_rows : int
        The most rows that are equal in every element, if they are more than 1 % of the rows; otherwise 1.
    median_distance, largest_distance : float
        Distance of rows from the mean, in the model's own units. Rows that equal many others do not count for the median.
    mean, deviation : ndarray of float64, [width]
        What is subtracted, and the standard deviation about it, in the model's own units.
    outlying_share : float
        Share that outlying rows have of all rows' squared distances from the mean, 0 to 1. `fit` warns from 0.1 on.
    """

    model: str
    dtype: str
    rows: int
    outlying_rows: int
    left_out_rows: int
    identical_rows: int
    median_distance: float
    largest_distance: float
    mean: np.ndarray
    deviation: np.ndarray
    outlying_share: float = 0.0

    @property
    def constant_dimensions(self) -> np.ndarray:
        """Dimensions that do not vary, int64 [n]."""
        return np.flatnonzero(self.deviation <= np.abs(self.mean) * 2.0**-40)

    @property
    def dominating_dimensions(self) -> np.ndarray:
        """Dimensions whose variance is more than 100 times that of the median dimension which varies, int64 [n]."""
        variance = self.deviation**2
        return np.flatnonzero(variance > DOMINATES * np.median(variance[variance > 0]))

    @property
    def dominating_share(self) -> float:
        """Share of the variance that dominating dimensions have, 0 to 1."""
        variance = self.deviation**2
        return float(variance[self.dominating_dimensions].sum() / variance.sum())

    @property
    def mean_to_deviation(self) -> np.ndarray:
        """Size of the mean of each dimension in standard deviations, float64 [width]. Infinite where nothing varies."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.mean == 0, 0.0, np.abs(self.mean) / self.deviation)

    @property
    def rounding_by_dimension(self) -> np.ndarray:
        """Share of each dimension's variance that is rounding to the type of the array, 0 to 1, float64 [width].

        It is estimated from the size of the numbers, and 0 for constant dimensions.
        """
        step = float_types.step(np.hypot(self.mean, self.deviation), self.dtype)
        varies = np.ones(len(step), bool)
        varies[self.constant_dimensions] = False
        ratio = np.divide(step, self.deviation, out=np.zeros_like(step), where=varies)
        return np.minimum(1.0, ratio**2 / 12)

    @property
    def rounding_share(self) -> float:
        """Share of the variance that is rounding to the type of the array, 0 to 1, estimated as for each dimension."""
        variance = self.deviation**2
        return float((self.rounding_by_dimension * variance).sum() / variance.sum())

    def warnings(self, recipe: Recipe) -> list[str]:
        """Return what there is to warn of, each with the model, the number and the remedy."""
        found = []
        if self.rows < FEWEST_ROWS:
            found.append(
                f"mean and scale come from {self.rows} rows and stay as they are; begin with at least {FEWEST_ROWS} varied rows"
            )
        if self.outlying_share > MOST_OUTLYING:
            found.append(self._of_outlying(recipe.outlier_multiple))
        if 1 < self.identical_rows > MANY_EQUAL * self.rows and self.rounding_share <= MOST_ROUNDING:
            share = self.identical_rows / self.rows
            found.append(f"{share:.1%} of the rows are equal, as padding is; leave such rows out of the activations")
        if self.rounding_share > MOST_ROUNDING or (self.rounding_by_dimension > LOST).any():
            found.append(self._of_rounding())
        if recipe.scale == "scalar" and self.dominating_share > 0.5:
            found.append(
                f"{len(self.dominating_dimensions)} of {len(self.mean)} dimensions have {self.dominating_share:.1%} of the "
                f'variance, so that little else is learned; use the recipe\'s scale="dimension"'
            )
        return [f"model {self.model!r}: {text}" for text in found]

    def _of_rounding(self) -> str:
        lost = int((self.rounding_by_dimension > LOST).sum())
        of_lost = f", and more than {LOST:.0%} of that of {lost} of {len(self.mean)} dimensions," if lost else ""
        text = f"{self.rounding_share:.1%} of the variance{of_lost} is rounding to {self.dtype}, because "
        largest = self.mean_to_deviation[self.rounding_by_dimension > (LOST if lost else MOST_ROUNDING)].max()
        if largest < 10:  # bfloat16, the coarsest, loses so much of normal numbers from 44 on
            return text + "the numbers are so small; multiply them by a constant before rounding"
        return text + (
            f"the mean is up to {largest:.0f} standard deviations; subtract it before rounding, or keep the activations as a "
            f"wider type"
        )

    def _of_outlying(self, multiple: float | None) -> str:
        farthest = self.largest_distance / self.median_distance
        text = (
            f"{self.outlying_rows / self.rows:.2%} of the rows are more than {multiple or DEFAULT_MULTIPLE:g} times as far "
            f"from the mean as the median row, up to {farthest:.0f} times, and have {self.outlying_share:.1%} of the squared "
            f"distances; "
        )
        if self.left_out_rows:
            return text + (
                "they do not count for mean and scale, and training shortens them; leave such rows out (usae.outlying_rows "
                "finds them), or use the recipe's outlier_multiple=None if they belong to the data"
            )
        why = "as the recipe says" if multiple is None else "because they are more than 5 % of the rows, as data may be"
        return text + (
            f"they count like all others, {why}, and may spoil everything; leave them out, "
            f"mask=~np.logical_or.reduce(list(usae.outlying_rows(acts).values())), or drop such tokens in the network "
            f"(n_prefix_tokens), if they do not belong to the data"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, ready for JSON."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def __repr__(self) -> str:
        return (
            f"StandardizationReport({self.model!r}; {self.rows} rows, {self.outlying_rows} outlying, {self.identical_rows} "
            f"equal; of {len(self.mean)} dimensions {len(self.constant_dimensions)} constant, "
            f"{len(self.dominating_dimensions)} dominating)"
        )


def reports(autoencoder: Autoencoder, acts: Mapping[str, Sequence[Activations]]) -> dict[str, StandardizationReport]:
    """Return what the core found in the activations from which it was initialised, of each model those of all parts."""
    result = {}
    for model, (name, parts) in enumerate(acts.items()):
        mean, deviation = np.empty(parts[0].width), np.empty(parts[0].width)
        numbers = autoencoder.core.describe_sample(model, mean, deviation)
        if numbers is not None:
            report = StandardizationReport(name, coarsest_type(parts), *numbers, mean, deviation)
            if report.outlying_rows:
                share = _outlying_share(report, parts, autoencoder.recipe.outlier_multiple or DEFAULT_MULTIPLE)
                report = dataclasses.replace(report, outlying_share=share)
            result[name] = report
    return result


def coarsest_type(parts: Sequence[Activations]) -> str:
    """Return the type of the parts whose numbers are the farthest apart."""
    return max((x.dtype_name for x in parts), key=lambda dtype: float_types.step(np.ones(1), dtype)[0])


def _outlying_share(report: StandardizationReport, parts: Sequence[Activations], multiple: float) -> float:
    """Return what share of all squared distances is that of outlying rows.

    It is that of evenly spaced rows, or what the report tells of its own if that is more, as where few rows are very far.
    """
    limit = multiple * report.median_distance
    every = -(-sum(x.n_tokens for x in parts) // SAMPLE_ROWS)
    far = total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are an error elsewhere
        for x in parts:
            numbers = np.arange(0, x.n_tokens, every)
            for rows in chunks(len(numbers)):
                squares = ((rows_of(x, numbers[rows]).astype(float) - report.mean) ** 2).sum(1)
                squares = squares[np.isfinite(squares)]
                far += float(squares[squares > limit**2].sum())
                total += float(squares.sum())
    least = (report.outlying_rows - 1) * limit**2 + report.largest_distance**2
    counted = (report.rows - report.left_out_rows) * float((report.deviation**2).sum())
    all_squares = counted + least if report.left_out_rows else counted
    return min(1.0, max(far / total if total > 0 else 0.0, least / all_squares if all_squares > 0 else 0.0))


def warn_of(found: Mapping[str, StandardizationReport], recipe: Recipe) -> None:
    """Issue the warnings of all models."""
    for report in found.values():
        for text in report.warnings(recipe):
            warn(text)
