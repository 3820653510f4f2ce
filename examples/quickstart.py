"""Train, evaluate and save a universal sparse autoencoder of activations. Takes a few seconds; needs only usae."""

import numpy as np

import usae

# Activations of three small networks that the package brings, [images, tokens, width] each. Row t of every array belongs to the
# same place in the same image. The held-out images are parts of photographs that no network was trained on.
train, held_out = usae.demo.activations()

sae = usae.UniversalSAE(n_concepts=256, k=12, seed=0)
sae.fit(train, steps=500, validation=held_out)

# How well the activations of each network can be predicted from the code of each other network.
evaluation = sae.evaluate(held_out)
print(evaluation.summary())

# Universal concepts fire about as often in all networks, and at the same places. Those with the largest energy come first.
universal = np.flatnonzero(evaluation.universal())
strongest = universal[np.argsort(-evaluation.energy.sum(0)[universal])][:5]
print(f"\n{len(universal)} concepts are universal; the most energetic are {strongest.tolist()}")

# Predict the activations of the classifier from those of the masked autoencoder.
codes = sae.encode(held_out["masked"], "masked")
predicted = sae.decode(codes, "classifier")
actual = held_out["classifier"].reshape(predicted.shape)
print(f"masked -> classifier, mean squared error {np.mean((predicted - actual) ** 2):.3f}, variance {actual.var(0).mean():.3f}")

# Find the images in which a concept is strongest. usae.demo.crops() returns the images themselves.
concept = strongest[0]
top = usae.top_examples(sae, held_out, n=5, grid=(4, 4), one_per_image=True)
for name, images in zip(top.model_names, top.images[:, concept], strict=True):
    print(f"concept {concept} is strongest in {name} for images {images.tolist()}")

sae.save("quickstart-sae")
again = usae.load("quickstart-sae")
assert again.encode(held_out["masked"], "masked") == codes
print("saved to quickstart-sae/")
