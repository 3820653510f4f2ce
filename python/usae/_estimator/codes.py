"""Sparse codes: which concepts are active in each token, and how strongly."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae._base.tensors import on_cpu
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    import scipy.sparse

    from usae.torch._tensor_codes import TensorCodes


class Codes:
    """Sparse codes of tokens, as values and concept indices. Immutable: they keep read-only copies of the arrays.

    Parameters
    ----------
    values : array_like of float, [n_tokens, k]
        How active each concept is. `UniversalSAE.encode` makes positive values, most active first (ties: lower index first).
        Codes that you make yourself, for example to decode them, may hold any finite number in any order. Tensors may be on any
        device, so that ``usae.Codes(*codes)`` takes over a `usae.torch.TensorCodes`; only numbers are copied, not the graph.
    indices : array_like of int, [n_tokens, k]
        The concepts of the values. -1 is an unused slot, whose value counts as 0.
    n_concepts : int
        Number of concepts.

    Attributes
    ----------
    values : ndarray of float32, [n_tokens, k]
        How active each concept is; 0 in unused slots.
    indices : ndarray of int32, [n_tokens, k]
        The concepts of the values; -1 in unused slots.
    n_concepts : int
        Number of concepts.

    Raises
    ------
    InvalidInputError
        For shapes that differ, indices out of range, and values that are not finite as float32.

    Examples
    --------
    What changes in the reconstruction of a model when concept 7 is removed:

    >>> values = np.where(codes.indices == 7, 0, codes.values)
    >>> sae.decode(codes, "vit") - sae.decode(usae.Codes(values, codes.indices, codes.n_concepts), "vit")

    The codes of the third image, of 196 tokens each, as a dense array:

    >>> np.asarray(codes[2 * 196 : 3 * 196])
    """

    __slots__ = ("_values", "_indices", "_n_concepts")

    def __init__(self, values: Any, indices: Any, n_concepts: int):
        n_concepts = checks.integer(n_concepts, "n_concepts", 1, 2**24)
        values, indices = _as_copy(values, "values"), _as_copy(indices, "indices")  # what is checked is what is kept
        if values.ndim != 2 or values.shape != indices.shape:
            raise InvalidInputError(
                f"values and indices must both be [n_tokens, k], got shapes {list(values.shape)} and {list(indices.shape)}"
            )
        if values.dtype.kind != "f":
            raise InvalidInputError(f"values must be floats, got {values.dtype}")
        if indices.dtype.kind not in "iu":
            raise InvalidInputError(f"indices must be integers, got {indices.dtype}")
        if indices.size and not (indices.min() >= -1 and indices.max() < n_concepts):
            raise InvalidInputError(
                f"indices must be from 0 to n_concepts - 1 = {n_concepts - 1}, or -1 for an unused slot, got "
                f"{indices.min()} to {indices.max()}"
            )
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
            values = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(values).all():
            row, slot = np.argwhere(~np.isfinite(values))[0]
            raise InvalidInputError(f"values must be finite as float32, got {values[row, slot]} at [{row}, {slot}]")
        self._set(values, np.ascontiguousarray(indices, np.int32), n_concepts)

    @classmethod
    def _trusted(cls, values: np.ndarray, indices: np.ndarray, n_concepts: int) -> Codes:
        """Make codes without the checks, of arrays that the core or another Codes made and that nobody else has."""
        codes = cls.__new__(cls)
        codes._set(values, indices, n_concepts)
        return codes

    def _set(self, values: np.ndarray, indices: np.ndarray, n_concepts: int) -> None:
        values.flags.writeable = indices.flags.writeable = False
        # A view of a read-only array cannot be made writeable; the array itself could.
        self._values, self._indices, self._n_concepts = values.view(), indices.view(), n_concepts

    @property
    def values(self) -> np.ndarray:
        """How active each concept is, float32 [n_tokens, k]; read-only."""
        return self._values

    @property
    def indices(self) -> np.ndarray:
        """The concepts of the values, int32 [n_tokens, k], -1 for an unused slot; read-only."""
        return self._indices

    @property
    def n_concepts(self) -> int:
        """Number of concepts. Indices are smaller than this."""
        return self._n_concepts

    @property
    def k(self) -> int:
        """Number of slots of each token."""
        return self._values.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense equivalent, (n_tokens, n_concepts)."""
        return len(self), self._n_concepts

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._values)

    def __getitem__(self, rows: Any) -> Codes:
        """Return the codes of some tokens: of a slice, a boolean mask, an array of row numbers, or one row number."""
        if isinstance(rows, tuple):
            raise InvalidInputError(
                f"rows must be of tokens alone, such as codes[10:20], got {checks.shown(rows)}; for concepts use .to_csr()"
            )
        if isinstance(rows, numbers.Integral) and not isinstance(rows, bool):
            if not -len(self) <= int(rows) < len(self):
                raise IndexError(f"row {rows} of {len(self)}")  # iteration ends with this error too
            rows = [rows]
        try:
            values, indices = self._values[rows], self._indices[rows]
        except Exception as error:  # whatever NumPy, or a method of `rows`, raises
            raise InvalidInputError(f"rows must be {_ROWS}, got {checks.shown(rows)}: {error}") from error
        if values.ndim != 2:
            raise InvalidInputError(f"rows must be {_ROWS}, got {checks.shown(rows)}")
        return Codes._trusted(np.ascontiguousarray(values), np.ascontiguousarray(indices), self._n_concepts)

    def to_csr(self) -> scipy.sparse.csr_array:
        """Return a `scipy.sparse.csr_array`, [n_tokens, n_concepts], in canonical form: sorted, without unused slots."""
        import scipy.sparse

        tokens, concepts, values = self._entries()
        starts = np.concatenate(([0], np.cumsum(np.bincount(tokens, minlength=len(self)))))
        matrix = scipy.sparse.csr_array((values, concepts, starts), shape=self.shape)
        matrix.sum_duplicates()
        return matrix

    def to_torch(self, device: Any = None) -> TensorCodes:
        """Return copies as tensors, which `usae.torch.Decoder` takes.

        Parameters
        ----------
        device : torch.device or str, optional
            Where the tensors are. Default: None, which is the CPU.

        Returns
        -------
        usae.torch.TensorCodes
            values, float32 [n_tokens, k], indices, int64 [n_tokens, k], and n_concepts. Its methods `to_dense` and `to_sparse`
            make tensors [n_tokens, n_concepts].
        """
        from usae.torch._tensor_codes import TensorCodes

        return TensorCodes.of_arrays(self._values, self._indices, self._n_concepts, device)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return `to_dense`, for functions of NumPy. There is nothing to be seen without a copy."""
        if copy is False:
            raise ValueError("copy must be True or None for sparse codes, which have no dense array, got False")
        dense = self.to_dense()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def to_dense(self) -> np.ndarray:
        """Return a dense array, float32 [n_tokens, n_concepts]. It takes 4 bytes for each token and concept."""
        dense = np.zeros(self.shape, np.float32)
        tokens, concepts, values = self._entries()
        np.add.at(dense, (tokens, concepts), values)
        return dense

    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return token, concept and value of every used slot, in copies that were checked: SciPy trusts such numbers."""
        tokens, slots = np.nonzero(self._indices >= 0)
        concepts, values = self._indices[tokens, slots], self._values[tokens, slots]
        if concepts.size and not (concepts.min() >= 0 and concepts.max() < self._n_concepts):
            raise InvalidInputError(
                f"codes must have indices from -1 to {self._n_concepts - 1}, got {concepts.min()} to {concepts.max()}, so the "
                f"memory of these read-only arrays was changed; make a new usae.Codes(values, indices, n_concepts)"
            )
        return tokens, concepts, values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codes):
            return NotImplemented
        return (
            self._n_concepts == other._n_concepts
            and np.array_equal(self._values, other._values)
            and np.array_equal(self._indices, other._indices)
        )

    __hash__ = None  # type: ignore[assignment]  # like NumPy's arrays

    def __repr__(self) -> str:
        return f"Codes(n_tokens={len(self)}, k={self.k}, n_concepts={self._n_concepts})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._values, self._indices, self._n_concepts), getattr(self, "__dict__", None)


_ROWS = "a slice, a mask [n_tokens], or a list of row numbers from -n_tokens to n_tokens - 1"


def _as_copy(rows: Any, name: str) -> np.ndarray:
    try:
        rows = on_cpu(rows)
        if type(rows).__module__ == "torch":
            rows = (rows.float() if rows.is_floating_point() and rows.itemsize <= 2 else rows).numpy()  # NumPy lacks bfloat16
        return np.array(rows, order="C")
    except Exception as error:  # for example rows of different lengths, or a method of `rows` that raises
        raise InvalidInputError(f"{name} must be an array [n_tokens, k], got rows of several lengths: {error}") from error
