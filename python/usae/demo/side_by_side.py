"""Images of several concepts at once, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tqdm.auto import tqdm

import usae
from usae.torch import Model


class _Stopped(BaseException):
    """Ends a thread whose result nobody will look at."""


def maximized(
    sae: usae.UniversalSAE, concepts: Sequence[int], load: Callable[..., Mapping[str, Model]], **options: Any
) -> list[usae.Maximization]:
    """Return what `usae.maximize` returns for each concept and the networks that `load` returns, in the order of the concepts.

    In a pass of a small network threads wait for each other some hundred times, and on a busy machine each time for one that
    another process keeps from its core. Concepts need not wait for each other, so cores are divided between concepts first, and
    only those that are left between the threads of a pass. `python benchmarks/busy_machine.py` times both.

    An error, or Ctrl-C, ends all of them after the passes that are being computed.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    concepts : sequence of int
        Numbers of the concepts.
    load : callable
        Function that is called as ``load(threads=n)`` and returns the networks' models, for passes of `n` threads.
    **options
        Options of `usae.maximize`.
    """
    cores = usae.show_config()["n_threads"]
    at_once = max(1, min(cores, len(concepts)))
    models = load(threads=max(1, cores // at_once))
    stopped = threading.Event()

    def check(*_: object) -> None:
        if stopped.is_set():
            raise _Stopped

    for model in models.values():
        model.module.register_forward_pre_hook(check)

    def images(concept: int) -> usae.Maximization:
        return usae.maximize(sae, concept, models, progress=False, **options)

    with ThreadPoolExecutor(at_once) as pool:
        try:
            found = [pool.submit(images, concept) for concept in concepts]
            for done in tqdm(as_completed(found), desc="maximizing", unit="concept", total=len(found)):
                done.result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return [done.result() for done in found]
