"""Whether the type of activations holds their spread about the mean that an autoencoder subtracts.

Nothing is read for it but the mean and scale of the autoencoder, once for each model and type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from usae._base import float_types
from usae._base.float_types import MUCH, TOO_MUCH
from usae._base.warning import warn
from usae._data.activations import Activations
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae._core.autoencoder import Autoencoder


def check(autoencoder: Autoencoder, acts: Mapping[str, Activations]) -> None:
    """Refuse or warn of activations of an autoencoder's models whose type rounds away what they vary by.

    A type that rounds no more than that of the rows which mean and scale come from is as good as training was: what there was
    to say of it was said then. A warning comes once for each model and type, until parameters are set.
    """
    for name, x in acts.items():
        dtype = x.dtype_name
        share = autoencoder.rounding_shares.get((name, dtype))
        if share is not None and share <= TOO_MUCH:
            continue
        if share is None:
            share = autoencoder.rounding_shares[name, dtype] = _share(autoencoder, name, dtype)
        if share > TOO_MUCH:
            raise InvalidInputError(
                f"{x.label} must be of a type that holds its spread about the mean that training found for model {name!r}, got "
                f"{dtype}, whose rounding is {_percent(share)} the variance; give the wider type that was trained on, or "
                f"subtract the mean of each dimension before training and here"
            )
        if share > MUCH:
            warn(
                f"model {name!r}: {share:.1%} of the variance of {x.label} is rounding to {dtype}, because its mean is "
                f"large against its spread; give the wider type that was trained on, or subtract the mean of each dimension "
                f"before training and here"
            )


def _share(autoencoder: Autoencoder, name: str, dtype: str) -> float:
    """Return rounding's share of the variance, and 0 where the rows of the standardisation had no better type."""
    model = autoencoder.names.index(name)
    (mean, rest, scale), _ = autoencoder.read_all([(model, tensor) for tensor in ("mean", "mean_rest", "scale")])
    exact, deviation = mean.astype(float) + rest, scale.astype(float)
    share = rounding_share(exact, deviation, dtype)
    trained = autoencoder.standardized_types.get(name)
    return 0.0 if trained is not None and rounding_share(exact, deviation, trained) >= share else share


def rounding_share(mean: np.ndarray, deviation: np.ndarray, dtype: str) -> float:
    """Return the share of the variance that rounding to a type is, estimated from the size of the numbers, float64 [width].

    A mean that the type holds exactly does not count for the size: it is that of a constant dimension, which is not rounded.
    """
    size = np.hypot(np.where(_holds(mean, dtype), 0.0, mean), deviation)
    return float((float_types.step(size, dtype) ** 2).sum() / 12 / (deviation**2).sum())


def _holds(numbers: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":  # the upper half of a float32
            single = numbers.astype(np.float32)
            return np.equal(single, numbers) & (single.view(np.uint32) & 0xFFFF == 0)
        return np.equal(numbers.astype(dtype), numbers)


def _percent(share: float) -> str:
    return f"{share:.3g} times" if share > 1 else f"{share:.1%} of"
