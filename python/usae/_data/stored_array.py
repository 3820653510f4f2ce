"""Activations of one model in the files of a store. They are indexed like an array, and read at that time."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae._base.float_types import widened
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from usae._data.columns import Label


class StoredArray:
    """The array [images, tokens, width] or [rows, width] of one model, split over files; ``store[name]`` returns it.

    It is indexed by images, or by rows if there are no images: by a number, a slice or an array of numbers. Only the indexed
    images are read. The result has the type of the store, or float32 if that is bfloat16. ``x[:]`` reads everything.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        item_shape: tuple[int, ...],
        dtype: np.dtype,
        bfloat16: bool,
        finished: bool,
        path: pathlib.Path,
        images: Callable[[], tuple[str, ...]],
        open_shard: Callable[[int], np.ndarray],
        verify: Callable[[], None],
        checksums: Callable[[], list[str]],
        read_mask: Callable[[], np.ndarray | None],
        labels: tuple[Label, ...] | None,
        grid: tuple[int, int] | None,
    ):
        """Make the array of a model of the store in the folder `path`.

        `lengths` has the number of images in each file, and `item_shape` the shape of an image, (tokens, width) or (width,).
        `images` returns the names of the images, and `open_shard` the array of a file. `verify` reads all files and compares
        their checksums; `checksums` returns those of the manifest. `read_mask` returns which rows count. `labels`
        are those of columns. `grid` is that of the tokens of an image.
        """
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.shape = (int(self._ends[-1]) if len(lengths) else 0, *item_shape)
        self.raw_dtype = dtype
        self.bfloat16 = bfloat16
        self._finished = finished
        self.path = path
        self.images = images
        self.open_shard = open_shard
        self.verify = verify
        self.checksums = checksums
        self._read_mask = read_mask
        self.labels = labels
        self.grid = grid

    @property
    def mask(self) -> np.ndarray | None:
        """Which rows count, bool [images, tokens] or [rows], as the store has it; None if all do. Indexing ignores it."""
        return self._read_mask()

    def check_finished(self, label: str) -> None:
        if not self._finished:
            raise InvalidInputError(
                f"{label} must come from a finished store, got one with {self.shape[0]:,} "
                f"{'images' if self.ndim == 3 else 'rows'} so far; append the rest, or call store.finish() if this is all"
            )

    @property
    def n_shards(self) -> int:
        """Number of files."""
        return len(self._ends)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def dtype(self) -> np.dtype:
        """Type of the arrays that indexing returns."""
        return np.dtype(np.float32) if self.bfloat16 else self.raw_dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        kept = "bfloat16" if self.bfloat16 else self.raw_dtype.name
        return f"StoredArray({list(self.shape)}, {kept}, {self.n_shards} files)"

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple) or key is None:
            raise InvalidInputError(
                f"key must select images only, got {checks.shown(key)}; select tokens in the result: x[:10][:, 1:]"
            )
        numbers = np.arange(self.shape[0])[key]
        per_image = self.shape[1] if self.ndim == 3 else 1
        rows: slice | np.ndarray
        if isinstance(key, slice) and key.step in (None, 1) and numbers.size:
            rows = slice(int(numbers[0]) * per_image, (int(numbers[-1]) + 1) * per_image)
        else:
            rows = (np.ravel(numbers)[:, None] * per_image + np.arange(per_image)).ravel()
        return widened(self.rows(rows), self.bfloat16).reshape(*np.shape(numbers), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def rows(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return some rows, [n, width], in the type of the files. Rows of [images, tokens, width] are numbered image by image.

        A slice needs a start and a stop. A file is mapped only while it is read, so that memory holds only the result.
        """
        if isinstance(rows, slice):
            return self._consecutive(rows.start, rows.stop)
        ends = self._row_ends()
        out = np.empty((len(rows), self.shape[-1]), self.raw_dtype)
        of_shard = np.searchsorted(ends, rows, side="right")
        for shard in np.unique(of_shard):
            places = np.flatnonzero(of_shard == shard)
            first = ends[shard - 1] if shard else 0
            out[places] = self._shard_rows(int(shard))[rows[places] - first]
        return out

    def _consecutive(self, start: int, stop: int) -> np.ndarray:
        ends = self._row_ends()
        out = np.empty((stop - start, self.shape[-1]), self.raw_dtype)
        row = start
        while row < stop:
            shard = int(np.searchsorted(ends, row, side="right"))
            first, end = (int(ends[shard - 1]) if shard else 0), min(int(ends[shard]), stop)
            out[row - start : end - start] = self._shard_rows(shard)[row - first : end - first]
            row = end
        return out

    def _row_ends(self) -> np.ndarray:
        return self._ends * (self.shape[1] if self.ndim == 3 else 1)

    def _shard_rows(self, shard: int) -> np.ndarray:
        return self.open_shard(shard).reshape(-1, self.shape[-1])


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """Round finite float32 to bfloat16, viewed as uint16: to the nearest number, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
