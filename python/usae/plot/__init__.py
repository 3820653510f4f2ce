"""Pictures, one for each figure of the paper (matplotlib, which ``pip install 'usae[plot]'`` brings).

`maximization` draws images that were optimised. All others take an `Evaluation` (`consistency` what `usae.consistency`
returns), draw into `ax`, or into a new figure of its own, and return the Axes. `null` is what the same number is without what
is to be shown, for instance the evaluation of an autoencoder that was trained on rows paired at random: it is drawn beside
the number, grey or dashed. Colours are those of Okabe and Ito, which can be told apart with any kind of colour vision;
models also differ by line or marker.
"""

from __future__ import annotations

from usae.plot._consistency import consistency
from usae.plot._evaluation import cofire_proportion, cross_reconstruction, energy_cofires, firing_entropy
from usae.plot._maximization import maximization

__all__ = ["cofire_proportion", "consistency", "cross_reconstruction", "energy_cofires", "firing_entropy", "maximization"]
