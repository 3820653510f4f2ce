"""Checks of activations that users pass in, and their conversion to what the core takes.

The core reads float16, float32, float64 and bfloat16 elements with any strides, so the conversion copies and modifies nothing.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from usae._base import checks
from usae._data import masks
from usae._data.columns import Columns, Label, labels_of
from usae._data.row_labels import check_rows_of_masks, check_same_rows
from usae._data.stored_array import StoredArray
from usae.errors import InvalidInputError

_FLOATS = (np.float16, np.float32, np.float64)


@dataclasses.dataclass(frozen=True)
class Activations:
    """Activations of one model, [n_tokens, width] or [images, tokens, width].

    `label` is their name in error messages. `array` holds bfloat16 elements as uint16. `rows` are the numbers of the rows that
    count, increasing; None means all. Methods count rows among these, and never read the others. `labels` are those of columns.
    """

    array: np.ndarray | StoredArray
    label: str
    bfloat16: bool = False
    rows: np.ndarray | None = None
    labels: tuple[Label, ...] | None = None

    @property
    def n_tokens(self) -> int:
        """Number of rows that count."""
        return self.n_rows if self.rows is None else len(self.rows)

    @property
    def n_rows(self) -> int:
        """Number of rows of the array."""
        return math.prod(self.array.shape[:-1])

    @property
    def dtype_name(self) -> str:
        return "bfloat16" if self.bfloat16 else self.array.dtype.name

    @property
    def n_left_out(self) -> int:
        return self.n_rows - self.n_tokens

    @property
    def width(self) -> int:
        return self.array.shape[-1]

    @property
    def columns(self) -> Columns:
        return Columns(self.width, self.labels, self.label)

    @property
    def stored(self) -> bool:
        """Whether they are in a store, and are better read part by part."""
        return isinstance(self.array, StoredArray)

    @property
    def native(self) -> Any:
        """The form that `_usae.Core` takes. Stored activations are read into memory."""
        if self.stored:
            return self.part(slice(0, self.n_tokens)).native
        array = (self.array, "bfloat16") if self.bfloat16 else self.array
        return array if self.rows is None else (array, self.rows)

    @property
    def whole(self) -> Activations:
        """The same with all rows of the array."""
        return self if self.rows is None else dataclasses.replace(self, rows=None)

    def raw_rows(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return some rows, [n, width], in the type of `array`. Rows of [images, tokens, width] are numbered image by image."""
        if self.rows is not None:
            rows = self.rows[rows]
        if isinstance(self.array, StoredArray):
            return self.array.rows(rows)
        if self.array.ndim == 3:
            numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            return self.array[np.unravel_index(numbers, self.array.shape[:-1])]
        return self.array[rows]

    def part(self, rows: slice | np.ndarray) -> Activations:
        """Return the activations of some rows."""
        return dataclasses.replace(self, array=self.raw_rows(rows), rows=None)

    def parts(self, slices: Sequence[slice]) -> Activations:
        """Return a copy of the activations of several slices of rows, one after the other."""
        out = np.empty((sum(rows.stop - rows.start for rows in slices), self.width), self.raw_rows(slice(0, 1)).dtype)
        done = 0
        for rows in slices:
            end = done + rows.stop - rows.start
            out[done:end] = self.raw_rows(rows)
            done = end
        return dataclasses.replace(self, array=out, rows=None)

    def thinned(self, n: int) -> Activations:
        """Return a copy of at most `n` evenly spaced rows. They are the same rows in all aligned activations."""
        return self.part(np.arange(0, self.n_tokens, -(-self.n_tokens // n)))


def as_activations(x: object, label: str, may_be_empty: bool = False) -> Activations:
    """Check one array of activations.

    Raises
    ------
    InvalidInputError
        Unless it is a 2-D or 3-D array of floats in this machine's byte order, or an array of a finished store. Also if it is
        empty, unless it may have no rows, as where each row is looked at by itself.
    """
    array: np.ndarray | StoredArray
    if isinstance(x, StoredArray):
        array, bfloat16, labels = x, x.bfloat16, x.labels
        x.check_finished(label)
    else:
        array, bfloat16 = as_float_array(x, label)
        labels = None if isinstance(x, np.ndarray) or not array.ndim else labels_of(x, array.shape[-1])
    if array.ndim not in (2, 3):
        raise InvalidInputError(
            f"{label} must be [n_tokens, width] or [images, tokens, width], got {array.ndim}-D with shape "
            f"{list(array.shape)}; {_remedy_for_dimensions(array.ndim)}"
        )
    if array.size == 0 and not (may_be_empty and array.shape[-1]):
        raise InvalidInputError(f"{label} must have at least one row and one column, got shape {list(array.shape)}")
    return Activations(array, label, bfloat16, labels=labels)


def as_aligned(
    acts: object,
    argument: str,
    columns: Mapping[str, Columns] | None = None,
    mask: object = None,
    *,
    mask_argument: str = "mask",
    empty: bool = False,
) -> dict[str, Activations]:
    """Check activations of several models whose rows belong together, and find the rows that count.

    Parameters
    ----------
    acts : mapping of str to array
    argument : str
        The name of `acts` in error messages.
    columns : mapping of str to Columns, optional
        What is known of an autoencoder's models. All of these models have to be there, and the result has their order. Default:
        None, which allows any models and keeps the order of `acts`.
    mask : array or mapping of str to array, optional
        Rows that count, or those of each model; see `MaskedActivations`. Masks that `acts` carry count too. Default: None.
    mask_argument : str
        The name of `mask` in error messages. Default: "mask".
    empty : bool
        Whether the mask may leave out all rows. Default: False.
    """
    if isinstance(acts, InParts):
        raise InvalidInputError(
            f"{argument} must be aligned activations, got {type(acts).__name__}, whose parts have different models; give one "
            f"of its .parts"
        )
    if not isinstance(acts, Mapping):
        raise InvalidInputError(
            f"{argument} must be a mapping from model names to arrays, got {_kind(acts)}; "
            f'write {argument}={{"name of the model": array, ...}}'
        )
    if columns is None:
        check_names(acts, argument)
        names: Iterable[str] = acts
    else:
        for name in acts:
            check_known(name, list(columns), argument)
        missing = [name for name in columns if name not in acts]
        if missing:
            raise InvalidInputError(
                f"{argument} must hold every model ({', '.join(columns)}), got none for {', '.join(missing)}"
            )
        names = columns
    taken = {name: acts[name] for name in names}  # once, because a mapping may read files for it
    result = {name: as_activations(x, f"{argument}[{name!r}]") for name, x in taken.items()}
    if columns is not None:
        for name, activations in result.items():
            check_columns(activations, name, columns[name])
    if len({activations.stored for activations in result.values()}) > 1:
        stored = ", ".join(name for name, activations in result.items() if activations.stored)
        raise InvalidInputError(
            f"{argument} must come from a store for every model or for none, got a store for {stored} only; load what fits "
            f"into memory with store[name][:]"
        )
    stored_arrays = [x.array for x in result.values() if isinstance(x.array, StoredArray)]
    if stored_arrays:
        _check_same_images(stored_arrays, argument)
    if len({activations.n_tokens for activations in result.values()}) > 1:
        counts = ", ".join(f"{name}: {x.n_tokens} {list(x.array.shape)}" for name, x in result.items())
        raise InvalidInputError(
            f"{argument}: every model must have the same number of rows, because row t of each is the same place in the "
            f"same image, got {counts}; bring the token grids to one size (and drop class tokens) first"
        )
    check_same_rows(taken, argument)
    explicit = masks.by_model(mask, mask_argument, list(acts))
    check_rows_of_masks(explicit, [(x, f"{argument}[{name!r}]") for name, x in taken.items()])
    return _masked(result, acts, argument, explicit, empty)


def as_one_model(x: object, label: str, mask: object = None) -> Activations:
    """Check activations of one model, and find the rows that count by `mask` and by the store that `x` may be from."""
    if isinstance(mask, Mapping):
        raise InvalidInputError(f"mask must be an array of truth values for one model, got a mapping; use mask={label!r}")
    given = as_activations(x, label, may_be_empty=True)
    explicit = masks.by_model(mask, "mask", [])
    check_rows_of_masks(explicit, [(x, label)])
    return _masked({label: given}, None, label, explicit, empty=not given.n_tokens)[label]


def _masked(
    given: dict[str, Activations], acts: object, argument: str, explicit: list[tuple[object, str]], empty: bool
) -> dict[str, Activations]:
    """Add the rows that count by all masks: those given explicitly, that of `acts`, and those of stores."""
    found = list(explicit)
    if isinstance(acts, MaskedActivations):
        found.append((acts.mask, f"{argument}.mask"))
    stores = {x.array.path: x.array for x in given.values() if isinstance(x.array, StoredArray)}
    found += [(mask, f"mask of the store {str(path)!r}") for path, x in stores.items() if (mask := x.mask) is not None]
    if not found:
        return given
    counts = masks.combined(found, [x.array.shape[:-1] for x in given.values()])
    if counts is None:
        return given
    label = found[0][1] if len(found) == 1 else f"all masks of {argument} together"
    rows = np.flatnonzero(counts) if empty else masks.numbers(counts, label)
    return {name: dataclasses.replace(x, rows=rows) for name, x in given.items()}


class InParts:
    """Activations that are not aligned as a whole, but in `parts`; `usae.WeaklyPaired` is one."""


class OfModels(Mapping[str, Any]):
    """Activations by the name of the model. Subclasses carry more of them; two are equal if they are the same object."""

    def __init__(self, acts: Mapping[str, Any]):
        self._acts = dict(acts)

    def __getitem__(self, name: str) -> Any:
        return self._acts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._acts)

    def __len__(self) -> int:
        """Number of models."""
        return len(self._acts)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class MaskedActivations(OfModels):
    """Aligned activations of several models together with a mask, which says which rows count.

    It is a mapping from model names to arrays, the same that were given, and carries the mask to whatever takes activations of
    several models: `UniversalSAE.fit` and its `validation`, batches of `UniversalSAE.fit_stream`, `ActivationStore.append`,
    `UniversalSAE.evaluate`, `top_examples`, `controls` and its `train`, and so on. Rows that do not count are never read, so
    they may hold NaN. They are left out for all models, so that row t stays the same place in every model.

    Parameters
    ----------
    acts : mapping of str to array
        Activations, as for `UniversalSAE.fit`; also an `ActivationStore`. If they carry a mask, rows count that count by both.
    mask : array of bool, or mapping of str to array of bool
        True for a row that counts. Its shape is [n_tokens], [images, tokens] or [images, rows, columns] of a token grid. A side
        of [images, tokens] may be 1: [images, 1] leaves out whole images, and [1, tokens] the same tokens of every image, such
        as class tokens. A mapping has a mask for some or all models; a row counts if it does for each of them.

    Attributes
    ----------
    mask : ndarray of bool, [images, tokens] or [n_tokens]
        The rows that count, in the shape of the activations.
    text_rows : TextRows or None
        The text of each row, if `acts` have it, as `TextActivations` do.

    Raises
    ------
    InvalidInputError
        For activations or masks that cannot be used. A mask without any row that counts is an error where it is used.

    Examples
    --------
    >>> clean = usae.MaskedActivations(acts, mask=attention_mask.astype(bool))  # texts of several lengths, padded to one
    >>> sae.fit(clean, validation=usae.MaskedActivations(held_out, mask=held_out_mask.astype(bool)))
    """

    def __init__(self, acts: Mapping[str, Any], mask: Any):
        given = as_aligned(acts, "acts", mask=mask, empty=True)
        super().__init__(acts)
        self.text_rows = getattr(acts, "text_rows", None)
        first = next(iter(given.values()))
        shape = next((x.array.shape[:-1] for x in given.values() if x.array.ndim == 3), first.array.shape[:-1])
        counts = mask_of(given)
        self.mask = np.ones(shape, bool) if counts is None else counts.reshape(shape)
        self.mask.flags.writeable = False

    def __repr__(self) -> str:
        n = self.mask.size - int(self.mask.sum())
        return f"MaskedActivations({', '.join(self._acts)}; {self.mask.size:,} rows, {n:,} of them left out)"


def of_models(acts: object, names: Iterable[str]) -> object:
    """Return the activations of some models, with the mask that they carry. Names that are not there are passed over."""
    if not isinstance(acts, Mapping):
        return acts
    chosen = {name: acts[name] for name in names if name in acts}
    return MaskedActivations(chosen, acts.mask) if chosen and isinstance(acts, MaskedActivations) else chosen


def left_out(acts: Mapping[str, Activations]) -> int:
    """Number of rows that do not count."""
    return next(iter(acts.values())).n_left_out


def mask_of(acts: Mapping[str, Activations]) -> np.ndarray | None:
    """Return which rows count, bool [n_tokens]. None if all do."""
    x = next(iter(acts.values()))
    if x.rows is None:
        return None
    counts = np.zeros(x.n_rows, bool)
    counts[x.rows] = True
    return counts


def batch_for_core(
    acts: Mapping[str, Activations], rows: np.ndarray | None, names: Iterable[str]
) -> tuple[list[Any], np.ndarray | None]:
    """Return arrays and row numbers of a batch as `_usae.Core` takes them: row numbers are those of the whole arrays.

    The arrays are in the order of `names`, None for models that the batch does not have.
    """
    chosen = next(iter(acts.values())).rows
    if chosen is not None:
        acts = {name: x.whole for name, x in acts.items()}
        rows = chosen if rows is None else chosen[rows]
    return natives(acts, names), rows


def natives(acts: Mapping[str, Activations], names: Iterable[str]) -> list[Any]:
    """Return the arrays of models in the form that `_usae.Core` takes, None for models that are not there."""
    return [acts[name].native if name in acts else None for name in names]


def are_stored(acts: Mapping[str, Activations]) -> bool:
    """Whether aligned activations are in a store. Either all are, or none."""
    return any(activations.stored for activations in acts.values())


def _check_same_images(arrays: Sequence[StoredArray], argument: str) -> None:
    """Refuse models of different stores if the names of their images differ."""
    first, *others = arrays
    for other in others:
        if other.path == first.path:
            continue
        for number, (one, two) in enumerate(zip(first.images(), other.images(), strict=False)):
            if one != two:
                raise InvalidInputError(
                    f"{argument}: every model must have the same images in the same order, got image {number} {one!r} in "
                    f"{str(first.path)!r} and {two!r} in {str(other.path)!r}"
                )


def check_columns(activations: Activations, model: str, columns: Columns) -> None:
    """Refuse activations of another width than a model's, or whose columns have other labels or another order."""
    if activations.width != columns.width:
        raise InvalidInputError(
            f"{activations.label} must have {columns.width} columns, the width of model {model!r}, got shape "
            f"{list(activations.array.shape)}"
        )
    columns.check(activations.labels, activations.label)


def columns_of(acts: Mapping[str, Activations]) -> dict[str, Columns]:
    return {name: x.columns for name, x in acts.items()}


def check_known(name: object, names: Sequence[str], argument: str) -> None:
    """Refuse a name that is not one of the models' names."""
    if isinstance(name, str) and name in names:
        return
    hint = checks.did_you_mean(name, names)
    raise InvalidInputError(
        f"{argument}: unknown model {checks.shown(name)}; the models are {', '.join(map(checks.shown, names))}{hint}"
    )


def check_names(names: Mapping[str, Any], argument: str) -> None:
    """Refuse names that models cannot have."""
    if not names:
        raise InvalidInputError(f"{argument} must hold at least one model, got an empty mapping")
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name or not checks.is_unicode(name):
            raise InvalidInputError(
                f"{argument}: a model's name must be text without NUL, and not empty, got {checks.shown(name)}"
            )


def as_float_array(x: object, label: str) -> tuple[np.ndarray, bool]:
    """Return `x` as an array of floats of any shape, without a copy, and whether its elements are bfloat16 viewed as uint16."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _from_torch(x, label, torch)
    if isinstance(x, np.ma.MaskedArray):
        raise InvalidInputError(
            f"{label} must be a plain array, got a masked array, whose mask would be lost; use .filled() or drop the rows"
        )
    try:
        array = np.asarray(x) if hasattr(x, "__array__") or not hasattr(x, "__dlpack__") else np.from_dlpack(x)
    except Exception as error:  # __array__ and DLPack of other libraries raise exceptions of their own
        raise InvalidInputError(f"{label} must be an array of floats, got {_kind(x)}: {error}") from error
    if array.dtype.name == "bfloat16":  # the type that ml_dtypes defines and JAX uses
        return array.view(np.uint16), True
    if array.dtype.kind == "f" and not array.dtype.isnative:
        raise InvalidInputError(
            f"{label} must have this machine's byte order, got {array.dtype.str}; use x.astype({array.dtype.name!r})"
        )
    if array.dtype not in _FLOATS:
        raise InvalidInputError(
            f"{label} must have float16, float32, float64 or bfloat16 elements, got {_elements(x, array)}; "
            f"{_remedy_for_elements(x, array)}"
        )
    if not array.flags.aligned:
        raise InvalidInputError(f"{label} must be aligned in memory, got an array that is not; use x.copy()")
    return array, False


def _from_torch(x: Any, label: str, torch: Any) -> tuple[np.ndarray, bool]:
    if x.device.type == "meta":
        raise InvalidInputError(
            f'{label} must have numbers, got a tensor on the device "meta", which has only a shape; make it on the CPU or a GPU'
        )
    if x.device.type != "cpu":
        raise InvalidInputError(f"{label} must be in the CPU's memory, got a tensor on {x.device}; use x.cpu()")
    if x.layout != torch.strided:
        raise InvalidInputError(f"{label} must be a dense tensor, got {x.layout}; use x.to_dense()")
    if x.dtype not in (torch.float16, torch.float32, torch.float64, torch.bfloat16):
        raise InvalidInputError(
            f"{label} must have float16, float32, float64 or bfloat16 elements, got {x.dtype}; if these are activations, "
            f"use x.float()"
        )
    x = x.detach().resolve_neg()
    if x.dtype == torch.bfloat16:  # NumPy has no bfloat16; the view is int16 first, because old versions of torch lack uint16
        return x.view(torch.int16).numpy().view(np.uint16), True
    return x.numpy(), False


def _kind(x: object) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def _elements(x: object, array: np.ndarray) -> str:
    names = {"U": "strings", "S": "bytes", "O": "Python objects", "V": f"records ({array.dtype})"}
    elements = names.get(array.dtype.kind, array.dtype.name)
    return elements if isinstance(x, np.ndarray) else f"{_kind(x)} of {elements}"


def _remedy_for_elements(x: object, array: np.ndarray) -> str:
    if hasattr(x, "toarray"):
        return "a sparse matrix is not taken: use x.toarray()"
    if array.dtype.kind in "iub":
        return "if these are activations and not labels, token numbers or quantised values, use x.astype('float32')"
    if array.dtype.kind in "US":
        return "numbers read as text are not converted silently: use x.astype('float32')"
    if array.dtype.kind == "c":
        return "take .real, .imag or abs() first"
    return "use x.astype('float32')"


def _remedy_for_dimensions(n: int) -> str:
    if n == 1:
        return "one token is x[None, :]"
    if n == 4:
        return (
            "a convolutional map [images, channels, height, width] becomes tokens with "
            "np.moveaxis(x, 1, -1).reshape(len(x), -1, x.shape[1])"
        )
    return "reshape it to [n_tokens, width]"
