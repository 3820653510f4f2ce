"""What ablating concepts does to the outputs of networks: the result of `usae.torch.concept_effects`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html, text_tables
from usae._base.frames import pandas_for
from usae._base.json import plain
from usae.analysis.effect_agreement import EffectAgreement
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas

SHOWN = 10
"""Concepts that a summary lists."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ConceptEffects:
    """Effects of concepts on the outputs of M networks: of all m concepts to first order, exactly of n that were ablated.

    All numbers are changes by ablation, which sets a concept's code to 0: a score that the concept supports becomes smaller.
    Means are over the images in which the concept is active in the network's model; they are NaN if there are none.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_images : int
        Number of images.
    scores : tuple of str, [M]
        What the score of each network is: "logit of the label" or "logit of the predicted class", both relative to the mean
        logit of the image; "share of the code's contribution" of an embedding, which is -1 if the concept alone does what the
        whole code does; or "value".
    concepts : ndarray of int64, [n]
        Concepts that were ablated: those that were asked for, then controls.
    n_chosen : int
        How many of them were asked for.
    images_active : ndarray of int64, [M, m]
        Number of images in which a concept is active.
    mean_code, firing_rate : ndarray of float64, [M, m]
        Mean of its code over all tokens, and share of tokens in which it is active.
    first_order : ndarray of float64, [M, m], or None
        Mean change of the score to first order: minus code x gradient, summed over tokens. None if it was not computed.
    first_order_size : ndarray of float64, [M, m], or None
        Mean of its absolute value.
    change : ndarray of float64, [M, n]
        Mean change of the score.
    size : ndarray of float64, [M, n]
        Mean size of the change of the whole output: of logits its root mean square over classes, after the mean is subtracted;
        of an embedding its norm as a share of the embedding's; of a value its absolute value.
    class_changes : dict of str to ndarray of float64, each [n, classes]
        Mean change of each logit, relative to the mean logit, for networks that give logits.
    agreement : EffectAgreement
        Whether the same images change: rank correlation over images of the sizes of two networks' changes, [M, M, n].
    active_agreement : EffectAgreement
        The same over the images in which the concept is active in both models.
    code_agreement : EffectAgreement
        The same of the codes, summed over an image's tokens: what there would be if effects were as large as codes.
    class_agreement : EffectAgreement or None
        Whether the same classes change: cosine of the mean changes of logits. NaN for networks with other numbers of classes;
        None if no two networks have equally many.
    first_order_agreement : EffectAgreement or None
        `agreement` of all concepts by the absolute changes of scores to first order, [M, M, m].
    """

    model_names: tuple[str, ...]
    n_images: int
    scores: tuple[str, ...]
    concepts: np.ndarray
    n_chosen: int
    images_active: np.ndarray
    mean_code: np.ndarray
    firing_rate: np.ndarray
    first_order: np.ndarray | None
    first_order_size: np.ndarray | None
    change: np.ndarray
    size: np.ndarray
    class_changes: dict[str, np.ndarray]
    agreement: EffectAgreement
    active_agreement: EffectAgreement
    code_agreement: EffectAgreement
    class_agreement: EffectAgreement | None
    first_order_agreement: EffectAgreement | None

    @property
    def chosen(self) -> np.ndarray:
        """Concepts that were asked for, int64 [n_chosen]."""
        return self.concepts[: self.n_chosen]

    @property
    def first_order_correlation(self) -> np.ndarray:
        """Correlation of mean changes to first order and exact ones over the ablated concepts, float64 [M]. NaN without any."""
        found = np.full(len(self.model_names), np.nan)
        for i, exact in enumerate(self.change if self.first_order is not None else ()):
            estimate = self.first_order[i, self.concepts]  # type: ignore[index]
            known = ~np.isnan(exact) & ~np.isnan(estimate)
            if known.sum() > 1 and np.ptp(exact[known]) > 0 and np.ptp(estimate[known]) > 0:
                found[i] = np.corrcoef(exact[known], estimate[known])[0, 1]
        return found

    def classes(self, concept: int, model: str, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes whose logits an ablation lowers most, and by how much they change.

        Parameters
        ----------
        concept : int
            One of `concepts`.
        model : str
            Name of the model of a network that gives logits.
        n : int
            How many classes. Default: 5.

        Returns
        -------
        tuple of ndarray of int64 and of float64, each [n]
            The classes, the one that is lowered most first, and the mean changes of their logits.
        """
        if model not in self.class_changes:
            raise InvalidInputError(
                f"model must be one whose network gives logits ({', '.join(self.class_changes) or 'there is none'}), got "
                f"{checks.shown(model)}"
            )
        changes = self.class_changes[model][self.place(concept)]
        classes = np.argsort(changes, kind="stable")[: checks.integer(n, "n", 1, 2**31 - 1)]
        return classes, changes[classes]

    def place(self, concept: int) -> int:
        """Return the place of a concept in `concepts`.

        Parameters
        ----------
        concept : int
            One of `concepts`.
        """
        places = np.flatnonzero(self.concepts == checks.integer(concept, "concept", 0, self.images_active.shape[1] - 1))
        if not len(places):
            raise InvalidInputError(
                f"concept must be one that was ablated, of which there are {len(self.concepts)}, got {concept}"
            )
        return int(places[0])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of `to_frame`, each [m]; NaN for concepts that were not ablated."""
        own: dict[str, Any] = {"images_active": self.images_active, "first_order": self.first_order}
        own |= {name: self.spread(values) for name, values in (("change", self.change), ("size", self.size))}
        found = {
            f"{name}[{model}]": values[i]
            for name, values in own.items()
            if values is not None
            for i, model in enumerate(self.model_names)
        }
        pairs = itertools.combinations(range(len(self.model_names)), 2)
        for (i, j), (name, one) in itertools.product(pairs, self._agreements()):
            for what, values in {"": one.value, "_null": one.null, "_p": one.p_value}.items():
                each = values[i, j] if one is self.first_order_agreement else self.spread(values[i, j])
                found[f"{name}{what}[{self.model_names[i]}, {self.model_names[j]}]"] = each
        return found

    def _agreements(self) -> list[tuple[str, EffectAgreement]]:
        every = {
            "effect_agreement": self.agreement,
            "active_effect_agreement": self.active_agreement,
            "active_code_agreement": self.code_agreement,
            "class_agreement": self.class_agreement,
            "first_order_agreement": self.first_order_agreement,
        }
        return [(name, one) for name, one in every.items() if one is not None]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return numbers of ablated concepts at their places among all concepts, float64 [..., m]; the others are NaN.

        Parameters
        ----------
        values : ndarray, [..., n]
            Numbers such as `change`.
        """
        found = np.full((*values.shape[:-1], self.images_active.shape[1]), np.nan)
        found[..., self.concepts] = values
        return found

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each concept, as `Evaluation.to_frame` has them: join the two.

        Columns of a model are ``images_active[vit]``, ``first_order[vit]``, ``change[vit]`` and ``size[vit]``. Of two models
        there are ``effect_agreement[dinov2, vit]``, with ``effect_agreement_null`` and ``effect_agreement_p``, and likewise
        ``active_effect_agreement``, ``active_code_agreement``, ``class_agreement`` and ``first_order_agreement``. Exact numbers
        of concepts that were not ablated are NaN.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("ConceptEffects.to_frame")
        return pandas.DataFrame(self.columns(), index=pandas.RangeIndex(self.images_active.shape[1], name="concept"))

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, ready for JSON. NaN becomes None."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            found[field.name] = value.to_dict() if isinstance(value, EffectAgreement) else plain(value)
        return found

    def summary(self) -> str:
        """Return tables as text: the networks, the agreement of pairs beside its null, and the concepts with most effect."""
        names = self.model_names
        numbers = [(*self._means(i), correlation) for i, correlation in enumerate(self.first_order_correlation)]
        rows = [[name, self.scores[i], *(_number(value, "3g") for value in numbers[i])] for i, name in enumerate(names)]
        heads = ["network", "score", "change", "size", "r first order"]
        lines = [self._heading(), "", *text_tables.table(heads, rows, n_names=2, least=8)]
        titles, pairs = self._pairs()
        if pairs:
            lines += ["", *text_tables.table(titles, pairs, n_names=3, least=6)]
        if self.n_chosen:
            beside = ", and agreement of pairs over images (null)" if len(names) > 1 else ""
            lines += ["", f"Mean change by ablation{beside}"]
            lines += [*text_tables.table(*self._concepts(), n_names=1, least=8)]
        return "\n".join(line.rstrip() for line in lines)

    def _heading(self) -> str:
        controls = len(self.concepts) - self.n_chosen
        others = f", with {controls:,} others as controls" if controls else ""
        return f"Effects of {self.n_chosen:,} ablated concepts{others}; {self.n_images:,} images"

    def _means(self, i: int) -> list[float]:
        """Return the mean change and size in a network, over the concepts that were asked for."""
        each = (values[i, : self.n_chosen] for values in (self.change, self.size))
        return [float(np.nanmean(values)) if (~np.isnan(values)).any() else np.nan for values in each]

    def _pairs(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        titles = {
            "effect_agreement": "images",
            "active_effect_agreement": "active images",
            "active_code_agreement": "active images, codes",
            "class_agreement": "classes",
        }
        for name, one in self._agreements():
            of = titles.get(name)
            places = np.arange(self.n_chosen) if of else self.chosen if self.n_chosen else np.arange(one.value.shape[2])
            found, alike = one.mean(places), one.p_value[..., places] <= 0.05
            for i, j in itertools.combinations(range(len(self.model_names)), 2):
                if found.n_concepts[i, j]:
                    row = [self.model_names[i], self.model_names[j], of or "to first order", f"{found.value[i, j]:.3f}"]
                    row += [f"{found.null[i, j]:.3f}", f"{found.low[i, j]:.3f} to {found.high[i, j]:.3f}"]
                    rows.append([*row, f"{found.p_value[i, j]:.3g}", f"{alike[i, j].sum()} of {int(found.n_concepts[i, j])}"])
        return ["agreement of", "and", "over", "mean", "null", "95 % of draws", "p", "p <= .05 each"], rows

    def _concepts(self) -> tuple[list[str], list[list[str]]]:
        """Return a table of the concepts whose sizes are largest, relative to the mean in each network."""
        size = self.size[:, : self.n_chosen]
        known = ~np.isnan(size)
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.where(known, size, 0) / (np.where(known, size, 0).sum(1) / known.sum(1))[:, None]
        order = np.argsort(-np.nan_to_num(relative).sum(0), kind="stable")[:SHOWN]
        null, names = self.agreement.null, self.model_names
        pairs = list(itertools.combinations(range(len(names)), 2))
        heads = ["concept", *names, *(f"{names[i]}, {names[j]}" for i, j in pairs)]
        rows = [
            [str(self.concepts[c]), *(_number(value, "3f") for value in self.change[:, c])]
            + [f"{_number(self.agreement.value[i, j, c], '2f')} ({_number(null[i, j, c], '2f')})" for i, j in pairs]
            for c in order
        ]
        return heads, rows

    def _repr_html_(self) -> str:
        """Return the concepts with most effect as a table, for notebooks."""
        return html.table(self._heading(), *self._concepts())

    def __repr__(self) -> str:
        return f"ConceptEffects({', '.join(self.model_names)}; {self.n_chosen} concepts ablated, n_images={self.n_images})"


def _number(value: float, digits: str) -> str:
    return "-" if np.isnan(value) else format(value, f".{digits}")


def most_energetic(energy: np.ndarray, among: np.ndarray, n: int) -> np.ndarray:
    """Return the n concepts, of those among which to choose, bool [m], whose smallest energy in any model is largest.

    `energy` is [M, m].
    """
    places = np.flatnonzero(among)
    order = np.argsort(-energy.min(0)[places], kind="stable")
    return places[order[:n]]


def with_controls(concepts: Sequence[int] | np.ndarray, mean_code: np.ndarray, firing_rate: np.ndarray, n: int) -> np.ndarray:
    """Return for concepts the n other ones each whose mean code and firing rate, [M, m], are closest, without repetition."""
    features = np.stack([*mean_code, *firing_rate])
    alive: np.ndarray = np.logical_and.reduce(features > 0)
    with np.errstate(divide="ignore"):
        logarithms = np.log(features)
    taken = set(np.asarray(concepts).tolist())
    candidates = np.flatnonzero(alive & ~np.isin(np.arange(len(alive)), list(taken)))
    found: list[int] = []
    for concept in concepts:
        if alive[concept]:
            distances = np.abs(logarithms[:, candidates] - logarithms[:, [concept]]).max(0)
            found += candidates[np.argsort(distances, kind="stable")[:n]].tolist()
    return np.array(list(dict.fromkeys(found)), np.int64)
