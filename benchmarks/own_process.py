"""Runs a task in a separate process, so that its peak memory can be measured."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

Figures = dict[str, float]


def in_own_process(task: Callable[..., Figures], *arguments: Any) -> Figures:
    """Return the result of the task, with "peak MB" of its process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, task, arguments))
    process.start()
    sender.close()  # otherwise this process would wait for ever for a task that fails
    figures: Figures = receiver.recv()
    process.join()
    return figures


def _send(sender: Any, task: Callable[..., Figures], arguments: tuple[Any, ...]) -> None:
    sender.send(task(*arguments) | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
