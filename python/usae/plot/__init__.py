"""Plots with matplotlib (``pip install 'usae[plot]'``), one for each figure of the paper, of concepts, and of training.

`concept`, `concepts`, `maximization` and `training` return figures: of a concept in the same images for every model, of several
concepts, of optimised images, and of a training run. The other functions draw an `Evaluation` or, in `consistency`, the result
of `usae.consistency`, in `agreement` that of `usae.controls`, and in `effects` that of `usae.torch.concept_effects`. They draw
to the axes `ax`, or to a new figure if it is None, and return the axes. Their argument `null` is a null model to compare with,
for example the evaluation of an autoencoder that was trained on rows paired at random. It is drawn in grey or dashed. The
colours are those of Okabe and Ito, which can be distinguished with any kind of colour vision; models also differ by line style
or marker.
"""

from __future__ import annotations

from usae.plot._agreement import agreement
from usae.plot._concepts import concept, concepts
from usae.plot._consistency import consistency
from usae.plot._effects import effects
from usae.plot._evaluation import cofire_proportion, cross_reconstruction, energy_cofires, firing_entropy
from usae.plot._maximization import maximization
from usae.plot._training import training

__all__ = [
    "agreement",
    "cofire_proportion",
    "concept",
    "concepts",
    "consistency",
    "effects",
    "cross_reconstruction",
    "energy_cofires",
    "firing_entropy",
    "maximization",
    "training",
]
