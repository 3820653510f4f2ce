"""The commands of all rivals' workers: loading batches, timing, and saving codes.

The file of a rival defines how its autoencoder is made from given weights, how it encodes, and its training step; see `Rival`.
"""

import importlib.metadata
import platform

import numpy as np
import serving
import torch


class Rival:
    """A library's TopK autoencoder.

    Attributes
    ----------
    package : str
        Its name on PyPI.
    variants : dict of str to str
        The variants of training that it offers and that may differ in speed, and what one step of each does.
    """

    package: str
    variants: dict

    def make(self, weights, k, variant):
        """Make the autoencoder from float32 tensors: `encoder_weight`, `dictionary` [m, d], `encoder_bias` [m], `mean` [d]."""
        raise NotImplementedError

    def encode(self, x):
        """Return codes of x, [n, d], in the form that the library returns."""
        raise NotImplementedError

    def step(self, x):
        """Do one training step and return its loss as a float."""
        raise NotImplementedError


def pairs(codes, k):
    """Return values and concepts, [n, k], of codes, which are dense, sparse or already (values, concepts)."""
    if isinstance(codes, tuple):
        values, indices = codes
    else:
        values, indices = torch.topk(codes.to_dense() if codes.is_sparse else codes, k, dim=-1)
    return values.detach().numpy(), indices.numpy()


class Commands:
    """The commands of a rival's worker."""

    def __init__(self, rival):
        self.rival, self.batches, self.k = rival, {}, 0

    def info(self):
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        return versions | {self.rival.package: importlib.metadata.version(self.rival.package), "variants": self.rival.variants}

    def set_threads(self, threads):
        torch.set_num_threads(threads)

    def load_batch(self, name, file, start=0, stop=None):
        self.batches[name] = torch.from_numpy(np.array(np.load(file, mmap_mode="r")[start:stop]))

    def make(self, file, k, variant):
        with np.load(file) as arrays:
            weights = {key: torch.from_numpy(array) for key, array in arrays.items()}
        self.k = k
        self.rival.make(weights, k, variant)

    def encode(self, batch, rows, count=1):
        """Encode a batch, `rows` rows at a time, and return the seconds."""
        parts = self.batches[batch].split(rows)

        def one():
            for part in parts:
                self.rival.encode(part)

        with torch.inference_mode():
            return {"seconds": serving.timed(one, count)}

    def encode_and_save(self, batch, rows, file):
        with torch.inference_mode():
            found = [pairs(self.rival.encode(part), self.k) for part in self.batches[batch].split(rows)]
        values, indices = (np.concatenate(parts) for parts in zip(*found, strict=True))
        np.savez(file, values=values, indices=indices)

    def step(self, batch, count=1):
        """Do steps on the batches in turn, given as one name or a list. Returns their seconds and losses."""
        names = [batch] if isinstance(batch, str) else batch
        losses, seconds = [], []
        for number in range(count):
            x = self.batches[names[number % len(names)]]
            seconds += serving.timed(lambda x=x: losses.append(self.rival.step(x)), 1)
        return {"seconds": seconds, "losses": losses}


def serve(rival):
    commands = Commands(rival)
    names = ("info", "set_threads", "load_batch", "make", "encode", "encode_and_save", "step")
    serving.serve({name: getattr(commands, name) for name in names})
