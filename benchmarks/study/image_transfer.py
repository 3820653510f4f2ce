"""Whether images fire the concept that they were made for: in their own network, in others, and in nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import usae
from usae.maximization.maximizer import resized
from usae.torch import Model

QUANTILE = 0.99
"""An image fires a concept strongly if its largest code exceeds this quantile of the held-out crops' largest codes."""

ALL = "all at once"


def largest(codes: usae.Codes, concepts: Sequence[int], n_images: int) -> np.ndarray:
    """Return the largest code of some concepts in each image, [n_images, n_concepts]. Images have equally many tokens."""
    of_tokens = [np.where(codes.indices == concept, codes.values, 0).max(1) for concept in concepts]
    return np.stack(of_tokens, axis=1).reshape(n_images, -1, len(concepts)).max(1)


def read(
    sae: usae.UniversalSAE, name: str, model: Model, images: Sequence[np.ndarray], concepts: Sequence[int], batch: int = 8
) -> np.ndarray:
    """Return the largest codes in made images, [n_images, n_concepts]. An image that did not start is NaN and fires nothing."""
    there = [i for i, image in enumerate(images) if not np.isnan(image).any()]
    found = np.zeros((len(images), len(concepts)), np.float32)
    for start in range(0, len(there), batch):
        part = there[start : start + batch]
        tokens = model(np.concatenate([resized(images[i], model) for i in part]))
        found[part] = largest(sae.encode(tokens, name), concepts, len(part))
    return found


def compared(codes: np.ndarray, held_out: np.ndarray, further: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return what happens to concepts in images that were made for them, and in the two nulls.

    Parameters
    ----------
    codes : ndarray, [makers, M, C, C]
        Largest code in images; [i, j, a, b] is of concept b in the image that i made for concept a, read by model j. The first
        M makers are the models.
    held_out, further : ndarray, [M, n_crops, C]
        Largest codes in held-out crops, those that images are held against and the others. No concept is dead in the former.

    Returns
    -------
    dict
        "own concept", for each concept, [makers, M, C]; "another concept", [makers, M]; "natural", [M]. Each has "strong",
        whether the code exceeds the `QUANTILE` of held-out crops, or in which share of cases, and "code", as a share of the
        largest in held-out crops, the median in the nulls. The first also has "of its own", the code as a share of that in the
        reader's own image.
    """
    threshold, most = np.quantile(held_out, QUANTILE, axis=1)[:, None], held_out.max(1)[:, None]  # [M, 1, C]
    strong, code = codes > threshold, codes / most
    own = np.diagonal(codes, axis1=2, axis2=3)
    reader = np.diagonal(own[: own.shape[1]]).T  # [M, C]: the image of a model, read by itself
    another = ~np.eye(codes.shape[-1], dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_its_own = np.where(reader > 0, own / reader, np.nan)
    return {
        "own concept": {
            "strong": np.diagonal(strong, axis1=2, axis2=3).astype(int),
            "code": np.diagonal(code, axis1=2, axis2=3),
            "of its own": of_its_own,
        },
        "another concept": {"strong": strong[..., another].mean(-1), "code": np.median(code[..., another], -1)},
        "natural": {"strong": (further > threshold).mean((1, 2)), "code": np.median(further / most, (1, 2))},
    }


class Found(NamedTuple):
    """What one recipe's records of all seeds say. Concepts of all seeds are taken together, and nulls are means over seeds."""

    strong: np.ndarray  # [makers, M, C]
    code: np.ndarray
    of_its_own: np.ndarray
    null_strong: np.ndarray  # [makers, M]
    null_code: np.ndarray
    natural_strong: np.ndarray  # [M]
    natural_code: np.ndarray


def gathered(records: Sequence[Mapping[str, Any]]) -> Found:
    """Return the records of one recipe, of one or more seeds, as arrays."""

    def values(of: str, what: str) -> list[np.ndarray]:
        return [np.array(record["compared"][of][what], float) for record in records]

    own = [np.concatenate(values("own concept", what), axis=-1) for what in ("strong", "code", "of its own")]
    nulls = [np.mean(values(of, what), 0) for of in ("another concept", "natural") for what in ("strong", "code")]
    return Found(*own, *nulls)


def summary_row(name: str, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return one recipe's line: in its own network, in the others, of images for all, and the nulls there."""
    found = gathered(records)
    m = found.strong.shape[1]
    same, other = np.eye(m, dtype=bool), ~np.eye(m, dtype=bool)

    def mean(what: str) -> float:
        return float(np.mean([record[what] for record in records]))

    def pair(strong: np.ndarray, code: np.ndarray) -> str:
        """Return the share of strong ones, with its standard error over concepts, and the median code."""
        of_concepts = strong.mean(0)
        error = of_concepts.std(ddof=1) / np.sqrt(len(of_concepts)) if len(of_concepts) > 1 else np.nan
        return f"{of_concepts.mean():.2f} ± {error:.2f}, {np.median(code):.2f}"

    def null(strong: np.ndarray, code: np.ndarray) -> str:
        return f"{strong.mean():.3f}, {code.mean():.2f}"

    return [
        name,
        f"{mean('input noise'):.3g}",
        int(mean("universal")),
        f"{mean('R2 same'):.3f}",
        f"{mean('R2 other'):.3f}",
        f"{mean('agreement'):.3f}",
        pair(found.strong[:m][same], found.code[:m][same]),
        pair(found.strong[:m][other], found.code[:m][other]),
        f"{np.nanmedian(found.of_its_own[:m][other]):.2f}",
        pair(found.strong[m], found.code[m]),
        null(found.null_strong[:m][other], found.null_code[:m][other]),
        null(found.null_strong[m], found.null_code[m]),
        null(found.natural_strong, found.natural_code),
    ]


SUMMARY = [
    "", "input noise", "universal", "R2 same", "R2 other", "agreement", "in its own network", "in the others",
    "of their own image", "made for all", "another concept, in the others", "another concept, made for all", "natural",
]  # fmt: skip


def matrix_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the transfer matrix of one recipe: a line for each maker, then the nulls."""
    found = gathered(records)
    makers = [*records[0]["models"], ALL]

    def cells(strong: np.ndarray, code: np.ndarray, places: int = 2) -> list[str]:
        return [f"{a:.{places}f}, {b:.2f}" for a, b in zip(strong, code, strict=True)]

    own = [[maker, *cells(found.strong[i].mean(-1), np.median(found.code[i], -1))] for i, maker in enumerate(makers)]
    null = zip(makers, found.null_strong, found.null_code, strict=True)
    other = [[f"{maker}, another concept", *cells(strong, code)] for maker, strong, code in null]
    return [*own, *other, ["natural images", *cells(found.natural_strong, found.natural_code, 3)]]
