"""What networks keep of their outputs when a layer's tokens are replaced: the result of `faithfulness`."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from usae._base import checks, html
from usae._base.json import plain

Null = Literal["mean", "zero"]


class Replacements(NamedTuple):
    """A number for each way in which the tokens of a network are replaced.

    Attributes
    ----------
    original : ndarray of float64, [M]
        Tokens as they are.
    reconstructed : ndarray of float64, [M, M]
        Encoded from the tokens of model i, decoded into network j.
    linear : ndarray of float64, [M, M], or None
        Predicted from the tokens of model i by ridge regression, into network j. None without activations to fit it on.
    mean : ndarray of float64, [M]
        Every token is the mean token.
    zero : ndarray of float64, [M]
        Every token is 0.
    """

    original: np.ndarray
    reconstructed: np.ndarray
    linear: np.ndarray | None
    mean: np.ndarray
    zero: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {name: plain(value) for name, value in self._asdict().items() if value is not None}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Faithfulness:
    """How much of its output a network keeps when the tokens of its layer are replaced.

    Attributes
    ----------
    model_names : tuple of str
        Names of the models.
    n_images : int
        Number of images.
    losses : tuple of str
        What the loss of each network is: "cross-entropy" with labels, "KL divergence" from the original output, or
        "1 - cosine" with it.
    loss : Replacements
        Mean loss of an image.
    cosine : Replacements
        Mean cosine of the output and the original output.
    agreement : Replacements
        Share of images whose largest output is the same as originally. NaN where outputs are not logits.
    accuracy : Replacements or None
        Share of images whose largest output is that of their label. NaN where outputs are not logits or have no labels; None if
        no network has labels.
    """

    model_names: tuple[str, ...]
    n_images: int
    losses: tuple[str, ...]
    loss: Replacements
    cosine: Replacements
    agreement: Replacements
    accuracy: Replacements | None

    def recovered(self, null: Null = "mean") -> Replacements:
        """Return the share of the loss that is recovered: 1 is the loss of the original tokens, 0 that of the null.

        It is NaN for a network whose output is no worse with the null.

        Parameters
        ----------
        null : "mean" or "zero"
            What tokens are replaced by for a share of 0. Default: "mean".
        """
        worst = getattr(self.loss, checks.choice(null, "null", ("mean", "zero")))
        gap = np.where(worst > self.loss.original, worst - self.loss.original, np.nan)
        linear = None if self.loss.linear is None else (worst - self.loss.linear) / gap
        shares = {name: (worst - value) / gap for name, value in self.loss._asdict().items() if name != "linear"}
        return Replacements(**shares, linear=linear)

    def summary(self) -> str:
        """Return tables of the share of the loss that is recovered, of top-1 agreement and of cosines, as text."""
        names = self.model_names
        width = max(12, *(len(name) + 2 for name in (*names, *self.losses)))
        label = max(len(f"linear map from {name}") for name in names) + 2
        heading = "".join(f"{name:>{width}}" for name in names)
        lines = [f"Outputs of {self.n_images:,} images with replaced tokens; columns are networks"]
        lines += [f"{'loss':<{label}}" + "".join(f"{loss:>{width}}" for loss in self.losses)]
        for title, rows in self._tables():
            lines += ["", f"{title:<{label}}{heading}"]
            lines += [f"{name:<{label}}" + "".join(f"{value:>{width}.3f}" for value in row) for name, row in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the tables of `summary`, for notebooks."""
        heads = list(self.model_names)
        tables = [html.table(f"Loss of the outputs of {self.n_images:,} images", ["", *heads], [["loss", *self.losses]])]
        for title, rows in self._tables():
            cells = [[name, *(f"{value:.3f}" for value in row)] for name, row in rows]
            tables.append(html.table(title, ["tokens replaced by", *heads], cells))
        return "".join(tables)

    def _tables(self) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
        """Return titles of tables and their rows, of what is known."""
        tables = []
        scores = [("loss recovered", self.recovered()), ("top-1 agreement", self.agreement), ("cosine", self.cosine)]
        for title, numbers in scores:
            if not np.isfinite(numbers.mean).any():
                continue
            rows = [(f"code of {name}", row) for name, row in zip(self.model_names, numbers.reconstructed, strict=True)]
            if numbers.linear is not None:
                rows += [(f"linear map from {name}", row) for name, row in zip(self.model_names, numbers.linear, strict=True)]
            tables.append((title, [*rows, ("mean token", numbers.mean), ("0", numbers.zero)]))
        return tables

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        numbers = {"loss": self.loss, "recovered": self.recovered(), "cosine": self.cosine, "agreement": self.agreement}
        if self.accuracy is not None:
            numbers["accuracy"] = self.accuracy
        return {
            "model_names": list(self.model_names),
            "n_images": self.n_images,
            "losses": list(self.losses),
            **{name: value.to_dict() for name, value in numbers.items()},
        }
