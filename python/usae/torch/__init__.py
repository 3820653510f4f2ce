"""Activations of PyTorch vision networks, and training in several processes over torch.distributed.

`extract` takes the activations of one layer of each network, over the same images and on one token grid. The module needs
torch: ``pip install 'usae[torch]'``. Networks of timm, transformers and torchvision are recognised, but these libraries are not
needed.
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
from usae.torch._reader import SkippedPicture

__all__ = ["DistributedTrainer", "Exchanged", "Model", "SkippedPicture", "batches", "extract", "fit", "fit_distributed"]
