"""Plots with matplotlib (``pip install 'usae[plot]'``), one for each figure of the paper, and of agreement with its ceiling.

`maximization` draws optimised images. The other functions draw an `Evaluation` or, in `consistency`, the result of
`usae.consistency`, and in `agreement` that of `usae.controls`. They draw to the axes `ax`, or to a new figure if it is None,
and return the axes. Their argument `null` is a null model to compare with, for example the evaluation of an autoencoder that
was trained on rows paired at random. It is drawn in grey or dashed. The colours are those of Okabe and Ito, which can be
distinguished with any kind of colour vision; models also differ by line style or marker.
"""

from __future__ import annotations

from usae.plot._agreement import agreement
from usae.plot._consistency import consistency
from usae.plot._evaluation import cofire_proportion, cross_reconstruction, energy_cofires, firing_entropy
from usae.plot._maximization import maximization

__all__ = [
    "agreement",
    "cofire_proportion",
    "consistency",
    "cross_reconstruction",
    "energy_cofires",
    "firing_entropy",
    "maximization",
]
