"""Sparse codes as tensors, on any device and with a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

UNUSED = -1
"""Index of an unused slot, as in `usae.Codes`."""


class TensorCodes(NamedTuple):
    """Sparse codes of tokens as tensors: the concepts that are active, and how strongly. What `usae.Codes` is for arrays.

    ``usae.Codes(*codes)`` makes arrays of codes [n_tokens, slots], and `usae.Codes.to_torch` tensors.

    Attributes
    ----------
    values : Tensor, [..., slots]
        How active each concept is, most active first; 0 in unused slots.
    indices : Tensor of int64, [..., slots]
        The concepts of the values; -1 in unused slots.
    n_concepts : int
        Number of concepts.
    """

    values: Tensor
    indices: Tensor
    n_concepts: int

    @classmethod
    def of_arrays(cls, values: np.ndarray, indices: np.ndarray, n_concepts: int, device: Any) -> TensorCodes:
        """Return copies of arrays as tensors."""
        copies = torch.tensor(values, device=device), torch.tensor(indices, dtype=torch.int64, device=device)
        return cls(*copies, n_concepts)

    def flattened(self) -> TensorCodes:
        """Return the same codes as [n_tokens, slots]."""
        slots = self.values.shape[-1]
        return TensorCodes(self.values.reshape(-1, slots), self.indices.reshape(-1, slots), self.n_concepts)

    def to_dense(self) -> Tensor:
        """Return a dense tensor, [..., n_concepts]. Gradients of `values` pass through it."""
        used = self.indices != UNUSED
        dense = self.values.new_zeros(*self.values.shape[:-1], self.n_concepts)
        return dense.scatter_add(-1, self.indices.where(used, 0), self.values.where(used, 0))

    def to_sparse(self) -> Tensor:
        """Return a sparse COO tensor, [n_tokens, n_concepts], coalesced. Gradients of `values` pass through it."""
        values, indices, _ = self.flattened()
        tokens, slots = (indices != UNUSED).nonzero(as_tuple=True)
        places = torch.stack((tokens, indices[tokens, slots]))
        shape = len(values), self.n_concepts
        return torch.sparse_coo_tensor(places, values[tokens, slots], shape, check_invariants=True).coalesce()
