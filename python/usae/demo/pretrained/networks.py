"""The pretrained networks as PyTorch modules, and their activations on one grid of tokens."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import torch
from torch import Tensor, nn

import usae
from usae.demo.pretrained import onnx_file, trunks
from usae.demo.pretrained.catalogue import NETWORKS, weights
from usae.demo.pretrained.onnx_module import OnnxModule
from usae.demo.pretrained.pictures import SIDE
from usae.torch import Model

GRID = SIDE // 32
"""Side of the token grid. All networks have a token for each 32 x 32 pixels, so nothing has to be resized."""


class BlueFirst(nn.Module):
    """A network that takes blue, green and red, in this order."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output for images of red, green and blue, [n, 3, height, width]."""
        return self.network(images.flip(1))


def load_networks() -> dict[str, nn.Module]:
    """Read the networks from the installed packages, without importing these.

    Returns
    -------
    dict of str to torch.nn.Module
        Modules from normalised images, [n, 3, height, width], to maps, [n, width, height / 32, width / 32]. They are in
        evaluation mode and without gradients of their parameters.

    Raises
    ------
    ImportError
        If a package is not installed or has other weights. The message says how to install it.
    """
    found = {name: build(weights(name)) for name, build in _BUILDERS.items()}
    return {name: network.eval().requires_grad_(False) for name, network in found.items()}


def load_models(*, side: int = SIDE, threads: int | None = None) -> dict[str, Model]:
    """Return the networks for `usae.maximize` and `usae.torch.extract`.

    Parameters
    ----------
    side : int
        Side of the images that they take, in pixels; a multiple of 32. Default: 320.
    threads : int, optional
        Number of PyTorch's threads in a pass, as for `usae.torch.Model`. Default: None.

    Raises
    ------
    ValueError
        If `side` is not a positive multiple of 32.
    """
    if side < 32 or side % 32:
        raise ValueError(f"side: expected a positive multiple of 32, got {side}")
    grid = (side // 32, side // 32)
    return {
        name: Model(
            # The order in memory that convolutions of a CPU are fastest in.
            network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            "",
            n_prefix_tokens=0,
            grid=grid,
            mean=NETWORKS[name].mean,
            std=NETWORKS[name].std,
            size=side,
            threads=threads,
        )
        for name, network in load_networks().items()
    }


def activations(
    models: Mapping[str, Model],
    images: np.ndarray,
    *,
    batch_size: int = 4,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, np.ndarray]:
    """Run every network over the same images, on all cores. Batches are computed at once, each in one thread.

    Parameters
    ----------
    models : mapping of str to usae.torch.Model
        The networks, as ``load_models(threads=1)`` returns them.
    images : ndarray of uint8, [n, 320, 320, 3]
        The images.
    batch_size : int
        Number of images that are computed at a time. It changes only memory and speed: large batches leave the caches, and 16
        take three times the memory and half as much time again. Default: 4.
    progress : callable, optional
        Function that is called as ``progress(images_done, n)`` after each batch. Default: None.

    Returns
    -------
    dict of str to ndarray of float32, each [n, 100, width]
        Activations of each network. Token t is the same 32 x 32 pixels in every network.

    Raises
    ------
    ValueError
        If `images` has another shape or dtype, or `batch_size` is not positive.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(
            f"images: expected uint8 [n, {SIDE}, {SIDE}, 3], got {images.dtype} {list(images.shape)}; "
            "cut them with pictures.crops()"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    n = len(images)
    results = {name: np.empty((n, GRID**2, NETWORKS[name].width), np.float32) for name in models}

    def compute(start: int) -> int:
        batch = images[start : start + batch_size]
        for name, model in models.items():
            results[name][start : start + batch_size] = model(model.preprocess(batch))
        return len(batch)

    done = 0
    # Threads of one pass would wait for each other at every layer, and their number would decide the last bits.
    with ThreadPoolExecutor(max(1, usae.show_config()["n_threads"])) as pool:
        batches = [pool.submit(compute, start) for start in range(0, n, batch_size)]
        try:
            for batch in as_completed(batches):
                done += batch.result()
                if progress is not None:
                    progress(done, n)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def state_of(content: bytes) -> dict[str, Tensor]:
    """Read a file of tensors that PyTorch wrote. Nothing in it is executed."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _text_detector(content: bytes) -> nn.Module:
    return BlueFirst(OnnxModule(onnx_file.read(content), NETWORKS["text detector"].layer))


_BUILDERS: dict[str, Callable[[bytes], nn.Module]] = {
    "efficientnet": lambda content: trunks.efficientnet_lite0(state_of(content)),
    "mobilenet": lambda content: trunks.mobilenet_v2(state_of(content)),
    "text detector": _text_detector,
}
