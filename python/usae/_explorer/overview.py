"""What the page says of the whole autoencoder."""

from __future__ import annotations

from typing import Any

from usae._base.json import plain
from usae._estimator.universal_sae import UniversalSAE
from usae.analysis.controls import Controls
from usae.analysis.evaluation import Evaluation

LIMITS = (
    "Examples show where a concept is strongest, which makes it look purer than it is. Look at the bands and at the images on "
    "which it does not fire.",
    "Firing in all models is not agreement: compare co-firing with its null, and R2 with its ceiling.",
    "A code says that a direction is there, not that the network uses it. Only an ablation shows that.",
    "Heat maps have the resolution of the tokens, and a token sees more of the picture than its own patch.",
)
"""What the numbers cannot show."""


def described(sae: UniversalSAE, evaluation: Evaluation, controls: Controls | None) -> dict[str, Any]:
    """Return plain values: the R2 matrix, numbers of each model, controls as a table, and the recipe."""
    recipe = sae.recipe_.to_dict()
    ceiling = None if controls is None else controls.agreement
    return {
        "r2": plain(evaluation.r2),
        "tokens": evaluation.n_tokens,
        "leftOut": evaluation.n_left_out,
        "threshold": evaluation.threshold,
        "l0": plain(evaluation.l0),
        "alive": plain((~evaluation.dead).sum(1)),
        "deadEverywhere": int(evaluation.dead_everywhere.sum()),
        "agreement": plain(evaluation.mean_agreement() if ceiling is None else ceiling.mean()),
        "ceiling": None if ceiling is None else plain(ceiling.mean("ceiling")),
        "cofire": plain(evaluation.mean_cofire_proportion()),
        "summary": evaluation.summary(),
        "controls": None if controls is None else [[name, list(row.items())] for name, row in controls.table().items()],
        "nConcepts": sae.n_concepts,
        "k": sae.k,
        "seed": str(sae.seed),
        "steps": sae.n_steps_,
        "recipe": {key: value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
                   for key, value in recipe.items()},
        "limits": list(LIMITS),
    }  # fmt: skip
