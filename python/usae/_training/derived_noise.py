"""`Recipe.input_noise` where it is None: what ridge regressions between the models say of how much noise is good.

Noise of variance v in what a linear map reads is a ridge penalty of v for each token (Bishop, 1995, "Training with noise is
equivalent to Tikhonov regularization"). So ridge regressions from each model to the others, on a sample of the rows, say how
much noise keeps a map from learning its rows by heart: none to speak of where tokens are many, much where they are the patches
of a few photographs. An encoder learns by heart what such a map would, but passes on less of the noise, through its few active
concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from usae._data.activations import Activations
from usae._data.chunks import rows_of, tokens_per_image
from usae.recipes import Recipe

N_ROWS = 4096
"""Rows of the sample. The best penalty for each token falls with their number, so it is scaled to that of all rows."""

N_BLOCKS, FEWEST_BLOCKS = 64, 16
"""Blocks of consecutive rows that the sample is made of, and how many if it is most of the rows.

Rows of an image are alike: rows of images that were fitted would be no test. Where images are known, each is a block. Where
they are not, short blocks stand far apart, or if there are few rows long blocks touch, so that few images are on both sides."""

HELD_OUT = 4
"""One of so many blocks tests the maps."""

PENALTIES = 10.0 ** np.arange(-5, 2.05, 0.1)
"""For each token, of activations with a mean variance of 1."""

OF_LINEAR = 1.5
"""Noise of an encoder, as a multiple of the best one of a linear map. Measured: docs/recipes.md."""

LARGEST = 1.0
"""As much noise as there is signal."""


def filled_in(recipe: Recipe, asked: Recipe, parts: Sequence[Mapping[str, Activations]], n_rows: int | None = None) -> Recipe:
    """Return a resolved recipe with the input noise for these rows, if none was `asked` for.

    `n_rows` is how many rows there are to train on, if they are more than these. Default: None.
    """
    return recipe if asked.input_noise is not None else recipe.replace(input_noise=derived(parts, recipe, n_rows))


def derived(parts: Sequence[Mapping[str, Activations]], recipe: Recipe, n_rows: int | None = None) -> float:
    """Return the standard deviation of the noise, of standardised activations, from 0 to `LARGEST`.

    It is `OF_LINEAR` times the root of the best penalty for each token, a geometric mean over the models, of the largest part
    of the data that has two models or more. Without such a part, or with rows that are not finite (which other checks tell
    of), it is 0. Penalties are steps of a tenth of a decade, so that rounding on another machine changes nothing.
    """
    aligned = [part for part in parts if len(part) > 1]
    if not aligned:
        return 0.0
    part = max(aligned, key=lambda each: next(iter(each.values())).n_tokens)
    own_rows = next(iter(part.values())).n_tokens
    sample = _sample(part, own_rows, recipe)
    if sample is None:
        return 0.0
    rows, held_out = sample
    share = int((~held_out).sum()) / max(own_rows, n_rows or 0)
    best = [share * _best_penalty(rows, name, held_out) for name in rows]
    if not all(best):
        return 0.0
    deviation = OF_LINEAR * np.sqrt(np.exp(np.mean(np.log(best))))
    return float(f"{min(deviation, LARGEST):.2e}")


def _sample(part: Mapping[str, Activations], n_rows: int, recipe: Recipe) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Return standardised rows of each model in evenly spaced blocks, and which of them are held out.

    Rows that are outlying in a model are left out, as they are shortened in training. The result is None if no map can be
    fitted and tested: there are too few blocks, some rows are not finite, or a model has no variance.
    """
    blocks = _blocks(n_rows, tokens_per_image(part))
    if len(blocks) < HELD_OUT:
        return None
    held_out = np.repeat(np.arange(len(blocks)) % HELD_OUT == 1, [block.stop - block.start for block in blocks])
    rows = {name: np.concatenate([rows_of(x, block) for block in blocks]).astype(np.float64) for name, x in part.items()}
    usual = np.ones(len(held_out), bool)
    for own in rows.values():
        with np.errstate(all="ignore"):
            distances = np.linalg.norm(own - own.mean(0), axis=1)
        if not np.isfinite(distances).all():
            return None
        if recipe.outlier_multiple is not None:
            usual &= distances <= recipe.outlier_multiple * np.median(distances)
    held_out = held_out[usual]
    if held_out.all() or not held_out.any():
        return None
    for name, own in rows.items():
        kept = own[usual]
        centered = kept - kept[~held_out].mean(0)
        scale = np.sqrt((centered[~held_out] ** 2).mean())
        if scale == 0:
            return None
        rows[name] = centered / scale
    return rows, held_out


def _blocks(n_rows: int, per_image: int | None) -> list[slice]:
    """Return evenly spaced blocks of some `N_ROWS` rows in all, or of all rows."""
    if per_image is not None:
        n_images = n_rows // per_image
        wanted = min(n_images, max(N_BLOCKS, N_ROWS // per_image))
        return [slice(i * per_image, (i + 1) * per_image) for i in (block * n_images // wanted for block in range(wanted))]
    n_blocks = N_BLOCKS if n_rows >= HELD_OUT * N_ROWS else FEWEST_BLOCKS
    size = min(n_rows, N_ROWS) // n_blocks
    return [slice(start, start + size) for start in (block * n_rows // n_blocks for block in range(n_blocks)) if size]


def _best_penalty(rows: Mapping[str, np.ndarray], name: str, held_out: np.ndarray) -> float:
    """Return the penalty with which ridge regression from a model predicts the others' held-out rows best; 0 if the least does.

    Weights are V diag(f) K with eigenvectors V of the covariance, f = 1 / (eigenvalues + penalty), and K the covariance of
    V's dimensions and the targets. So R2 is quadratic in f, and a penalty costs no product with rows. Where there are fewer
    rows than dimensions, V are the eigenvectors of the rows' products.
    """
    x, new = rows[name][~held_out], rows[name][held_out]
    n, width = x.shape
    is_dual = width > n
    values, vectors = np.linalg.eigh((x @ x.T if is_dual else x.T @ x) / n)
    seen = (new @ x.T / n if is_dual else new) @ vectors
    linear, quadratic = np.zeros(len(values)), np.zeros((len(values), len(values)))
    for other, y in rows.items():
        if other == name:
            continue
        truth = y[held_out]
        spread = float(((truth - truth.mean(0)) ** 2).sum()) or 1.0
        known = vectors.T @ (y[~held_out] if is_dual else x.T @ y[~held_out] / n)
        linear += (known * (seen.T @ truth)).sum(1) / spread
        quadratic += known @ known.T / spread
    quadratic *= seen.T @ seen
    factors = 1 / (np.maximum(values, 0) + PENALTIES[:, None])
    r2 = 2 * factors @ linear - ((factors @ quadratic) * factors).sum(1)
    at = int(r2.argmax())
    return float(PENALTIES[at]) if at else 0.0
