"""Activations of which only some rows are aligned between models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from usae._base import checks
from usae._data.activations import Activations, InParts, as_aligned, check_columns, columns_of, left_out
from usae._data.columns import Columns
from usae.errors import InvalidInputError


class WeaklyPaired(InParts):
    """Activations in parts that have different models: rows that are aligned, and rows of one model alone.

    Each part is a mapping as `UniversalSAE.fit` takes it, with rows that are aligned between its models, but it need not have
    all models. `UniversalSAE.fit` draws a part for each step, and its step encodes and decodes the models of this part alone.
    Dictionaries and encoders of the others stay as they are in this step. docs/weakly_paired.md says what this is worth.

    Parameters
    ----------
    *parts : mapping of str to array
        Parts, at least one. A part can be a `MaskedActivations` or an `ActivationStore`. A model has the same columns in all
        parts.
    shares : sequence of float, optional
        Shares of the steps that the parts have, one for each, above 0; their sum counts as 1. Default: None, which gives a part
        as many steps as its rows make batches, so that an epoch has every row of every part once.

    Attributes
    ----------
    parts : tuple of mapping of str to array
        The parts.
    shares : tuple of float or None
        Shares of the steps.
    names : tuple of str
        Names of all models, in the order in which parts have them first.

    Raises
    ------
    InvalidInputError
        For parts or shares that cannot be used.

    Examples
    --------
    >>> paired = {"dinov2": a[:1000], "siglip": b[:1000]}  # row t of one belongs to row t of the other
    >>> sae.fit(usae.WeaklyPaired(paired, {"dinov2": a[1000:]}, {"siglip": other_b}))
    """

    def __init__(self, *parts: Mapping[str, Any], shares: Sequence[float] | None = None):
        if not parts:
            raise InvalidInputError(
                "parts must be at least one mapping from model names to arrays, got none; write "
                "usae.WeaklyPaired(paired, {name: rows of this model alone})"
            )
        given = [as_aligned(part, f"parts[{number}]") for number, part in enumerate(parts)]
        self.parts: tuple[Mapping[str, Any], ...] = parts
        self.shares = None if shares is None else _checked_shares(shares, len(parts))
        self.names = tuple(_columns(given))

    def __repr__(self) -> str:
        given = [as_aligned(part, "") for part in self.parts]
        parts = "; ".join(f"{', '.join(part)}: {_rows(part):,} rows" for part in given)
        return f"WeaklyPaired({parts}{'' if self.shares is None else f'; shares={self.shares}'})"


@dataclasses.dataclass(frozen=True)
class Parts:
    """Checked activations in parts. Of ordinary activations there is one part, of all models."""

    parts: tuple[dict[str, Activations], ...]
    shares: tuple[float, ...] | None = None

    @property
    def columns(self) -> dict[str, Columns]:
        """What is known of the columns of each model, in the order of the models."""
        return _columns(self.parts)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Numbers of models and of rows of each part."""
        return [(len(part), _rows(part)) for part in self.parts]

    @property
    def n_tokens(self) -> int:
        """Number of rows of all parts."""
        return sum(rows for _, rows in self.sizes)

    @property
    def n_left_out(self) -> int:
        """Number of rows that masks leave out."""
        return sum(left_out(part) for part in self.parts)

    @property
    def arrays(self) -> dict[str, Activations]:
        """The activations of all parts and models, by the name that messages have for them."""
        return {x.label: x for part in self.parts for x in part.values()}


def as_parts(acts: object, argument: str, mask: object = None) -> Parts:
    """Check activations of several models, all of whose rows are aligned or some.

    Raises
    ------
    InvalidInputError
        As `as_aligned`; for a mask beside parts; and where no aligned rows join some models with the others.
    """
    if not isinstance(acts, WeaklyPaired):
        return Parts((as_aligned(acts, argument, mask=mask),))
    if mask is not None:
        raise InvalidInputError(
            f"mask must be None where {argument} is a usae.WeaklyPaired, got {type(mask).__name__}; make the part that it is "
            f"of a usae.MaskedActivations"
        )
    given = tuple(as_aligned(part, f"{argument}.parts[{number}]") for number, part in enumerate(acts.parts))
    _check_joined(given, argument)
    return Parts(given, acts.shares)


def as_batch(batch: object, argument: str, columns: Mapping[str, Columns], mask: object = None) -> dict[str, Activations]:
    """Check a batch for an autoencoder's models. It lacks models only if it is a `WeaklyPaired` of one part."""
    if not isinstance(batch, WeaklyPaired):
        return as_aligned(batch, argument, columns, mask)
    if len(batch.parts) != 1:
        raise InvalidInputError(
            f"{argument} must have one part, as all rows of a step have the same models, got {len(batch.parts)} parts; do a "
            f"step for each: usae.WeaklyPaired(part)"
        )
    part = batch.parts[0]
    known = {name: columns[name] for name in columns if name in part}
    return as_aligned(part, argument, known if len(known) == len(part) else columns, mask)


def _columns(parts: Sequence[Mapping[str, Activations]]) -> dict[str, Columns]:
    """Return what the parts say of each model's columns. InvalidInputError if they contradict each other."""
    known: dict[str, Columns] = {}
    for part in parts:
        for name, own in columns_of(part).items():
            if name in known:
                check_columns(part[name], name, known[name])
            known[name] = known[name].adding(own.labels) if name in known else own
    return known


def _rows(part: Mapping[str, Activations]) -> int:
    return next(iter(part.values())).n_tokens


def _check_joined(parts: Sequence[Mapping[str, Activations]], argument: str) -> None:
    """Refuse models that no aligned rows join with the others: nothing would say which concepts belong together."""
    names = list(_columns(parts))
    joined = {names[0]}
    while more := {name for part in parts if joined & part.keys() for name in part} - joined:
        joined |= more
    apart = [name for name in names if name not in joined]
    if apart:
        raise InvalidInputError(
            f"{argument} must have a part that joins {apart[0]!r} with {names[0]!r}, or with a model that is joined with it, "
            f"got no such rows; nothing else says which concepts belong together"
        )


def _checked_shares(shares: object, n_parts: int) -> tuple[float, ...]:
    numbers = checks.listed(shares, "shares", "a list of numbers")
    if len(numbers) != n_parts:
        raise InvalidInputError(f"shares must be one number for each of {n_parts} parts, got {len(numbers)}")
    found = [checks.real(number, f"shares[{place}]", "a number above 0") for place, number in enumerate(numbers)]
    for place, number in enumerate(found):
        if not 0 < number < float("inf"):
            raise InvalidInputError(
                f"shares[{place}] must be a number above 0, got {number}; leave out a part that is not wanted"
            )
    return tuple(number / sum(found) for number in found)
