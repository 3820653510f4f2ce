"""Checks that two sides of a comparison computed the same, before their times are compared."""

from __future__ import annotations

import numpy as np


class Disagreement(Exception):
    """Two sides of a comparison did not compute the same."""


def codes_agree(file: str, other_file: str) -> dict[str, float]:
    """Compare codes in two npz files with values and indices, [n, k]. Values of 0 are no codes.

    Float32 products in different orders differ by about 1e-6 of their size. A token's last concept may also be replaced by
    another one of equal value. So values of common concepts must differ by less than 1e-4 of the largest code, and a concept
    that only one side has must differ by less than that from the token's smallest code.

    Returns
    -------
    dict
        "codes": number of codes that were compared. "largest_difference": relative to the largest code. "swapped": share of
        codes that only one side has.
    """
    sides = [_entries(name) for name in (file, other_file)]
    (values, keys, smallest), (other_values, other_keys, other_smallest) = sides
    largest = float(values.max())
    tolerance = 1e-4 * largest
    common, at, other_at = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    difference = float(np.abs(values[at] - other_values[other_at]).max()) if len(common) else 0.0
    alone = np.delete(values - smallest, at), np.delete(other_values - other_smallest, other_at)
    excess = max((float(part.max()) for part in alone if len(part)), default=0.0)
    if difference > tolerance or excess > tolerance or len(common) < 0.99 * len(keys):
        raise Disagreement(
            f"codes differ: {len(common)} of {len(keys)} concepts in common, values by up to {difference:.3g} and chosen "
            f"concepts by {excess:.3g}, allowed {tolerance:.3g}"
        )
    return {
        "codes": len(keys),
        "largest_difference": difference / largest,
        "swapped": 1 - len(common) / max(len(keys), len(other_keys)),
    }


def _entries(file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return value, unique key and the smallest value of the same token, for all codes that are not 0."""
    with np.load(file) as arrays:
        values, indices = arrays["values"], arrays["indices"].astype(np.int64)
    keys = np.arange(len(values))[:, None] * 2**32 + indices
    smallest = np.broadcast_to(values.min(1, keepdims=True), values.shape)  # 0 if fewer than k are positive
    positive = values > 0
    return values[positive], keys[positive], smallest[positive]


def steps_agree(ours: str, theirs: str, loss: float, other_loss: float, rate: float) -> dict[str, float]:
    """Compare a training step in two npz files, which have gradients and the parameters after the step, by our names.

    Float32 products in different orders differ by about 1e-6. In 6272 x 6144 pre-activations this changes which concept is
    selected last in about one token, so that the gradients of that token's k + 1 concepts differ, and no others. So the rows of
    a gradient are compared one by one, with errors relative to a typical row's norm. The median error must be below 2e-4, and
    at most 5 % of the rows may exceed 1e-3. (The median is usually 1e-6; but the published AuxK is dense, and each sign that
    changes in its L1 loss changes every row.) The losses must agree to 1e-5.

    AdamW's first step is the learning rate times the sign of each gradient, so 99 % of the elements of a parameter must agree
    to a tenth of the rate, and all to two rates. encoder_bias is not compared, because BatchNorm follows it and its gradient is
    only rounding.

    Returns
    -------
    dict
        "loss": relative difference. "median_row", "rows_apart": errors of the worst gradient. "moved_otherwise": share of
        elements of the worst parameter.
    """
    found = {"loss": abs(loss - other_loss) / abs(other_loss), "median_row": 0.0, "rows_apart": 0.0, "moved_otherwise": 0.0}
    if not found["loss"] < 1e-5:
        raise Disagreement(f"losses differ: {loss:.8g} and {other_loss:.8g}")
    with np.load(ours) as mine, np.load(theirs) as other:
        standardization = {"mean", "scale"}  # the PyTorch side does not have these, because its batch is standardised
        missing = (set(mine) - standardization) ^ set(other)
        if missing:
            raise Disagreement(f"only one side has {', '.join(sorted(missing))}")
        for key in set(other) - {"encoder_bias", "gradient_encoder_bias"}:
            a, b = mine[key].astype(np.float64), other[key].astype(np.float64)
            if key.startswith("gradient_"):
                _compare_gradients(key, a.reshape(len(a), -1), b.reshape(len(b), -1), found)
            elif "running" in key:
                if not np.allclose(a, b, rtol=1e-4, atol=1e-5):
                    raise Disagreement(f"{key}: differs by up to {np.abs(a - b).max():.3g}")
            else:
                _compare_parameters(key, a, b, rate, found)
    return found


def _compare_gradients(key: str, a: np.ndarray, b: np.ndarray, found: dict[str, float]) -> None:
    typical = np.sqrt((b**2).sum(1).mean())
    errors = np.linalg.norm(a - b, axis=1) / typical
    middle, apart = float(np.median(errors)), float((errors > 1e-3).mean())
    if not (middle < 2e-4 and apart < 0.05):
        raise Disagreement(f"{key}: rows differ by {middle:.3g} of a typical norm, {apart:.2%} of them by more than 1e-3")
    found["median_row"] = max(found["median_row"], middle)
    found["rows_apart"] = max(found["rows_apart"], apart)


def _compare_parameters(key: str, a: np.ndarray, b: np.ndarray, rate: float, found: dict[str, float]) -> None:
    errors = np.abs(a - b)
    share = float((errors > 0.1 * rate).mean())
    if not (share < 0.01 and errors.max() < 2.1 * rate):
        raise Disagreement(f"{key}: {share:.2%} of the elements moved otherwise, by up to {errors.max():.3g}")
    found["moved_otherwise"] = max(found["moved_otherwise"], share)
