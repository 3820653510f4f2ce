"""Analysis of a trained autoencoder: evaluation, top examples, null models, ceilings and consistency."""
