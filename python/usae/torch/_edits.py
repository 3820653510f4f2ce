"""Edits of codes: what a concept becomes, at which tokens, and what that does to activations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from usae._base import checks
from usae._base.tensors import on_cpu
from usae._estimator.codes import Codes
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Decoder, Encoder
from usae.torch._layer_output import Grid
from usae.torch._tensor_codes import UNUSED, TensorCodes

Kind = Literal["scale", "set", "add", "clamp", "swap"]
Concepts = int | Sequence[int]
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
MASKS = "truth values [tokens], [rows, columns], [images, tokens] or [images, rows, columns]"


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
    """A change of codes for `usae.torch.intervene`. Its class methods make it.

    Attributes
    ----------
    kind : "scale", "set", "add", "clamp" or "swap"
        What is done. Ablation is "set" to 0.
    concepts : tuple of int
        The concepts; empty for "swap".
    values : tuple
        The numbers, or tensors of one for each concept; for "swap" the codes.
    mask : array or Tensor of bool, "active" or None
        The tokens at which it is done.

    Notes
    -----
    Arguments of the class methods:

    * **concepts** is the number of one concept or a sequence of several.
    * **Numbers** are for all of these concepts; an array or tensor [n_concepts] has one for each. Gradients with respect to
      tensors are computed.
    * **mask** says where: truth values [tokens], [rows, columns] of the grid, [images, tokens] or [images, rows, columns].
      "active" means the tokens in which a concept is active. None means all tokens.

    Examples
    --------
    >>> Edit.ablate(1530)
    >>> Edit.scale([3, 1530], 2.0)
    >>> Edit.set(1530, 4.0, mask=left_half)
    """

    kind: Kind
    concepts: tuple[int, ...]
    values: tuple[Any, ...]
    mask: Any = None

    def __repr__(self) -> str:
        values = "codes" if self.kind == "swap" else ", ".join(map(_shown, self.values))
        where = "" if self.mask is None else ", mask='active'" if isinstance(self.mask, str) else ", mask=..."
        concepts = f"{self.concepts[0] if len(self.concepts) == 1 else list(self.concepts)}, " if self.concepts else ""
        return f"Edit.{self.kind}({concepts}{values}{where})"

    @classmethod
    def ablate(cls, concepts: Concepts, *, mask: Any = None) -> Edit:
        """Take concepts out: their codes become 0.

        Parameters
        ----------
        concepts : int or sequence of int
            The concepts.
        mask : array of bool, optional
            Where, as for the class. Default: None.
        """
        return cls.set(concepts, 0.0, mask=mask)

    @classmethod
    def scale(cls, concepts: Concepts, factor: Any, *, mask: Any = None) -> Edit:
        """Multiply the codes of concepts.

        Parameters
        ----------
        concepts : int or sequence of int
            The concepts.
        factor : float, or array or Tensor [n_concepts]
            What they are multiplied by.
        mask : array of bool, or "active", optional
            Where, as for the class. Default: None.
        """
        return cls._of("scale", concepts, {"factor": factor}, mask)

    @classmethod
    def set(cls, concepts: Concepts, value: Any, *, mask: Any = None) -> Edit:
        """Give concepts a code, whether they are active or not.

        Parameters
        ----------
        concepts : int or sequence of int
            The concepts.
        value : float, or array or Tensor [n_concepts]
            Their code. A negative one is possible, although no encoder makes such.
        mask : array of bool, or "active", optional
            Where, as for the class. Default: None.
        """
        return cls._of("set", concepts, {"value": value}, mask)

    @classmethod
    def add(cls, concepts: Concepts, value: Any, *, mask: Any = None) -> Edit:
        """Add to the codes of concepts, whether they are active or not.

        Parameters
        ----------
        concepts : int or sequence of int
            The concepts.
        value : float, or array or Tensor [n_concepts]
            What is added.
        mask : array of bool, or "active", optional
            Where, as for the class. Default: None.
        """
        return cls._of("add", concepts, {"value": value}, mask)

    @classmethod
    def clamp(cls, concepts: Concepts, low: Any = 0.0, high: Any = None, *, mask: Any = None) -> Edit:
        """Keep the codes of concepts between two numbers. That of a concept which is not active is 0.

        Parameters
        ----------
        concepts : int or sequence of int
            The concepts.
        low, high : float, or array or Tensor [n_concepts]
            The smallest and the largest code; None is no limit. Default: 0.0 and None.
        mask : array of bool, or "active", optional
            Where, as for the class. Default: None.
        """
        limits = {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
        edit = cls._of("clamp", concepts, limits, mask)
        smallest, largest = (torch.as_tensor(value).detach().cpu() for value in edit.values)
        if bool((smallest > largest).any()):
            raise InvalidInputError(f"low must be at most high, got {checks.shown(low)} and {checks.shown(high)}")
        return edit

    @classmethod
    def swap(cls, codes: Codes | TensorCodes, *, mask: Any = None) -> Edit:
        """Replace the whole code, for example by that of another model at the same places (stitching).

        Parameters
        ----------
        codes : Codes or TensorCodes
            Codes of all tokens of the images that the network is given next, image by image, row by row over the grid.
        mask : array of bool, optional
            Where, as for the class, without "active". Default: None.
        """
        if isinstance(codes, Codes):
            codes = codes.to_torch()
        if not isinstance(codes, TensorCodes):
            raise InvalidInputError(f"codes must be usae.Codes or usae.torch.TensorCodes, got {type(codes).__name__}")
        _check_codes(codes)
        if isinstance(mask, str):
            raise InvalidInputError(f"mask must be {MASKS}, got {checks.shown(mask)}")
        return cls("swap", (), (codes.flattened(),), _checked_mask(mask))

    @classmethod
    def _of(cls, kind: Kind, concepts: Any, values: dict[str, Any], mask: Any) -> Edit:
        given = checked_concepts(concepts)
        return cls(kind, given, tuple(_number(value, name, len(given)) for name, value in values.items()), _checked_mask(mask))

    def _changed(self, codes: Tensor) -> Tensor:
        """Return the new codes of the concepts, [n_tokens, n_concepts]."""
        values = [value.to(codes) if isinstance(value, Tensor) else value for value in self.values]
        if self.kind == "scale":
            return codes * values[0]
        if self.kind == "add":
            return codes + values[0]
        if self.kind == "set":
            return torch.zeros_like(codes) + values[0]
        low, high = (torch.as_tensor(value, dtype=codes.dtype, device=codes.device) for value in values)
        return codes.clamp(low, high)


class Editor(NamedTuple):
    """Edits of one model's tokens, with the modules that encode and decode them.

    Attributes
    ----------
    encoder, decoder : Encoder, Decoder
        The modules of the model, on the device of its network.
    edits : tuple of Edit
        What is done, in this order.
    keeps_error : bool
        Whether the part of activations that the code does not explain stays.
    mask : array or Tensor of bool, or None
        Tokens that may change at all.
    """

    encoder: Encoder
    decoder: Decoder
    edits: tuple[Edit, ...]
    keeps_error: bool = True
    mask: Any = None

    @property
    def changes_nothing(self) -> bool:
        """Whether tokens stay as they are whatever they are."""
        return self.keeps_error and not self.edits

    def __call__(self, tokens: Tensor, grid: Grid | None) -> Tensor:
        """Return edited tokens, [n_images, tokens, width]. Those that no edit changes have the same bits."""
        if tokens.shape[-1] != self.encoder.width:
            raise InvalidInputError(
                f"models must give tokens of the width that the autoencoder was trained on, {self.encoder.width}, got "
                f"{tokens.shape[-1]}; use the layer that it was trained on"
            )
        with torch.autocast(tokens.device.type, enabled=False):
            rows, shape = tokens.flatten(0, 1), (tokens.shape[0], tokens.shape[1])
            result = self._edited(rows, shape, grid)
            if self.mask is not None:
                result = result.where(_mask_of_rows(self.mask, shape, grid, rows.device), rows)
            return result.unflatten(0, shape)

    def _edited(self, rows: Tensor, shape: tuple[int, int], grid: Grid | None) -> Tensor:
        before = codes = self.encoder.sparse(rows)
        columns = _Columns(sorted({concept for edit in self.edits for concept in edit.concepts}), codes)
        changed = columns.of(codes)
        for edit in self.edits:
            if edit.kind == "swap":
                other = _for_tokens(edit.values[0], codes)
                where = None if edit.mask is None else _mask_of_rows(edit.mask, shape, grid, rows.device)
                codes = other if where is None else _merged(other, codes, where)
                changed = columns.of(other) if where is None else columns.of(other).where(where, changed)
            else:
                changed = _with_edit(edit, changed, columns.places(edit.concepts), shape, grid)
        # What is taken away, rather than what is added: where nothing changes it is +0, and x - 0 has the bits of x, -0 too.
        lost = (columns.of(codes) - changed) @ self.decoder.rows(columns.concepts)
        if not self.keeps_error:
            kept = self.decoder.standardized(codes) - lost
            return ((kept * self.decoder.scale + self.decoder.mean_rest) + self.decoder.mean).to(rows.dtype)
        if codes is not before:
            lost = lost + (self.decoder.standardized(before) - self.decoder.standardized(codes))
        return (rows.to(torch.promote_types(rows.dtype, lost.dtype)) - (lost * self.decoder.scale + 0.0)).to(rows.dtype)


class _Columns:
    """The codes of some concepts, side by side."""

    def __init__(self, concepts: Sequence[int], codes: TensorCodes):
        device = codes.indices.device
        self._n_concepts = codes.n_concepts
        self.concepts = torch.tensor(list(concepts), dtype=torch.int64, device=device)
        self._place = torch.full((codes.n_concepts + 1,), len(concepts), device=device)  # the last is for unused slots
        self._place[self.concepts] = torch.arange(len(concepts), device=device)

    def places(self, concepts: Sequence[int]) -> Tensor:
        """Return the columns of concepts."""
        return self._place[torch.tensor(list(concepts), device=self._place.device)]

    def of(self, codes: TensorCodes) -> Tensor:
        """Return the codes of the concepts, [n_tokens, n_columns]."""
        places = self._place[codes.indices]  # of -1, an unused slot, the last
        columns = codes.values.new_zeros(len(codes.values), len(self.concepts) + 1)
        return columns.scatter_add(1, places, codes.values)[:, :-1]


def _with_edit(edit: Edit, columns: Tensor, places: Tensor, shape: tuple[int, int], grid: Grid | None) -> Tensor:
    """Return all columns after an edit of those at `places`."""
    before = columns[:, places]
    after = edit._changed(before)
    if isinstance(edit.mask, str):
        after = after.where(before > 0, before)
    elif edit.mask is not None:
        after = after.where(_mask_of_rows(edit.mask, shape, grid, columns.device), before)
    return columns.index_copy(1, places, after)


def _for_tokens(codes: TensorCodes, like: TensorCodes) -> TensorCodes:
    """Return codes that were given for a swap, on the device and in the type of those that they replace."""
    if codes.n_concepts != like.n_concepts or len(codes.values) != len(like.values):
        raise InvalidInputError(
            f"codes must be of the {len(like.values)} tokens that are replaced, with {like.n_concepts} concepts, got codes of "
            f"{len(codes.values)} tokens with {codes.n_concepts}; encode the same images on the same grid"
        )
    return TensorCodes(codes.values.to(like.values), codes.indices.to(like.indices), codes.n_concepts)


def _merged(codes: TensorCodes, others: TensorCodes, where: Tensor) -> TensorCodes:
    """Return `codes` where a mask is true, and `others` elsewhere."""
    slots = max(codes.values.shape[1], others.values.shape[1])
    (values, indices), (other_values, other_indices) = (
        (_wider(each.values, slots, 0), _wider(each.indices, slots, UNUSED)) for each in (codes, others)
    )
    return TensorCodes(values.where(where, other_values), indices.where(where, other_indices), codes.n_concepts)


def _wider(x: Tensor, slots: int, filling: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, slots - x.shape[1]), value=filling)


# --- Arguments ----------------------------------------------------------------------------------------------------------


def _mask_of_rows(mask: Any, shape: tuple[int, int], grid: Grid | None, device: torch.device) -> Tensor:
    """Return a mask as [n_tokens, 1], of images of which all have `shape`, (images, tokens)."""
    given = torch.as_tensor(mask, device=device)
    n, tokens = shape
    if given.shape[-2:] == grid:
        given = given.flatten(-2)
    if given.ndim == 2 and len(given) == 1:
        given = given[0]
    if tuple(given.shape) not in ((tokens,), shape):
        on_grid = f" on a grid of {grid[0]} x {grid[1]}" if grid else ""
        raise InvalidInputError(
            f"mask must be {MASKS}, for {n} images of {tokens} tokens{on_grid}, got shape {list(np.shape(mask))}"
        )
    return given.expand(shape).flatten()[:, None]


def _checked_mask(mask: Any) -> Any:
    if mask is None or (isinstance(mask, str) and mask == "active"):
        return mask
    try:
        array = np.asarray(on_cpu(mask))
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(f'mask must be {MASKS}, or "active", got {checks.shown(mask)}: {error}') from error
    if array.dtype.kind != "b" or not 1 <= array.ndim <= 3:
        raise InvalidInputError(f'mask must be {MASKS}, or "active", got {checks.shown(mask)}')
    return array.copy()


def checked_place(mask: Any) -> Any:
    """Return a mask of the tokens that may change at all."""
    if isinstance(mask, str):
        raise InvalidInputError(f"mask must be {MASKS}, got {checks.shown(mask)}")
    return _checked_mask(mask)


def checked_concepts(concepts: Any) -> tuple[int, ...]:
    concepts = on_cpu(concepts)
    if isinstance(concepts, (np.ndarray, Tensor)) and concepts.ndim == 0:
        concepts = concepts.item()
    if isinstance(concepts, (int, np.integer)) and not isinstance(concepts, bool):
        concepts = [concepts]
    expected = "the number of a concept, or a sequence of them"
    given = checks.listed(concepts, "concepts", expected)
    numbers = tuple(checks.integer(_item(concept), "concepts", 0, 2**24 - 1) for concept in given)
    if not numbers:
        raise InvalidInputError(f"concepts must be {expected}, got none")
    if len(set(numbers)) < len(numbers):
        raise InvalidInputError(f"concepts must each be given once, got {checks.shown(list(numbers))}")
    return numbers


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def _number(value: Any, name: str, n: int) -> float | Tensor:
    """Return a number, or a tensor of one for each of `n` concepts."""
    expected = f"a number, or one for each of {n} concepts"
    if not isinstance(value, (Tensor, np.ndarray, list, tuple)):
        number = checks.as_float(value)
        if math.isnan(number) or (math.isinf(number) and name not in ("low", "high")):
            raise InvalidInputError(f"{name} must be {expected}, got {checks.shown(value)}")
        return number
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, np.float64))
    except Exception as error:  # of NumPy, for what is no array of numbers
        raise InvalidInputError(f"{name} must be {expected}, got {checks.shown(value)}: {error}") from error
    if tensor.dtype not in (torch.bool, torch.complex64, torch.complex128) and not tensor.is_floating_point():
        tensor = tensor.double()
    unusable = torch.isnan if name in ("low", "high") else _is_not_finite
    if tensor.shape not in ((), (n,)) or not tensor.is_floating_point() or bool(unusable(tensor).any()):
        raise InvalidInputError(f"{name} must be {expected}, got {checks.shown(value)}")
    return tensor


def _is_not_finite(tensor: Tensor) -> Tensor:
    return ~tensor.isfinite()


def _check_codes(codes: TensorCodes) -> None:
    """Refuse codes that do not say which concepts are active."""
    values, indices, n_concepts = codes
    n = checks.integer(n_concepts, "codes.n_concepts", 1, 2**24)
    tensors = isinstance(values, Tensor) and isinstance(indices, Tensor)
    if not tensors or not values.is_floating_point() or indices.dtype not in INTEGERS or values.shape != indices.shape:
        got = " and ".join(f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in codes[:2])
        raise InvalidInputError(
            f"codes must have values, a tensor of floats [..., slots], and indices, one of integers with that shape, got {got}"
        )
    if not values.ndim:
        raise InvalidInputError("codes must have values and indices [..., slots], got tensors without dimensions")
    if indices.numel() and not (int(indices.min()) >= UNUSED and int(indices.max()) < n):
        raise InvalidInputError(
            f"codes must have indices from 0 to {n - 1}, or {UNUSED} in unused slots, got {int(indices.min())} to "
            f"{int(indices.max())}"
        )


def _shown(value: Any) -> str:
    return "..." if isinstance(value, Tensor) else f"{value:g}"
