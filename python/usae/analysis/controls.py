"""Null models and ceilings: the numbers that an `Evaluation` would have for reasons other than universality."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae._base.progress import checked as checked_progress
from usae._core import rounding
from usae._data.activations import as_aligned, mask_of
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.analysis import agreement, baselines, cofiring, nulls, universality
from usae.analysis.agreement import AgreementCeiling
from usae.analysis.baselines import LinearBaseline, SeedCeiling, ShuffledPairing
from usae.analysis.consistency import Consistency, consistency, planned_steps
from usae.analysis.control_arguments import (
    CONTROLS,
    NEED_STEPS,
    NEED_TRAINING_ROWS,
    check_finite,
    checked_images,
    checked_include,
    checked_level,
    why_no_images,
)
from usae.analysis.evaluation import Evaluation
from usae.analysis.frozen import HALVES, train_frozen
from usae.analysis.nulls import CofireNull
from usae.analysis.predicted_codes import agreement_ceiling
from usae.analysis.untrained_networks import checked_untrained, train_untrained
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    "r2_same", "r2_other", "agreement", "cofire_proportion", "cofire_low", "cofire_high", "universal", "evenly_shared",
    "fire_in_all",
)  # fmt: skip
"""Names of the columns of `Controls.table`."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Controls:
    """Result of `usae.controls`. Controls that were not run are None.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    evaluation : Evaluation
        Evaluation of the autoencoder that is tested.
    tokens, images, concepts : CofireNull
        Co-firing compared with its permutation nulls.
    random : Evaluation
        Evaluation of random encoders and dictionaries with the same standardisation.
    initial : Evaluation
        Evaluation of the autoencoder before its first step. With ``initialization="data"`` its dictionaries are already
        aligned.
    frozen_dictionary, frozen_encoder : Evaluation
        Evaluation of the same training with dictionaries, or encoders, that stay random.
    untrained : Evaluation
        Evaluation of the same training on activations of the same networks with random weights.
    shuffled : ShuffledPairing
        The same training on rows that are paired at random.
    linear : LinearBaseline
        Ridge regression from model to model.
    agreement : AgreementCeiling
        Agreement of each concept's codes in two models, and how well the other model's activations can predict the code at all.
    seeds : SeedCeiling
        Consistency of the same training with other seeds.
    consistency : Consistency
        Consistency with independent autoencoders of each model: those that were given, or those trained for `seeds`.
    """

    model_names: tuple[str, ...]
    evaluation: Evaluation
    tokens: CofireNull | None = None
    images: CofireNull | None = None
    concepts: CofireNull | None = None
    random: Evaluation | None = None
    initial: Evaluation | None = None
    frozen_dictionary: Evaluation | None = None
    frozen_encoder: Evaluation | None = None
    untrained: Evaluation | None = None
    shuffled: ShuffledPairing | None = None
    linear: LinearBaseline | None = None
    agreement: AgreementCeiling | None = None
    seeds: SeedCeiling | None = None
    consistency: Consistency | None = None

    def table(self) -> dict[str, dict[str, float | None]]:
        """Return the numbers that can be compared, by row and column. A number that a control does not have is None.

        Columns:

        * "r2_same" and "r2_other" are the means of the diagonal and of the rest of the R2 matrix.
        * "agreement" is the mean over pairs of models of `Evaluation.mean_agreement`. The row of its ceiling has the mean of
          `AgreementCeiling.ceiling`, and that of ridge regression the mean of `AgreementCeiling.ridge`.
        * "cofire_proportion" is the mean over models of `Evaluation.mean_cofire_proportion`, that of each model's 1,000 most
          energetic concepts. "cofire_low" and "cofire_high" are the limits of its null band. Models in which none of these
          concepts fires are left out.
        * "universal" is the share of all concepts that `Evaluation.universal` calls so.
        * "evenly_shared" is the share of all concepts whose firing entropy is at least .9.
        * "fire_in_all" is the share of all concepts that fire in every model, at the same tokens or not.
        """
        rows = {"this autoencoder": _figures(self.evaluation)}
        if self.seeds is not None:
            rows["another seed"] = _figures(self.seeds.evaluation)
        if self.shuffled is not None:
            rows["trained on shuffled pairs"] = _figures(self.shuffled.paired)
            rows["the same, on shuffled pairs"] = _figures(self.shuffled.shuffled)
        if self.initial is not None:
            rows["before training"] = _figures(self.initial)
        if self.random is not None:
            rows["random"] = _figures(self.random)
        if self.frozen_dictionary is not None:
            rows["frozen random dictionary"] = _figures(self.frozen_dictionary)
        if self.frozen_encoder is not None:
            rows["frozen random encoder"] = _figures(self.frozen_encoder)
        if self.untrained is not None:
            rows["untrained networks"] = _figures(self.untrained)
        for null in (self.tokens, self.images, self.concepts):
            if null is not None:
                rows[f"{null.permuted} permuted"] = _figures(None) | {
                    "cofire_proportion": cofiring.mean_of_known(null.proportion_mean),
                    "cofire_low": cofiring.mean_of_known(null.proportion_low),
                    "cofire_high": cofiring.mean_of_known(null.proportion_high),
                }
        if self.linear is not None or self.agreement is not None:
            rows["ridge regression"] = _figures(None)
        if self.linear is not None:
            rows["ridge regression"] |= _of_matrix(self.linear.r2)
        if self.agreement is not None:
            rows["ridge regression"]["agreement"] = agreement.mean_of_others(self.agreement.mean("ridge"))
            rows["ceiling of agreement"] = _figures(None)
            rows["ceiling of agreement"]["agreement"] = agreement.mean_of_others(self.agreement.mean("ceiling"))
        return rows

    def to_frame(self, rows: str = "concepts") -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept, or for each control.

        Of concepts it has the columns of `Evaluation.to_frame`, for each permutation null that was run ``null_mean[tokens]``,
        and likewise ``null_low``, ``null_high``, ``null_z`` and ``null_p_value``, and those of `AgreementCeiling.to_frame`.
        Of controls it is `table`, with NaN where a control does not have a number.

        Parameters
        ----------
        rows : "concepts" or "controls"
            What the rows are. Default: "concepts".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        if checks.choice(rows, "rows", ("concepts", "controls")) == "controls":
            pandas = pandas_for("Controls.to_frame")
            return pandas.DataFrame.from_dict(self.table(), orient="index", columns=list(COLUMNS)).astype(float)
        frame = self.evaluation.to_frame()
        for null in (self.tokens, self.images, self.concepts):
            if null is not None:
                values = {name: getattr(null, name) for name in ("mean", "low", "high", "z", "p_value")}
                frame = frame.assign(**{f"null_{name}[{null.permuted}]": value for name, value in values.items()})
        return frame if self.agreement is None else frame.join(self.agreement.to_frame())

    def _repr_html_(self) -> str:
        """Return `table`, for notebooks."""
        rows = ([name, *(_cell(cells[column], ".3f") for column in COLUMNS)] for name, cells in self.table().items())
        return html.table("", ["", *COLUMNS], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the autoencoders as plain Python values, ready for JSON."""

        def form(value: Any) -> Any:
            if isinstance(value, ShuffledPairing):
                return {"paired": value.paired.to_dict(), "shuffled": value.shuffled.to_dict()}
            if isinstance(value, SeedCeiling):
                return {name: getattr(value, name).to_dict() for name in ("independent", "universal", "evaluation")}
            return None if value is None else value.to_dict()

        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["model_names"]
        result = {name: form(value) for name, value in values.items()}
        table = {row: {name: plain(value) for name, value in cells.items()} for row, cells in self.table().items()}
        return {"model_names": list(self.model_names), "table": table} | result

    def summary(self) -> str:
        """Return the table and the consistencies as text."""
        table = self.table()
        first = max(map(len, table))
        lines = [
            f"{'':<{first}}  R2 same  R2 other  agreement  {'mean co-fire proportion':<25}  universal  evenly shared  "
            "fire in all"
        ]
        for name, cells in table.items():
            band = _cell(cells["cofire_proportion"], ".4f")
            if cells["cofire_low"] is not None:
                band += f" [{_cell(cells['cofire_low'], '.4f')}, {_cell(cells['cofire_high'], '.4f')}]"
            lines.append(
                f"{name:<{first}}  {_cell(cells['r2_same'], '.3f'):>7}  {_cell(cells['r2_other'], '.3f'):>8}  "
                f"{_cell(cells['agreement'], '.3f'):>9}  {band:<25}  {_cell(cells['universal'], '.1%'):>9}  "
                f"{_cell(cells['evenly_shared'], '.1%'):>13}  {_cell(cells['fire_in_all'], '.1%'):>11}".rstrip()
            )
        for null in (self.tokens, self.images, self.concepts):
            if null is not None:
                lines.append(
                    f"{null.permuted} permuted: {null.share_above:.1%} of the concepts alive in all models co-fire above "
                    f"their {null.level:.0%} band, by chance {null.above_by_chance:.1%} would ({null.n_draws} draws)"
                )
        lines += self._universal_by_images()
        lines += universality.rare_lines(self.evaluation)
        if self.agreement is not None:
            shuffled = None if self.shuffled is None else self.shuffled.paired.mean_agreement()
            lines += ["", self.agreement.summary(shuffled)]
        parts = {"with independent SAEs": self.consistency}
        if self.seeds is not None:
            parts["of independent SAEs, two seeds"] = self.seeds.independent
            parts["of universal SAEs, two seeds"] = self.seeds.universal
        for name, part in parts.items():
            if part is not None:
                lines += ["", f"Consistency {name}: {part.summary()}"]
        return "\n".join(lines)

    def _universal_by_images(self) -> list[str]:
        """Return a line that tells how many concepts are universal by the null of images, if it was run."""
        if self.images is None:
            return []
        try:
            share = universality.mask(self.evaluation, null=self.images)[0].mean()
        except InvalidInputError:
            return [f"images permuted: {self.images.n_draws} draws are too few to tell universal concepts"]
        return [f"images permuted: {share:.1%} of all concepts are universal by this null"]

    def __repr__(self) -> str:
        run = [name for name in CONTROLS if getattr(self, name) is not None]
        return f"Controls({', '.join(self.model_names)}; {', '.join(run)})"


def controls(
    sae: UniversalSAE,
    acts: Mapping[str, Any],
    *,
    train: Mapping[str, Any] | None = None,
    untrained: Mapping[str, Any] | None = None,
    untrained_train: Mapping[str, Any] | None = None,
    include: Iterable[str] | None = None,
    independent: Mapping[str, Any] | None = None,
    threshold: float = 0.0,
    tokens_per_image: int | None = None,
    level: float = 0.95,
    n_draws: int = 1000,
    n_permutations: int = 100,
    steps: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
    mask: Any = None,
    train_mask: Any = None,
) -> Controls:
    """Run null models and ceilings, which show whether the numbers of an evaluation are due to universality.

    Parameters
    ----------
    sae : UniversalSAE
        An autoencoder of at least two models. It is not changed.
    acts : mapping of str to array
        Held-out activations, as for `UniversalSAE.evaluate`.
    train : mapping of str to array, optional
        The activations that `sae` was trained on. Seven of the controls need them. Default: None, without these controls.
    untrained, untrained_train : mapping of str to array, optional
        What the same networks compute with random weights: for the images or texts of `acts`, and for those of `train`. The
        models have the same names and widths. Default: None, without this control.
    include : iterable of str, optional
        Names of the controls to run. Default: None, which runs all that the other arguments allow. The table has them in the
        order of cost, for N tokens, M models and m concepts. P is the time of one `UniversalSAE.evaluate` of `acts`, which is
        run in any case, and T the time of training `sae`.

        ===================  =====================================================  =========================================
        name                 what it measures                                       cost
        ===================  =====================================================  =========================================
        "tokens"             co-fires with tokens of each model permuted            `n_draws` M m random numbers
        "images"             the same with whole images permuted; needs images      P + `n_permutations` times 10 ns N k M;
                                                                                    10 N k M bytes, the only one whose memory
                                                                                    grows with N
        "concepts"           co-fires of a concept of one model with other          P + `n_permutations` times 10 ns N k M
                             concepts of the next that fire about as often
        "random"             R2 and co-firing of random encoders and dictionaries   P
        "linear"             R2 of ridge regression; needs `train`                  two passes, (sum of widths)^2 per token
        "initial"            R2 and co-firing before the first step; needs `train`  P
        "agreement"          how well a model's activations predict another's       for each of M (M - 1) pairs 300 steps of
                             code of each concept; needs `train`                    2,048 tokens, and m width per token of
                                                                                    at most 131,072 of `acts`;
                                                                                    some 20 m (M - 1) width bytes
        "frozen_dictionary"  the same training, but dictionaries stay random;       T + P
                             needs `train`
        "frozen_encoder"     the same training, but encoders stay random;           T + P
                             needs `train`
        "untrained"          the same training on the same networks with random     T + P
                             weights; needs `untrained` and `untrained_train`
        "shuffled"           the same training on pairs of random rows; needs       T + P
                             `train`
        "seeds"              the same training with other seeds; needs `train`      (2 M + 1) T at most, and 3 matchings for
                                                                                    each comparison of two dictionaries
        ===================  =====================================================  =========================================
    independent : mapping of str to UniversalSAE, optional
        Autoencoders of one model each, as `fit_independent` makes them. Their consistency with `sae` is reported, and "seeds"
        trains only one more set. Default: None.
    threshold : float
        A concept fires in a token if its code is larger than this. Default: 0.0.
    tokens_per_image : int, optional
        Number of consecutive rows that belong to one image, whether they count by a mask or not. Default: None, which takes
        the number from arrays [images, tokens, width] if `acts` has such. "images" can be run only if the same places of all
        images count; images without any row that counts are passed over.
    level : float
        Share of the null distribution that a band holds, between 0 and 1. Default: 0.95.
    n_draws : int
        Number of random draws for "tokens". With two models they are used only for the band of the mean proportion.
        Default: 1000.
    n_permutations : int
        Number of permutations for "images" and "concepts". Default: 100.
    steps : int, optional
        Number of training steps of the controls that train. Default: None, which takes as many as `sae` has done; only then are
        they fair controls.
    seed : int
        Seed of everything random here. The same seed gives the same numbers. Default: 0.
    progress : bool, optional
        Whether to show progress bars, as in `UniversalSAE.fit`. Default: None.
    mask, train_mask : array of bool, or mapping of str to array of bool, optional
        Rows of `acts` and of `train` that count, as for `UniversalSAE.fit`, and of `untrained` and `untrained_train`. Default:
        None.

    Returns
    -------
    Controls
        The result of each control, and a table of the numbers that can be compared.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, before anything is run.

    Notes
    -----
    docs/controls.md describes what each control shows and how far to believe it. Controls are trained like
    `UniversalSAE.fit`, with batches of the recipe's size in its order. For an autoencoder that was trained otherwise, for
    example by `partial_fit`, they are controls of an equal `fit`.
    """
    sae = checked_sae(sae, "sae")
    names = sae.model_names_
    if len(names) < 2:
        raise InvalidInputError(f"sae must have at least two models, got one, {names[0]!r}; for one use usae.consistency")
    given = as_aligned(acts, "acts", sae._initialized().columns, mask)
    learned = None
    if train is not None:
        learned = as_aligned(train, "train", sae._initialized().columns, train_mask, mask_argument="train_mask")
    threshold = checks.real(threshold, "threshold", "a finite number of at least 0")
    level = checked_level(level)
    n_draws = checks.integer(n_draws, "n_draws", 1, 10**6)
    n_permutations = checks.integer(n_permutations, "n_permutations", 1, 10**6)
    seed = checks.integer(seed, "seed", 0, 2**64 - 1)
    progress = checked_progress(progress)
    per_image = checked_images(tokens_per_image, given)
    random_networks = checked_untrained(sae, untrained, untrained_train, mask, train_mask)
    chosen = checked_include(
        include, learned is not None, random_networks is not None, None if per_image is not None else why_no_images(given)
    )
    if set(NEED_STEPS) & chosen:
        planned_steps(sae, steps)
    for rows in (given, learned or {}):
        rounding.check(sae._initialized(), rows)
    if learned is not None and chosen & set(NEED_TRAINING_ROWS):
        check_finite(sae, learned)
    if independent is not None:
        similarity = consistency(sae, independent, seed=seed, progress=progress)
        if "seeds" in chosen and set(independent) != set(names):
            raise InvalidInputError(
                f"independent must hold every model ({', '.join(names)}) for the seed ceiling, got {', '.join(independent)}"
            )

    evaluation = sae._evaluated(given, threshold, progress)
    firing, cofire = evaluation.firing_counts, evaluation.cofire_counts
    results: dict[str, Any] = {}
    common: dict[str, Any] = {"energy": evaluation.energy, "level": level, "seed": seed, "progress": progress}
    permuting = common | {"threshold": threshold, "n_draws": n_permutations}
    if "tokens" in chosen:
        results["tokens"] = nulls.tokens_null(firing, cofire, evaluation.n_tokens, n_draws=n_draws, **common)
    if "images" in chosen and per_image is not None:
        results["images"] = nulls.images_null(sae, given, firing, cofire, tokens_per_image=per_image, **permuting)
    if "concepts" in chosen:
        results["concepts"] = nulls.concepts_null(sae, given, firing, cofire, **permuting)
    if "random" in chosen:
        results["random"] = baselines.random_dictionary(sae, given, seed, threshold, progress)
    training: dict[str, Any] = {"steps": steps, "threshold": threshold, "progress": progress}
    if "untrained" in chosen and random_networks is not None:
        results["untrained"] = train_untrained(sae, random_networks, **training)
    if learned is not None and train is not None:
        if "linear" in chosen:
            results["linear"] = baselines.linear_baseline(given, learned, progress)
        if "initial" in chosen:
            results["initial"] = baselines.initial(sae, given, learned, steps, threshold, progress)
        if "agreement" in chosen:
            results["agreement"] = agreement_ceiling(
                sae, given, learned, dictionary_norms=evaluation.dictionary_norms,
                threshold=threshold, seed=seed, progress=progress,
            )  # fmt: skip
        for half in HALVES:
            if f"frozen_{half}" in chosen:
                results[f"frozen_{half}"] = train_frozen(sae, learned, half, steps, progress)._evaluated(
                    given, threshold, progress
                )
        if "shuffled" in chosen:
            results["shuffled"] = baselines.shuffled_pairing(sae, given, learned, seed=seed, **training)
        if "seeds" in chosen:
            results["seeds"], first = baselines.seed_ceiling(
                sae, given, train, mask_of(learned), independent, seed=seed, **training
            )
            if independent is None:
                similarity = consistency(sae, first, seed=seed, progress=progress)
    if independent is not None or "seeds" in chosen:
        results["consistency"] = similarity
    return Controls(names, evaluation, **results)


def _figures(evaluation: Evaluation | None) -> dict[str, float | None]:
    figures: dict[str, float | None] = dict.fromkeys(COLUMNS)
    if evaluation is not None:
        with np.errstate(invalid="ignore"):
            evenly = evaluation.firing_entropy >= cofiring.UNIVERSAL_ENTROPY
        figures |= _of_matrix(evaluation.r2)
        figures["agreement"] = agreement.mean_of_others(evaluation.mean_agreement())
        figures["cofire_proportion"] = cofiring.mean_of_known(evaluation.mean_cofire_proportion())
        figures["universal"] = float(universality.mask(evaluation)[0].mean())
        figures["evenly_shared"] = float(evenly.mean())
        figures["fire_in_all"] = float((~evaluation.dead).all(0).mean())
    return figures


def _of_matrix(r2: np.ndarray) -> dict[str, float | None]:
    off = ~np.eye(len(r2), dtype=bool)
    return {"r2_same": float(np.diag(r2).mean()), "r2_other": float(r2[off].mean())}


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or np.isnan(value) else format(value, form)
