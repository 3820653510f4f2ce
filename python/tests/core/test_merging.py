"""Merging of duplicate concepts as users see it. The Swift tests of `Training/Update` check each part."""

import numpy as np

import usae
from support.autoencoders import RECIPE


def with_duplicates(acts, **changes):
    """An autoencoder in which concepts 3 and 11 are one, of which the first model uses 11 and the others 3."""
    recipe = RECIPE.replace(warmup_steps=0, total_steps=1000, **changes)
    sae = usae.UniversalSAE(32, 4, recipe=recipe, seed=0)
    sae.partial_fit(acts)
    for i, name in enumerate(sae.model_names_):
        parameters = sae.parameters(name)
        parameters["dictionary"][11] = parameters["dictionary"][3]
        unused = 3 if i == 0 else 11
        parameters["encoder_weight"][11 + 3 - unused] = 3 * parameters["dictionary"][3]
        parameters["encoder_weight"][unused] = 0
        parameters["encoder_bias"][unused] = -1
        sae.set_parameters(name, parameters)
    for name in sae.model_names_:  # so that each model has seen who fires
        sae.partial_fit(acts, encoder=name)
    return sae


def firing(sae, acts):
    return np.stack([np.bincount(sae.encode(x, name).to_csr().indices, minlength=32) for name, x in acts.items()])


def test_one_index_stands_for_the_concept_in_every_model_afterwards(acts):
    sae = with_duplicates(acts, merge_cosine=0.9, merge_every=5)
    before = firing(sae, acts)
    assert before[0, 3] == 0 < before[0, 11] and (before[1:, 11] == 0).all() and (before[1:, 3] > 0).all()
    sae.partial_fit(acts)  # the fifth step
    after = firing(sae, acts)
    assert (after[:, 3] > before.max(0)[3] / 4).all()
    assert abs(sae.dictionary("vit")[3] @ sae.dictionary("vit")[11]) < 0.9


def test_duplicates_stay_without_merge_cosine(acts):
    sae = with_duplicates(acts)
    sae.partial_fit(acts)
    assert sae.dictionary("vit")[3] @ sae.dictionary("vit")[11] > 0.9
