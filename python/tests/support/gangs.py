"""Threads in place of processes, for steps that several autoencoders share without torch."""

import threading

import numpy as np

import usae
from support.autoencoders import planted
from usae._data.activations import as_aligned
from usae._training import shared_steps

ONE = usae.recipes.default(encoded_models="one", merge_cosine=None)
RECIPES = {
    "default": ONE.replace(dead_tokens=0),
    "unit rows": ONE.replace(dead_tokens=0, dictionary_norm="unit"),
    "dead": ONE.replace(dead_tokens=1, aux_k=7),
    "merging": ONE.replace(merge_cosine=0.3, merge_every=3, warmup_steps=0, dead_tokens=0),
    "published": usae.recipes.published(total_steps=50),
    "batchtopk": ONE.replace(selection="batchtopk", dead_tokens=1, aux_k=7),
    "two": usae.recipes.default(
        encoded_models="two", agreement=0.3, same_model_weight=3.0, merge_cosine=None, dead_tokens=1, aux_k=7
    ),
    "all": usae.recipes.default(
        encoded_models="all", agreement=0.3, encoder="batchnorm", selection="batchtopk", merge_cosine=None, dead_tokens=1
    ),
    "noise": usae.recipes.default(encoder="batchnorm", input_noise=0.5, merge_cosine=None, dead_tokens=0),
    "two published": usae.recipes.published(total_steps=50).replace(encoded_models="two", agreement=0.3),
}
SIZES = [100, 7, 93]


class Gang:
    """Threads instead of processes."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=300)
        self.size, self.slots = size, {}

    def run(self, task):
        """What `task(peers)` returns or raises in each thread, by rank."""
        outcomes = [None] * self.size

        def one(rank):
            try:
                outcomes[rank] = task(ThreadPeers(self, rank))
            except BaseException as error:
                outcomes[rank] = error

        threads = [threading.Thread(target=one, args=[rank]) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
            assert not thread.is_alive(), "nobody may be left waiting"
        return outcomes


class ThreadPeers:
    def __init__(self, gang, rank):
        self.gang, self.rank, self.size = gang, rank, gang.size
        self.calls, self.added = 0, []

    def meet(self, mine):
        self.calls += 1
        self.gang.slots[self.calls, self.rank] = mine
        self.gang.barrier.wait()
        return [self.gang.slots[self.calls, rank] for rank in range(self.size)]

    def all_reduce(self, array):
        def wait():
            total = np.sum([part.copy() for part in self.meet(array)], axis=0, dtype=array.dtype)
            self.gang.barrier.wait()
            array[:] = total
            self.added.append(total)

        return wait

    def all_gather(self, text):
        return self.meet(text)

    def broadcast(self, array):
        first = self.meet(array.copy())[0]
        array[:] = first


def copies(recipe, n=3, steps=2, **changes):
    """Autoencoders alike, after a few steps."""
    saes = [usae.UniversalSAE(48, 4, recipe=recipe, seed=5, n_threads=1, **changes) for _ in range(n)]
    for sae in saes:
        for step in range(steps):
            sae.partial_fit(planted(200, seed=20 + step))
        if recipe.dead_tokens:  # on these data every concept fires, so that it takes words to have dead ones
            for model in range(3):
                sae._autoencoder.write(model, "silent_tokens", np.where(np.arange(48) % 3 == 0, 500, 0))
    return saes


def parts(batch, sizes=SIZES):
    ends = np.cumsum([0, *sizes])
    return [{name: x[a:b] for name, x in batch.items()} for a, b in zip(ends, ends[1:], strict=False)]


def share(saes, batches, encoder=-1, wrap=lambda core, rank: core, masks=None):
    def task(peers):
        autoencoder = saes[peers.rank]._autoencoder
        autoencoder.core = wrap(autoencoder.core, peers.rank)

        def take():
            mask = None if masks is None else masks[peers.rank]
            return as_aligned(batches[peers.rank], "batch", autoencoder.columns, mask), None, encoder

        return shared_steps.step(autoencoder, take, peers, shared_steps.ExchangeBuffers()), peers

    return Gang(len(saes)).run(task)


def state(sae):
    autoencoder = sae._autoencoder
    names = (*autoencoder.parameter_names(), *autoencoder.training_state_names())
    tensors = [autoencoder.read(m, name).tobytes() for m in range(len(autoencoder.names)) for name in names]
    return tensors, autoencoder.core.step_count
