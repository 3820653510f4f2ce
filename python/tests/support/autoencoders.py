"""Three models' activations with a known common code, and what there is to know about an autoencoder of them."""

import numpy as np

import usae

WIDTHS = {"dinov2": 12, "siglip": 24, "vit": 17}
N_TOKENS = 600
# With one encoder in a step, a test can say which, and how many tokens it has. test_several_encoders.py has more.
RECIPE = usae.recipes.default(batch_size=128, learning_rate=3e-3, encoded_models="one")
EPS = np.finfo(np.float32).eps


def planted(n_tokens, seed, widths=WIDTHS):
    """float32 activations of tokens with 3 of 20 concepts each, which every model shows in directions of its own."""
    directions, tokens = np.random.default_rng(7), np.random.default_rng(seed)
    code = np.zeros((n_tokens, 20))
    for row in code:
        row[tokens.choice(20, 3, replace=False)] = 1 + tokens.random(3)
    return {
        name: (code @ directions.standard_normal((20, width)) + directions.standard_normal(width)).astype(np.float32)
        for name, width in widths.items()
    }


def small(**changes):
    """An autoencoder of 32 concepts that was not trained, with this recipe but for the changes."""
    return usae.UniversalSAE(32, 4, recipe=RECIPE.replace(**changes), seed=3)


def everything(sae):
    """All that one can learn about an SAE's state, as plain values that compare bit by bit."""
    return {
        "repr": repr(sae),
        "names": sae.model_names_,
        "widths": sae.n_features_in_,
        "recipe": sae.recipe_,
        "n_steps": sae.n_steps_,
        "history": repr(sae.history_),  # repr, because NaN is not equal to itself
        "parameters": {
            model: {name: values.tobytes() for name, values in sae.parameters(model).items()} for model in sae.model_names_
        },
    }


def tensors_of(sae, names=tuple(WIDTHS)):
    """All tensors of some models, the optimiser's too, as bytes."""
    autoencoder = sae._initialized()
    tensors = (*autoencoder.parameter_names(("mean_rest",)), *autoencoder.training_state_names())
    return {(name, tensor): autoencoder.read(autoencoder.index(name), tensor).tobytes() for name in names for tensor in tensors}


def identity_sae(n_concepts, models, k):
    """Concept c fires where dimension c is positive, with that value: so activations are codes."""
    sae = usae.UniversalSAE(n_concepts, k, n_threads=1).initialize({name: n_concepts for name in models})
    for name in models:
        eye = np.eye(n_concepts, dtype=np.float32)
        sae.set_parameters(name, {"encoder_weight": eye, "dictionary": eye, "encoder_bias": np.zeros(n_concepts)})
    return sae
