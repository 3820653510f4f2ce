"""Made-up effects of concepts: alike in all models but the last, where they are of other images."""

import numpy as np

from usae.analysis import effect_agreement
from usae.analysis.effects import ConceptEffects


def made_up_effects(names, n_concepts, concepts=None, n_controls=0, n_images=40, seed=0):
    """Effects of ablating some concepts, half of them by default; the last concept never fires."""
    rng = np.random.default_rng(seed)
    concepts = np.arange(n_concepts // 2) if concepts is None else np.asarray(concepts)
    shared = rng.random((n_images, n_concepts))
    sizes = [shared + 0.1 * rng.random(shared.shape) for _ in names]
    sizes[-1] = rng.random(shared.shape)
    code, rate = rng.random((2, len(names), n_concepts)) + 0.1
    active = rng.integers(1, n_images, (len(names), n_concepts))
    active[:, -1] = 0
    known = active > 0
    estimate = np.where(known, -rng.random(active.shape), np.nan)
    of = code[:, concepts], rate[:, concepts], known[:, concepts]
    exact = effect_agreement.compared(effect_agreement.of_images([x[:, concepts] for x in sizes]), *of)
    classes = {names[0]: rng.standard_normal((len(concepts), 5))}
    return ConceptEffects(
        model_names=tuple(names),
        n_images=n_images,
        scores=("logit of the predicted class", *["share of the code's contribution"] * (len(names) - 1)),
        concepts=concepts,
        n_chosen=len(concepts) - n_controls,
        images_active=active,
        mean_code=code,
        firing_rate=rate,
        first_order=estimate,
        first_order_size=-estimate,
        change=estimate[:, concepts],
        size=-2 * estimate[:, concepts],
        class_changes=classes,
        agreement=exact,
        active_agreement=exact,
        code_agreement=exact,
        class_agreement=None,
        first_order_agreement=effect_agreement.compared(effect_agreement.of_images(sizes), code, rate, known),
    )
