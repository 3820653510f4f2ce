"""Activations of PyTorch vision networks: one layer of each, over the same images, on one token grid. And training in several
processes, over torch.distributed.

Needs torch, which ``pip install 'usae[torch]'`` brings; timm, transformers and torchvision are known but not needed.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(f"usae.torch needs PyTorch ({error}): pip install 'usae[torch]'") from error

from usae._training.shared_steps import Exchanged
from usae.torch._distributed import DistributedTrainer
from usae.torch._extract import batches, extract
from usae.torch._fit import fit
from usae.torch._fit_distributed import fit_distributed
from usae.torch._model import Model

__all__ = ["DistributedTrainer", "Exchanged", "Model", "batches", "extract", "fit", "fit_distributed"]
