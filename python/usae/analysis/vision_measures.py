"""`Evaluation.vision`: where in images concepts fire, how alike their strongest images are, and which labels they tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae._base.json import plain
from usae._base.progress import row_bar
from usae._core.evaluation import PART
from usae._data.activations import Activations, mask_of
from usae.analysis.embeddings import mean_cosines, of_images
from usae.analysis.given_labels import Truth, as_labels
from usae.analysis.image_codes import ImageCodes, Pool
from usae.analysis.image_samples import Ranked
from usae.analysis.images import Images, images_of
from usae.analysis.label_scores import Entries, LabelScores, blocks, score
from usae.analysis.spatial import firing_maps
from usae.errors import InvalidInputError, UsaeMemoryError

if TYPE_CHECKING:
    from usae._estimator.universal_sae import UniversalSAE
    from usae.analysis.evaluation import Evaluation

EXAMPLES = 8
"""Strongest images whose embeddings are compared, as many as the explorer shows."""

MOST_ENTRIES = 2**24
"""Codes of all models that are held at once to be ranked, 12 bytes each."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class VisionMeasures:
    """What `UniversalSAE.evaluate` measures of concepts in images, for M models and m concepts.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_images : int or None
        Number of images in which a token counts; None if it is not known which rows are of one image.
    grid : (int, int) or None
        Rows and columns of tokens in an image; None if they are not known.
    coherence : ndarray of float64, [M, m], or None
        Moran's I of the map of the concept's code over an image, a mean over all images in which it fires: 1 is one smooth
        patch, about 0 scattered tokens. NaN for a concept that never fires, or everywhere equally. None without a grid.
    area : ndarray of float64, [M, m], or None
        Share of an image's tokens in which the concept fires, a mean over all images in which it fires. NaN for one that never
        fires. None if images are not known.
    example_coherence : ndarray of float64, [M, m], or None
        Mean cosine of the embeddings of each two of the concept's 8 strongest images, relative to the mean embedding of all
        images: 1 if they are alike, about 0 for images at random. NaN with fewer than two. None without embeddings.
    labels : LabelScores or None
        Best F1 and AUROC of each concept and label. None without labels.
    """

    model_names: tuple[str, ...]
    n_images: int | None
    grid: tuple[int, int] | None
    coherence: np.ndarray | None
    area: np.ndarray | None
    example_coherence: np.ndarray | None
    labels: LabelScores | None

    def columns(self) -> dict[str, np.ndarray]:
        """Return what `Evaluation.to_frame` has of this, each [m], such as "coherence[vit]" and "best_f1[vit]"."""
        found: dict[str, np.ndarray] = {}
        for name in ("coherence", "area", "example_coherence"):
            values = getattr(self, name)
            if values is not None:
                found |= {f"{name}[{model}]": values[i] for i, model in enumerate(self.model_names)}
        return found if self.labels is None else found | self.labels.columns()

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain Python values, ready for JSON. NaN becomes None."""
        values = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self) if field.name != "labels"}
        return values | {"labels": None if self.labels is None else self.labels.to_dict()}

    def __repr__(self) -> str:
        known = [name for name in ("coherence", "area", "example_coherence", "labels") if getattr(self, name) is not None]
        return f"VisionMeasures({', '.join(self.model_names)}; {', '.join(known)})"


@dataclasses.dataclass(frozen=True)
class Asked:
    """Checked arguments of `UniversalSAE.evaluate` that ask for measures of images."""

    of: Images
    embeddings: np.ndarray | None
    truth: Truth | None


def asked(acts: Mapping[str, Activations], grid: object, embeddings: object, labels: object) -> Asked:
    """Check the arguments."""
    of = images_of(acts, None if grid is None else checks.grid(grid))
    n_rows = next(iter(acts.values())).n_rows
    if not of.known and (labels is None or embeddings is not None):
        raise InvalidInputError(
            f"grid must be given for measures of images, got None for acts [{n_rows}, width]; or give activations "
            "[images, tokens, width]"
        )
    images = None if embeddings is None else of_images(embeddings, n_rows // of.tokens)
    return Asked(of, images, None if labels is None else as_labels(labels, of, n_rows))


def measure(
    sae: UniversalSAE,
    acts: Mapping[str, Activations],
    evaluation: Evaluation,
    asked: Asked,
    progress: bool | None = False,
) -> VisionMeasures:
    """Measure what is asked for in one pass over the codes, or a few if they have more entries than are held at once."""
    of, truth, (n_models, m) = asked.of, asked.truth, evaluation.firing_counts.shape
    pool, counts = Pool(sae._initialized(), acts, of), mask_of(acts)
    there = None if counts is None else counts.reshape(len(pool), pool.places)
    maps = _Maps(n_models, m, of, evaluation.threshold, there)
    strongest = None if asked.embeddings is None else _Strongest(n_models, m, asked.embeddings)
    scores = None if truth is None else _Scores(n_models, m, truth, evaluation.threshold, there)
    first: list[_Maps | _Strongest] = ([maps] if of.known else []) + ([] if strongest is None else [strongest])
    ends = np.concatenate([[0], np.cumsum(evaluation.firing_counts.sum(0))])
    parts = [slice(0, m)] if scores is None else list(blocks(ends, MOST_ENTRIES))
    with row_bar(len(pool) * pool.places * len(parts), progress, "measuring", PART) as bar:
        for block in parts:
            for codes in pool.chunks():
                for one in first:
                    one.add(codes)
                if scores is not None:
                    scores.add(codes, block)
                bar.update(len(codes.numbers) * pool.places)
            first = []
            if scores is not None:
                scores.end(block)
    return VisionMeasures(
        evaluation.model_names,
        n_images=maps.n_images if of.known else None,
        grid=of.grid,
        coherence=maps.mean(0) if of.grid is not None else None,
        area=maps.mean(1) if of.known else None,
        example_coherence=None if strongest is None else strongest.coherence(),
        labels=None if scores is None else scores.result(evaluation.model_names),
    )


class _Maps:
    """Sums of coherence and area over the images in which a concept fires."""

    def __init__(self, n_models: int, m: int, of: Images, threshold: float, there: np.ndarray | None):
        self._m, self._of, self._threshold, self._there = m, of, threshold, there
        self._sums = np.zeros((2, n_models, m))
        self._numbers = np.zeros((2, n_models, m))
        self.n_images = 0

    def add(self, codes: ImageCodes) -> None:
        there = None if self._there is None else self._there[codes.numbers]
        self.n_images += len(codes.numbers) if there is None else int(there.any(1).sum())
        for model, (values, concepts) in enumerate(zip(codes.values, codes.concepts, strict=True)):
            found = firing_maps(values, concepts, self._m, self._of.grid, threshold=self._threshold, counts=there)
            for kind, numbers in enumerate((found.coherence, found.area)):
                known = ~np.isnan(numbers)
                self._sums[kind, model] += np.bincount(found.concepts[known], numbers[known], self._m)
                self._numbers[kind, model] += np.bincount(found.concepts[known], minlength=self._m)

    def mean(self, kind: int) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return self._sums[kind] / self._numbers[kind]


class _Strongest:
    """The strongest images of each concept and model, and how alike their embeddings are."""

    def __init__(self, n_models: int, m: int, embeddings: np.ndarray):
        self._embeddings, self._ranked = embeddings, [Ranked(m, EXAMPLES) for _ in range(n_models)]

    def add(self, codes: ImageCodes) -> None:
        for ranked, peaks in zip(self._ranked, codes.peaks[0], strict=True):
            ranked.add(peaks, codes.numbers)

    def coherence(self) -> np.ndarray:
        return np.stack([mean_cosines(self._embeddings, ranked.images) for ranked in self._ranked])


class _Scores:
    """F1 and AUROC of all concepts and labels, for a block of concepts after the other."""

    def __init__(self, n_models: int, m: int, truth: Truth, threshold: float, there: np.ndarray | None):
        self._truth, self._threshold = truth, threshold
        counts = np.ones(len(truth.starts) - 1, bool)
        if there is not None:
            counts[:] = there.any(1) if truth.of_images else there.ravel()
        has = np.repeat(counts, np.diff(truth.starts))
        self._n_rows = int(counts.sum())
        self._positives = np.bincount(truth.labels[has], minlength=len(truth.names))
        shape = n_models, m, len(truth.names)
        try:
            self._f1, self._auroc = np.empty(shape, np.float32), np.empty(shape, np.float32)
        except MemoryError as error:
            raise UsaeMemoryError(
                f"labels must leave scores that fit into memory, got {shape[2]:,} labels, {8 * math.prod(shape):,} bytes; give "
                "fewer at a time"
            ) from error
        self._entries: list[list[Entries]] = [[] for _ in range(n_models)]

    def add(self, codes: ImageCodes, block: slice) -> None:
        if self._truth.of_images:
            peaks = codes.peaks[0][:, :, block]
            for model, of_model in enumerate(peaks):
                image, concept = np.nonzero(of_model > self._threshold)
                self._take(model, concept, of_model[image, concept], codes.numbers[image])
            return
        places = codes.values.shape[2]
        for model, (values, concepts) in enumerate(zip(codes.values, codes.concepts, strict=True)):
            chosen = (values > self._threshold) & (concepts >= block.start) & (concepts < block.stop)
            image, place, _ = np.nonzero(chosen)
            rows = codes.numbers[image] * places + place
            self._take(model, concepts[chosen] - block.start, values[chosen], rows)

    def _take(self, model: int, concepts: np.ndarray, values: np.ndarray, rows: np.ndarray) -> None:
        kind = np.int32 if len(self._truth.starts) <= 2**31 else np.int64
        self._entries[model].append(Entries(concepts.astype(np.int32), values, rows.astype(kind)))

    def end(self, block: slice) -> None:
        """Score a block of concepts, all of whose codes were added."""
        for model, parts in enumerate(self._entries):
            entries = Entries(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
            parts.clear()
            n = block.stop - block.start
            found = score(entries, n, self._truth, self._n_rows, self._positives)
            self._f1[model, block], self._auroc[model, block] = found

    def result(self, names: tuple[str, ...]) -> LabelScores:
        truth = self._truth
        return LabelScores(names, truth.names, truth.of_images, self._n_rows, self._positives, self._f1, self._auroc)
