"""What training says of itself: a loss or a validation that tells of a wrong recipe or of too few rows is a warning.

Three things can be wrong, each with a remedy of its own: the steps are too large ("rate"), what is learned fits the training
rows alone ("data"), or the run is too short ("length"). Each is warned of once in a run. Losses are a model's own, encoded and
decoded by the same model with all concepts. How well other models are reconstructed depends on the pairs of rows as much as on
training, so it is compared with nothing but its own best.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from usae._base.warning import warn
from usae._core import resolved_recipe
from usae._training.mean_loss import mean_loss

if TYPE_CHECKING:
    from usae._core.autoencoder import Autoencoder
    from usae._core.reports import StepReport
    from usae._data.shuffled_blocks import Batch

FIRST = 4
"""Steps of a model whose lowest loss is that of its start. Steps that are far too large show in the second loss already."""
WINDOW = 8
"""Steps of a model whose median is its present loss, so that an odd batch or two do not count. Their second lowest loss is what
the lowest of four is, and is compared with the start."""
STRIDE = 4
"""Steps of a model between two comparisons."""
FEWEST = 4
"""Steps of a model, after the first ones, with which a validation can be explained."""

WORSE = 1.1
"""A loss that is so many times as large as an earlier one has risen."""
RISEN = 0.1
"""A loss has risen above its start only if it did so by this share of the mean's loss too. Where the dictionary starts with all
rows of a small data set, the loss starts near 0."""
FALLEN = 0.95
"""A loss that is below this share of its start has fallen."""
FITS = 0.5
"""A loss that is below this share of the mean's tells that the training rows are learned."""
EXPLODED = 2.0
"""Held-out squared errors of so many times the mean's, and the start's, cannot be a slow beginning."""
R2_DROP = 0.1
"""A validation has dropped if R2 is so much below its best. The last one has other rows than those before it."""


class Losses:
    """Losses of one model in the steps that encoded it and in which all concepts took part.

    Attributes
    ----------
    best : float
        Lowest median of the first steps and of all windows before the present one.
    mean : float
        Loss of predicting the mean in the first batch that was seen. NaN before.
    """

    def __init__(self) -> None:
        self.best = math.inf
        self.mean = math.nan
        self._first: list[float] = []
        self._recent: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._n_compared = self._n = 0

    def add(self, loss: float) -> None:
        if len(self._first) < FIRST:
            self._first.append(loss)
            if len(self._first) == FIRST:
                self.best = statistics.median(self._first)
            return
        self._recent.append(loss)
        self._n += 1

    @property
    def is_due(self) -> bool:
        """Whether there is a whole window with enough new steps."""
        return self._n >= max(WINDOW, self._n_compared + STRIDE)

    @property
    def is_started(self) -> bool:
        """Whether there are enough steps to say where the loss starts."""
        return len(self._first) == FIRST

    @property
    def is_known(self) -> bool:
        """Whether there are enough steps to say whether the loss falls."""
        return self._n >= FEWEST

    @property
    def start(self) -> float:
        return min(self._first)

    @property
    def now(self) -> float:
        return statistics.median(list(self._recent))  # a copy, because another thread may add a step

    @property
    def low(self) -> float:
        return sorted(self._recent)[len(self._recent) // FIRST - 1]

    @property
    def last(self) -> float:
        """Median of the last steps alone, for a loss that still falls."""
        return statistics.median((self._first + list(self._recent))[-FEWEST:])

    @property
    def has_risen(self) -> bool:
        return self.low > self.highest()

    def highest(self, mean: float = math.nan) -> float:
        """Return the loss above which it has risen since the start. `mean`: that of the present rows, if it is another one."""
        ratio = max(1.0, mean / self.mean) if mean > 0 and self.mean > 0 else 1.0
        return max(WORSE * self.start, self.start + RISEN * self.mean) * ratio

    @property
    def falls(self) -> bool:
        """Whether the loss is below that of the start, and not above the lowest of a window."""
        return self.low < FALLEN * self.start and self.now < WORSE * self.best

    def compared(self) -> None:
        """Note that the present window was compared with the ones before it."""
        self._n_compared, self.best = self._n, min(self.best, self.now)


class Watch:
    """Judges the steps and validations of one run. It does not change the training, and nothing of it is saved."""

    def __init__(self, autoencoder: Autoencoder):
        recipe = autoencoder.recipe
        self._autoencoder = autoencoder
        self._losses = {name: Losses() for name in autoencoder.names}
        self._validations: list[tuple[int, Sequence[Sequence[float]]]] = []
        self._warned: set[str] = set()
        self._lacks_models = False  # whether a batch did not have all models
        self._is_squared = recipe.loss == "mse"
        n_models = len(autoencoder.names)
        steps_of_a_model = n_models / resolved_recipe.n_encoders(recipe, n_models) if recipe.clock == "model" else 1
        self._warmup = recipe.warmup_steps * steps_of_a_model
        self._largest_rate = 0.0

    def remember(self, entry: dict[str, Any]) -> None:
        """Take note of a step of the history, which was judged when it was done."""
        own = entry.get("own_losses") or {entry["encoder"]: entry["losses"][entry["encoder"]]}
        self._add(own, entry["prefix"], entry["learning_rate"])
        if "validation" in entry:
            self._validations.append((entry["step"], entry["validation"]["r2"]))
        for losses in self._losses.values():
            if losses.is_due:
                losses.compared()

    def step(self, report: StepReport, batch: Batch) -> None:
        """Judge a step by the losses of the encoded models."""
        self._add(report.own_losses, report.prefix, report.learning_rate)
        self._lacks_models |= any(name not in batch[0] for name in self._losses)
        for name in report.encoders:
            if name not in self._autoencoder.frozen:
                self._judge_step(name, report, batch)

    def _judge_step(self, name: str, report: StepReport, batch: Batch) -> None:
        losses = self._losses[name]
        if math.isnan(losses.mean):
            losses.mean = self._mean_loss(name, batch)
        if not losses.is_due:
            return
        now, has_recovered = losses.now, losses.now <= WORSE * losses.best
        losses.compared()
        if report.step <= self._warmup or "rate" in self._warned or (has_recovered and not losses.has_risen):
            return
        mean = self._mean_loss(name, batch)  # of these rows, because what a stream brings may change
        highest = losses.highest(mean)
        what = f"the training loss is {now:.3g}, the median of {WINDOW} steps,"
        if now > mean and not has_recovered:
            self._warn_of_rate(name, report.step, f"{what} above {mean:.3g}, that of predicting the mean")
        elif losses.low > highest:
            what += f" above {highest:.3g}; in the first steps it was {losses.start:.3g}"
            self._warn_of_rate(name, report.step, what)

    def end(self, report: StepReport, batch: Batch) -> None:
        """Judge the losses at the end of a run."""
        for name, losses in self._losses.items():
            if name in self._autoencoder.frozen or self._warned or not losses.is_known or report.step <= self._warmup:
                continue
            mean = self._mean_loss(name, batch)
            if losses.last > mean:
                what = f"the training loss is {losses.last:.3g}, above {mean:.3g}, that of predicting the mean"
                self._warn_of_length(name, report.step, what)

    def validation(self, step: int, r2: Sequence[Sequence[float]], last: bool) -> None:
        """Judge an evaluation of held-out activations. `r2` is that of all pairs of models, [M][M]."""
        earlier = list(self._validations)
        self._validations.append((step, r2))
        if step <= self._warmup:
            return
        for model, (name, losses) in enumerate(self._losses.items()):
            if losses.is_started:
                before = [(other[model][model], at) for at, other in earlier]
                self._judge_own(name, losses, step, r2[model][model], before, last)
        if last:
            self._judge_pairs(step, r2, earlier)

    def _judge_own(self, name: str, losses: Losses, step: int, r2: float, before: list[tuple[float, int]], last: bool) -> None:
        best, best_step = max(before, default=(-math.inf, 0))
        has_dropped = r2 < best - R2_DROP
        what = f"R2 of held-out activations is {r2:.3f}"
        if r2 < 0:
            what += ", below 0, that of predicting the mean"
        elif has_dropped:
            what += f", below {best - R2_DROP:.3f}, {R2_DROP:g} less than at step {best_step}"
        has_exploded = 1 - r2 > EXPLODED * max(1.0, losses.start / losses.mean) and losses.last > FITS * losses.mean
        if has_exploded or (losses.is_known and r2 < 0 and losses.has_risen):
            self._warn_of_rate(name, step, what)
        elif not losses.is_known:
            return
        elif has_dropped and (r2 < 0 or last):
            self._warn_of_rate_or_data(name, losses, step, what, best_step)
        elif r2 < 0 and losses.falls and losses.now < FITS * losses.mean:
            self._warn_of_data(name, losses, step, what, 0)
        elif r2 < 0 and last and self._is_squared:  # R2 is of squared errors, and other losses do not minimise them
            self._warn_of_length(name, step, what)

    def _judge_pairs(
        self, step: int, r2: Sequence[Sequence[float]], earlier: list[tuple[int, Sequence[Sequence[float]]]]
    ) -> None:
        """Warn of the pair of models whose R2 dropped most. That of rows that are paired wrongly was never above 0."""
        drops = []
        for i, source in enumerate(self._losses):
            for j, target in enumerate(self._losses):
                best, best_step = max(((other[i][j], at) for at, other in earlier), default=(0.0, 0))
                if i != j and best > R2_DROP and r2[i][j] < best - R2_DROP:
                    drops.append((best - r2[i][j], source, target, r2[i][j], best, best_step))
        if not drops:
            return
        _, source, target, now, best, best_step = max(drops)
        what = (
            f"R2 of held-out activations decoded to {target!r} is {now:.3f}, below {best - R2_DROP:.3f}, {R2_DROP:g} less "
            f"than at step {best_step}"
        )
        losses = self._losses[source]
        if losses.is_known and losses.falls and self._lacks_models:
            what += f", while the training loss falls ({losses.now:.3g}), as rows of some models learn what does not join them"
            self._warn("data", source, step, f"{what}; give aligned rows a larger share of the steps (usae.WeaklyPaired)")
        elif losses.is_known:
            self._warn_of_rate_or_data(source, losses, step, what, best_step)

    def _add(self, own_losses: dict[str, float], prefix: int, rate: float) -> None:
        self._largest_rate = max(self._largest_rate, rate)
        if prefix == self._autoencoder.n_concepts:  # the losses of shorter prefixes are larger
            for encoder, loss in own_losses.items():
                self._losses[encoder].add(loss)

    def _mean_loss(self, name: str, batch: Batch) -> float:
        """Return the mean's loss in a batch, or in the first that was seen if the batch does not have the model."""
        acts, rows = batch
        return mean_loss(self._autoencoder, name, acts[name], rows) if name in acts else self._losses[name].mean

    def _warn_of_rate(self, name: str, step: int, what: str) -> None:
        rate = self._largest_rate
        self._warn(
            "rate", name, step, f"{what}, so the steps are too large; train again with a "
            f"lower learning_rate in the recipe, {rate / 2:.2g} or {rate / 3:.2g} in place of {rate:.2g}"
        )  # fmt: skip

    def _warn_of_rate_or_data(self, name: str, losses: Losses, step: int, what: str, best_step: int) -> None:
        """Tell swinging from overfitting by the training loss."""
        if not losses.falls:
            self._warn_of_rate(name, step, what)
        else:
            self._warn_of_data(name, losses, step, what, best_step)

    def _warn_of_data(self, name: str, losses: Losses, step: int, what: str, best_step: int) -> None:
        if "rate" in self._warned:  # swings that have ended look the same
            return
        what += f", while the training loss falls ({losses.now:.3g}), so what is learned fits the training rows alone"
        fewer = f", or for fewer steps (it was best at step {best_step})" if best_step else ""
        self._warn("data", name, step, f"{what}; train on more or more varied rows{fewer}")

    def _warn_of_length(self, name: str, step: int, what: str) -> None:
        if "rate" not in self._warned:
            what += ", at the end of training"
            self._warn("length", name, step, f"{what}; train for more steps, or at a lower learning_rate if the loss swings")

    def _warn(self, kind: str, name: str, step: int, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(f"model {name!r}, step {step}: {text}")


def after_step(
    autoencoder: Autoencoder, report: StepReport, batch: Batch, r2: Sequence[Sequence[float]] | None = None, last: bool = False
) -> None:
    """Judge a step, the validation after it if there is one, and the whole run after its last step.

    Call it when both are recorded: where warnings are errors, it raises.
    """
    if not autoencoder.is_watched:
        return
    watch = _of(autoencoder, report.step)
    watch.step(report, batch)
    if r2 is not None:
        watch.validation(report.step, r2, last)
    if last:
        watch.end(report, batch)


def after_last_validation(autoencoder: Autoencoder, report: StepReport, r2: Sequence[Sequence[float]]) -> None:
    """Judge the validation at the end of a run that ended earlier than planned."""
    if autoencoder.is_watched:
        _of(autoencoder, report.step + 1).validation(report.step, r2, last=True)


def _of(autoencoder: Autoencoder, step: int) -> Watch:
    """Return the watch of an autoencoder's run. A new one remembers the steps of the history before this one."""
    watch = autoencoder.watch
    if not isinstance(watch, Watch):
        watch = Watch(autoencoder)
        for entry in autoencoder.history:
            if entry["step"] < step:
                watch.remember(entry)
        autoencoder.watch = watch
    return watch
