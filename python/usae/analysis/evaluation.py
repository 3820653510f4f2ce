"""`usae.Evaluation`: R2 between models, and firing counts, co-firing, correlation and energy of concepts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from usae._base import checks, html
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae._base.warning import warn
from usae.analysis import agreement, cofiring, correlations, universality

if TYPE_CHECKING:
    import pandas

    from usae.analysis.nulls import CofireNull
    from usae.analysis.partners import Partners
    from usae.analysis.vision_measures import VisionMeasures


class EnergyFit(NamedTuple):
    """Linear fit of log10(energy) to log10(co-fires) in each model. Arrays are float64 [M], and NaN without variance."""

    correlation: np.ndarray
    """Pearson's r."""
    slope: np.ndarray
    """Slope of the least-squares line."""
    intercept: np.ndarray
    """Intercept of that line, which is log10(energy) at one co-fire."""
    n_concepts: int
    """Number of concepts with enough co-fires, to which the line is fitted."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Result of `UniversalSAE.evaluate`, for M models and m concepts. [i, j] means encoded from model i, decoded to model j.

    A concept *fires* in a token if its code is larger than `threshold`. It *co-fires* if it fires in every model.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_tokens : int
        Number of rows that were evaluated. Rows that do not count by a mask are not among them, see `n_left_out`.
    threshold : float
        Firing threshold.
    r2 : ndarray of float64, [M, M]
        1 - squared error / squared distance from each dimension's mean over these rows, in the models' own units.
        Predicting the mean gives exactly 0. NaN where nothing varies, as in the two below.
    r2_standardized : ndarray of float64, [M, M]
        The same in standardised units.
    r2_scalar_mean : ndarray of float64, [M, M]
        The same in standardised units with one mean over all dimensions, as in the published code. It is for comparison only: a
        reconstruction by nothing but the mean of each dimension is above 0.
    mse : ndarray of float64, [M, M]
        Mean squared error of an element, in the models' own units.
    l0 : ndarray of float64, [M]
        Mean number of active concepts of a token. It does not depend on the threshold.
    firing_counts : ndarray of int64, [M, m]
        Number of tokens in which a concept fires.
    pair_cofire_counts : ndarray of int64, [M, M, m]
        Number of tokens in which it fires in both of two models. For i = j these are the firing counts.
    cofire_counts : ndarray of int64, [m]
        Number of tokens in which it fires in every model.
    union_counts : ndarray of int64, [m]
        Number of tokens in which it fires in at least one model.
    mean_activation : ndarray of float64, [M, m]
        Mean of its code over all tokens; tokens in which it is not active count as 0.
    max_activation : ndarray of float32, [M, m]
        Largest code.
    code_products : ndarray of float64, [M, M, m]
        Sum over tokens of the product of two models' codes, from which `correlation` is computed.
    n_left_out : int
        Number of rows that were not evaluated, because they do not count by a mask. Default: 0.
    partners : Partners, optional
        Which concept of another model fires most alike, and whether it is the one with the same index. Default: None, without
        ``partners=True``.
    dictionary_norms : ndarray of float64, [M, m], optional
        Norms of the dictionary rows that decode the codes: how much of a concept each model has. Default: None, where all are 1
        (``dictionary_norm="unit"``).
    vision : VisionMeasures, optional
        Where in images concepts fire, how alike their strongest images are, and which labels they tell. Default: None, without
        ``vision=True``, ``embeddings`` or ``labels``.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    threshold: float
    r2: np.ndarray
    r2_standardized: np.ndarray
    r2_scalar_mean: np.ndarray
    mse: np.ndarray
    l0: np.ndarray
    firing_counts: np.ndarray
    pair_cofire_counts: np.ndarray
    cofire_counts: np.ndarray
    union_counts: np.ndarray
    mean_activation: np.ndarray
    max_activation: np.ndarray
    code_products: np.ndarray
    n_left_out: int = 0
    partners: Partners | None = None
    dictionary_norms: np.ndarray | None = None
    vision: VisionMeasures | None = None

    @property
    def dead(self) -> np.ndarray:
        """Concepts that never fire in a model, bool [M, m]."""
        return self.firing_counts == 0

    @property
    def dead_everywhere(self) -> np.ndarray:
        """Concepts that never fire in any model, bool [m]."""
        return np.logical_and.reduce(self.dead)

    @property
    def firing_entropy(self) -> np.ndarray:
        """How evenly a concept fires over the models, float64 [m].

        It is 1 if the concept fires equally often in all models, 0 if it fires in one model only, and 0.631 if it fires equally
        often in two of three. It is NaN for concepts that never fire, and for all concepts if there is only one model. The
        formula is -sum_i p_i log p_i / log M, where p_i is model i's share of the concept's firing.
        """
        return entropy_of_counts(self.firing_counts)

    @property
    def cofire_proportion(self) -> np.ndarray:
        """Share of a concept's firing in model i that is co-firing, float64 [M, m]. NaN if it never fires in model i."""
        with np.errstate(invalid="ignore"):
            return self.cofire_counts / self.firing_counts

    def mean_cofire_proportion(self, top: int = cofiring.MOST_ENERGETIC) -> np.ndarray:
        """Mean co-fire proportion of each model's concepts with the largest energy, float64 [M]. NaN if none of them fires.

        Every summary, table and plot reports this number. All concepts that fire have the same weight, however often they fire;
        those among the `top` that never fire are left out.

        Parameters
        ----------
        top : int
            Number of concepts of each model. Default: 1000, as in the paper, or all if there are fewer.
        """
        top = checks.integer(top, "top", 1, 2**24)
        return cofiring.mean_proportions(self.firing_counts, self.cofire_counts, self.energy, top)

    @property
    def cofire_p_value(self) -> np.ndarray:
        """Probability of so many co-fires of a concept if models fire independently, float64 [m]. NaN if it is dead in one.

        It is that of the observed number or more, and an upper bound: never too small, for any number of models and rows.
        `universal` has the formula, and what it assumes.
        """
        return np.exp(cofiring.log_cofire_p_values(self.firing_counts, self.cofire_counts, self.n_tokens))

    def universal(
        self,
        share: float = cofiring.UNIVERSAL_SHARE,
        entropy: float = cofiring.UNIVERSAL_ENTROPY,
        *,
        error_rate: float = cofiring.ERROR_RATE,
        null: CofireNull | None = None,
    ) -> np.ndarray:
        """Tell which concepts are universal, bool [m]: ``np.flatnonzero(evaluation.universal())`` are their indices.

        A concept is universal if all of these hold:

        1. It is alive in every model.
        2. Its firing entropy is at least `entropy`, as in the paper: it fires about equally often in every model.
        3. Its co-fire proportion is at least `share` in every model: it fires at the same places.
        4. It co-fires above its null: more often than chance explains.

        Parameters
        ----------
        share : float
            Smallest co-fire proportion, from 0 to 1. Default: 0.05.
        entropy : float
            Smallest firing entropy, from 0 to 1. Default: 0.9.
        error_rate : float
            Largest probability that any concept at all passes the null by chance, if none is shared. Default: 0.05.
        null : CofireNull, optional
            The null of images permuted, from `usae.controls` with the same activations. It needs at least 1 / error_rate - 1
            draws. Default: None, which is the null of tokens permuted.

        Returns
        -------
        ndarray of bool, [m]
            True for universal concepts.

        Raises
        ------
        InvalidInputError
            With one model, which shares nothing; for numbers out of their range; for a null of something else.

        Warns
        -----
        UserWarning
            If no concept fires often enough for its null, so that none could be universal however it co-fires.

        Notes
        -----
        The default null keeps how often a concept fires in each model, F_i of N rows, and permutes the rows of each model.
        Given where model i fires, each of these rows is then a co-fire with probability q_i = prod_{j != i} F_j / N, and the
        probability of c co-fires or more is at most exp(-F_i KL(c / F_i || q_i)), with KL(p || q) = p log(p / q) + (1 - p)
        log((1 - p) / (1 - q)). (This is Chernoff's bound. It holds for negatively associated events: Joag-Dev and Proschan
        1983, Dubhashi and Ranjan 1998.) `cofire_p_value` is the smallest of these bounds. A concept passes if it is at most
        `error_rate` divided by the number of concepts that are alive in every model (Bonferroni), whether concepts depend on
        each other or not.

        This null takes rows as independent. Rows that are alike, such as the tokens of one image, are worth fewer, and concepts
        pass more easily than `error_rate` says: with the images of the shipped activations shuffled in each model, of 256
        concepts none to three passed for three models, and none to nine for two, in place of 100 with the right pairs.
        ``null=usae.controls(sae, acts, include=["images"]).images`` permutes whole images. q_i is then no less than the mean
        co-fires of the permutations are of F_i, and a concept passes if its probability is smaller than the smallest of all
        concepts in all but `error_rate` of the permutations (Westfall and Young 1993). That allows for tokens that are alike,
        and for concepts that are at the same place in all images.
        """
        universal, too_rare = universality.mask(self, share, entropy, error_rate, null)
        alive = int((~self.dead).all(0).sum())
        if alive and int(too_rare.sum()) == alive:
            warn(
                f"no concept can be told from chance in {self.n_tokens:,} tokens: the {alive:,} that are alive in every model "
                "would not be above their null if they always co-fired; evaluate more rows"
            )
        return universal

    @property
    def cofire_iou(self) -> np.ndarray:
        """Intersection over union of a concept's firing, float64 [m]. NaN if it never fires.

        It is the number of tokens in which the concept fires in all models, divided by the number in which it fires in at least
        one. (The published code divides by the sum of the models' firing counts instead.)
        """
        with np.errstate(invalid="ignore"):
            return self.cofire_counts / self.union_counts

    @property
    def pair_cofire_iou(self) -> np.ndarray:
        """Intersection over union of a concept's firing in two models, float64 [M, M, m]. NaN if it fires in neither."""
        union = self.firing_counts[:, None] + self.firing_counts[None] - self.pair_cofire_counts
        with np.errstate(invalid="ignore"):
            return self.pair_cofire_counts / union

    @property
    def correlation(self) -> np.ndarray:
        """Pearson correlation over tokens of a concept's codes in two models, float64 [M, M, m].

        Tokens in which the concept is not active count as 0. It is NaN if a model's code has no variance, that is, if the
        concept is never active, or if its code is the same in all tokens up to the precision of sums of float64.
        """
        models = np.arange(len(self.model_names))
        moments = self.code_products / self.n_tokens
        mean, second = self.mean_activation, moments[models, models]
        return correlations.pearson(mean[:, None], second[:, None], mean[None], second[None], moments, self.n_tokens)

    def mean_agreement(self, least_firings: int = agreement.LEAST_FIRINGS) -> np.ndarray:
        """Mean agreement of the concepts of model i with those of model j at the same indices, float64 [M, M].

        It is the mean of `correlation`, weighted by the concepts' energy in model i. A concept that is never active in model j
        counts as 0. It is NaN for a model in which no concept fires often enough.

        Parameters
        ----------
        least_firings : int
            Smallest number of tokens in which a concept fires in model i. Those that fire in fewer do not count, because a
            correlation of few firings is chance. Default: 20.
        """
        least = checks.integer(least_firings, "least_firings", 1, 2**53)
        return agreement.mean_of_pairs(np.nan_to_num(self.correlation), self.firing_counts >= least, self.energy)

    @property
    def energy(self) -> np.ndarray:
        """Energy of a concept in a model, a measure of its importance, float64 [M, m].

        It is the squared norm of the concept's part of the mean reconstruction, || mean(code) * dictionary row ||^2, in
        standardised units. Where dictionary rows have norm 1, it is the square of the mean code.
        """
        norms = 1 if self.dictionary_norms is None else np.asarray(self.dictionary_norms)
        with np.errstate(over="ignore"):
            return (self.mean_activation * norms) ** 2

    def energy_fit(self, least_cofires: int = 1) -> EnergyFit:
        """Fit a line to log10(energy) as a function of log10(co-fires), for each model.

        Parameters
        ----------
        least_cofires : int
            Smallest number of co-fires of a concept that is used. Default: 1. (Concepts that never co-fire have no logarithm.)
        """
        least = checks.integer(least_cofires, "least_cofires", 1, 2**53)
        chosen = self.cofire_counts >= least
        with np.errstate(divide="ignore", over="ignore"):  # an energy that no float64 holds makes the model's numbers NaN
            x, y = np.log10(self.cofire_counts[chosen]), np.log10(self.energy[:, chosen])
        n = int(chosen.sum())
        nothing = np.full(len(self.model_names), np.nan)
        if n < 2 or np.ptp(x) == 0:
            return EnergyFit(nothing, nothing, nothing, n)
        with np.errstate(invalid="ignore"):
            x_mean, y_mean = x.mean(), y.mean(1)
            dx, dy = x - x_mean, y - y_mean[:, None]
            slope = dy @ dx / (dx @ dx)
            correlation = np.where(np.ptp(y, 1) > 0, dy @ dx / np.sqrt((dx @ dx) * (dy**2).sum(1)), np.nan)
        return EnergyFit(np.clip(correlation, -1, 1), slope, y_mean - slope * x_mean, n)

    @property
    def energy_cofire_correlation(self) -> np.ndarray:
        """Pearson's r of log10(energy) and log10(co-fires) over the concepts that co-fire, float64 [M]."""
        return self.energy_fit().correlation

    @property
    def energy_cofire_slope(self) -> np.ndarray:
        """Slope of the line fitted to log10(energy) over log10(co-fires) of the concepts that co-fire, float64 [M]."""
        return self.energy_fit().slope

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept.

        Some columns belong to the concept (``firing_entropy``, ``cofire_counts``, ``union_counts``, ``cofire_iou``,
        ``cofire_p_value``, and with two models or more ``universal``), some to the concept in a model (``firing_counts[vit]``,
        and likewise ``cofire_proportion``, ``energy``, ``mean_activation``, ``max_activation``), and some to two models
        (``pair_cofire_counts[dinov2, vit]``, ``correlation[dinov2, vit]``). Those of `partners` and of `vision` follow, where
        they are known: ``coherence[vit]``, ``area[vit]``, ``example_coherence[vit]``, ``best_f1[vit]``, ``best_f1_label[vit]``,
        ``best_auroc[vit]``, ``best_auroc_label[vit]``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("Evaluation.to_frame")
        own = ("firing_entropy", "cofire_counts", "union_counts", "cofire_iou", "cofire_p_value")
        columns = {name: getattr(self, name) for name in own}
        if len(self.model_names) > 1:
            columns["universal"] = self.universal()
        for name in ("firing_counts", "cofire_proportion", "energy", "mean_activation", "max_activation"):
            values = getattr(self, name)
            columns |= {f"{name}[{model}]": values[i] for i, model in enumerate(self.model_names)}
        for name in ("pair_cofire_counts", "correlation"):
            values = getattr(self, name)
            for i, j in zip(*np.triu_indices(len(self.model_names), 1), strict=True):
                columns[f"{name}[{self.model_names[i]}, {self.model_names[j]}]"] = values[i, j]
        if self.dictionary_norms is not None:
            columns |= {f"dictionary_norm[{model}]": self.dictionary_norms[i] for i, model in enumerate(self.model_names)}
        if self.partners is not None:
            columns |= self.partners.columns()
        if self.vision is not None:
            columns |= self.vision.columns()
        return pandas.DataFrame(columns, index=pandas.RangeIndex(len(self.cofire_counts), name="concept"))

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, ready for JSON. NaN becomes None."""
        parts = {"partners": self.partners, "vision": self.vision}
        names = [field.name for field in dataclasses.fields(self) if field.name not in parts]
        if self.dictionary_norms is None:
            names.remove("dictionary_norms")
        values = {name: plain(getattr(self, name)) for name in names}
        return values | {name: part.to_dict() for name, part in parts.items() if part is not None}

    def summary(self) -> str:
        """Return a table as text: the cross-reconstruction matrix, and statistics of the concepts."""
        names = [name if len(name) <= 16 else name[:15] + "…" for name in self.model_names]
        first = max(len("r(energy, co-fires)"), *map(len, names))
        widths = [max(8, len(name)) for name in names]

        def row(head: str, cells: list[str]) -> str:
            return "  ".join([head.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])

        alive = (~self.dead).sum(1)
        top = min(cofiring.MOST_ENERGETIC, len(self.cofire_counts))
        lines = [
            f"R2 of {self.n_tokens:,} tokens{self._left_out()}, in each model's own units",
            row("encoded \\ decoded", names),
            *(row(name, [f"{value:.3f}" for value in values]) for name, values in zip(names, self.r2, strict=True)),
            "",
            row("", names),
            row("active concepts", [f"{value:.1f}" for value in self.l0]),
            row("concepts alive", [f"{value:,}" for value in alive]),
            row("co-fire proportion", [f"{value:.3f}" for value in self.mean_cofire_proportion()]),
            row("r(energy, co-fires)", [f"{value:.2f}" for value in self.energy_cofire_correlation]),
            "",
            f"co-fire proportion: mean of each model's {top:,} most energetic concepts",
            *universality.lines(self),
            *([] if self.partners is None else self.partners.lines()),
            f"{len(self.cofire_counts):,} concepts; {int(self.dead_everywhere.sum()):,} fire in no model, "
            f"{int((self.cofire_counts > 0).sum()):,} in all models at once (threshold {self.threshold:g})",
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        """Return the R2 matrix as a table, for notebooks."""
        rows = ([name, *(f"{value:.3f}" for value in row)] for name, row in zip(self.model_names, self.r2, strict=True))
        caption = f"R2 of {self.n_tokens:,} tokens{self._left_out()}, in each model's own units"
        return html.table(caption, ["encoded \\ decoded", *self.model_names], rows)

    def _left_out(self) -> str:
        return f" ({self.n_left_out:,} rows left out)" if self.n_left_out else ""

    def __repr__(self) -> str:
        return (
            f"Evaluation({', '.join(self.model_names)}; n_tokens={self.n_tokens}, "
            f"r2 from {self.r2.min():.3f} to {self.r2.max():.3f})"
        )


def entropy_of_counts(firing_counts: np.ndarray) -> np.ndarray:
    """Compute `Evaluation.firing_entropy` from counts, [M, m]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = firing_counts / firing_counts.sum(0)
        terms = np.where(share == 0, 0.0, share * np.log(share))
        entropy = -terms.sum(0) / np.log(len(firing_counts))
    return entropy + 0.0  # turns -0.0 into 0.0
