"""Activations made from known concepts, and how many of them an autoencoder finds.

::

    truth = usae.synthetic.universal()
    sae = usae.UniversalSAE(1024, 8).fit(truth.acts, steps=3000)
    print(usae.synthetic.score(sae, truth).summary())
    print(usae.synthetic.ceiling(truth, k=8).summary())  # the score of encoders that were trained on the true codes
"""

from __future__ import annotations

from usae.synthetic._ceiling import SupervisedEncoders, ceiling, supervised
from usae.synthetic._ground_truth import Tokens, Universal, universal
from usae.synthetic._recovery import Score, score

__all__ = ["Score", "SupervisedEncoders", "Tokens", "Universal", "ceiling", "score", "supervised", "universal"]
