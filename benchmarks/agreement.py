"""Whether two sides computed the same, before their times are compared."""

from __future__ import annotations

import numpy as np


class Disagreement(Exception):
    """Two sides of a comparison did not compute the same."""


def codes_agree(file: str, other_file: str) -> dict[str, float]:
    """Compare codes, npz with values and indices [n, k]; zeros are no codes.

    Float32 products in different orders differ by about 1e-6 of their size, which may also swap a token's last concept for
    one that is as large. So values of common concepts must be within 1e-4 of the largest code, and a concept that only one
    side has must be within that of the token's smallest code.

    Returns
    -------
    dict
        "codes": how many were compared, "largest_difference" relative to the largest code, "swapped": share of codes that
        one side alone has.
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
    """Values, unique keys and the smallest value of the same token, of all codes that are not zero."""
    with np.load(file) as arrays:
        values, indices = arrays["values"], arrays["indices"].astype(np.int64)
    keys = np.arange(len(values))[:, None] * 2**32 + indices
    smallest = np.broadcast_to(values.min(1, keepdims=True), values.shape)  # 0 where fewer than k are positive
    positive = values > 0
    return values[positive], keys[positive], smallest[positive]


def steps_agree(ours: str, theirs: str, loss: float, other_loss: float, rate: float) -> dict[str, float]:
    """Compare a training step, npz with gradients and with parameters afterwards, by our names.

    Rounding turns a few of many selections and signs of the L1 residual, and AdamW's first step is the learning rate times
    the sign of each gradient. So losses must agree to 1e-5, gradients to 1e-2 of their norm, and all but 1 % of the elements
    of a parameter must have moved alike, to a tenth of the learning rate; none may differ by more than two rates and a bit.
    encoder_bias stands before BatchNorm: its gradient is nothing but rounding, and it is left out.
    """
    found = {"loss": abs(loss - other_loss) / abs(other_loss), "gradients": 0.0, "moved_otherwise": 0.0}
    if not found["loss"] < 1e-5:
        raise Disagreement(f"losses differ: {loss:.8g} and {other_loss:.8g}")
    with np.load(ours) as mine, np.load(theirs) as other:
        for key in mine:
            if "encoder_bias" in key or key not in other:
                continue
            a, b = mine[key].astype(np.float64), other[key].astype(np.float64)
            if key.startswith("gradient_"):
                error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
                found["gradients"] = max(found["gradients"], error)
                if not error < 1e-2:
                    raise Disagreement(f"{key}: differs by {error:.3g} of its norm")
            elif "running" in key:
                if not np.allclose(a, b, rtol=1e-4, atol=1e-5):
                    raise Disagreement(f"{key}: differs by up to {np.abs(a - b).max():.3g}")
            else:
                error = np.abs(a - b)
                share = float((error > 0.1 * rate).mean())
                found["moved_otherwise"] = max(found["moved_otherwise"], share)
                if not (share < 0.01 and error.max() < 2.1 * rate):
                    raise Disagreement(f"{key}: {share:.2%} of the elements moved otherwise, by up to {error.max():.3g}")
    return found
