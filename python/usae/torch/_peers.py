"""Communication between the processes of a torch.distributed group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed

from usae._base import checks
from usae._training import shared_steps
from usae.errors import InvalidInputError


class TorchPeers:
    """Communication between the processes of a torch.distributed group. Arrays are summed in place."""

    def __init__(self, group: Any = None):
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            raise InvalidInputError(
                "group must be of torch.distributed once it is initialised, got none yet; call "
                "torch.distributed.init_process_group('gloo') in a program that torchrun starts"
            )
        try:
            rank = distributed.get_rank(group)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"group must be a torch.distributed.ProcessGroup or None, got {checks.shown(group)}"
            ) from error
        if rank < 0:
            raise InvalidInputError("group must be one that this process belongs to, got one of other processes")
        backends = str(distributed.get_backend_config(group))
        if "gloo" not in backends and "mpi" not in backends:
            raise InvalidInputError(
                f"group must be able to add up arrays of the CPU, got one of {backends}; pass "
                f"group=torch.distributed.new_group(backend='gloo')"
            )
        self._group = group
        self._first = 0 if group is None else distributed.get_global_rank(group, 0)
        self.rank: int = rank
        self.size: int = distributed.get_world_size(group)

    def all_reduce(self, array: np.ndarray) -> Callable[[], object]:
        work = torch.distributed.all_reduce(torch.from_numpy(array), group=self._group, async_op=True)
        return work.wait

    def all_gather(self, text: str) -> list[str]:
        result: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(result, text, group=self._group)
        return result

    def broadcast(self, array: np.ndarray) -> None:
        torch.distributed.broadcast(torch.from_numpy(array), src=self._first, group=self._group)

    @contextlib.contextmanager
    def sharing_errors(self) -> Iterator[None]:
        """Raise in all processes if one raises: its own error there, and OtherProcessError with its message elsewhere."""
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        shared_steps.agree(self, failure)
