"""From arrays of activations to a universal sparse autoencoder, its numbers, and a file. Takes a few seconds."""

import numpy as np

import usae

# Stand-ins for the activations of three networks: the same 40 concepts, which each network shows in directions of its own.
# Row t of every array belongs to the same place in the same image.
rng = np.random.default_rng(0)
n_tokens, n_shown = 20_000, 40
shown = rng.exponential(size=(n_tokens, n_shown)) * (rng.random((n_tokens, n_shown)) < 0.1)
acts = {
    name: (shown @ rng.standard_normal((n_shown, width))).astype(np.float32)
    for name, width in {"dinov2": 48, "siglip": 64, "vit": 64}.items()
}
train = {name: x[:18_000] for name, x in acts.items()}
held_out = {name: x[18_000:] for name, x in acts.items()}

sae = usae.UniversalSAE(n_concepts=128, k=8, seed=0)
sae.fit(train, steps=1000, validation=held_out)

# How well each network's activations follow from the code of each other network.
evaluation = sae.evaluate(held_out)
print(evaluation.summary())

# Which concepts all networks share: those that fire equally often in each, most important first.
universal = np.flatnonzero(evaluation.firing_entropy > 0.95)
strongest = universal[np.argsort(-evaluation.energy.sum(0)[universal])][:5]
print(f"\n{len(universal)} concepts fire about equally in all networks; the most energetic are {strongest.tolist()}")

# What the ViT should have computed where DINOv2 computed these rows.
codes = sae.encode(held_out["dinov2"], "dinov2")
predicted = sae.decode(codes, "vit")
print(f"dinov2 -> vit, mean squared error {np.mean((predicted - held_out['vit']) ** 2):.3f}")

# The rows in which a concept is strongest.
concept = strongest[0]
column = codes.to_csr()[:, [concept]].toarray().ravel()
print(f"concept {concept} is strongest in rows {np.argsort(-column)[:5].tolist()}")

sae.save("quickstart-sae")
again = usae.load("quickstart-sae")
assert again.encode(held_out["dinov2"], "dinov2") == codes
print("saved to quickstart-sae/")
