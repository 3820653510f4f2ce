"""Activations of PyTorch networks, the autoencoder as modules, interventions, and training over torch.distributed.

`extract` takes the activations of one layer of each vision network, over the same images and on one token grid, and
`extract_texts` those of networks of language, over the same texts and aligned by characters. The module needs
torch: ``pip install 'usae[torch]'``. Networks of timm, transformers and torchvision are recognised, but these libraries are not
needed.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(f"usae.torch needs PyTorch ({error}): pip install 'usae[torch]'") from error

from usae._training.shared_steps import Exchanged
from usae.analysis.effect_agreement import EffectAgreement, MeanAgreement
from usae.analysis.effects import ConceptEffects
from usae.torch._autoencoder import Autoencoder, Decoder, Encoder
from usae.torch._code_agreement import CodeAgreement, code_agreement
from usae.torch._concept_effects import concept_effects
from usae.torch._distributed import DistributedTrainer
from usae.torch._edits import Edit
from usae.torch._extract import batches, extract
from usae.torch._extract_texts import extract_texts, text_batches
from usae.torch._faithfulness import faithfulness
from usae.torch._faithfulness_scores import Faithfulness, Replacements
from usae.torch._fit import fit
from usae.torch._fit_distributed import fit_distributed
from usae.torch._intervene import intervene
from usae.torch._model import Model
from usae.torch._reader import SkippedPicture
from usae.torch._tensor_codes import TensorCodes
from usae.torch._text_model import TextModel

__all__ = [
    "Autoencoder",
    "CodeAgreement",
    "ConceptEffects",
    "Decoder",
    "DistributedTrainer",
    "Edit",
    "EffectAgreement",
    "Encoder",
    "Exchanged",
    "Faithfulness",
    "MeanAgreement",
    "Model",
    "Replacements",
    "SkippedPicture",
    "TensorCodes",
    "TextModel",
    "batches",
    "code_agreement",
    "concept_effects",
    "extract",
    "extract_texts",
    "faithfulness",
    "fit",
    "fit_distributed",
    "intervene",
    "text_batches",
]
