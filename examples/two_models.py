"""Extract the activations of two timm networks on photographs, train on them, and evaluate. Takes 15 seconds; needs timm."""

import timm
import torch

import usae
import usae.torch
from usae.demo import photographs

# Weights are random, so that nothing is downloaded. Concepts are meaningful only with pretrained=True.
torch.manual_seed(0)
vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=128).eval()
resnet = timm.create_model("resnet18", pretrained=False).eval()
models = {"vit": usae.torch.Model(vit), "resnet": usae.torch.Model(resnet, "layer3", size=128)}
print(*models.values(), sep="\n")

pictures = photographs.load()
train, held_out = (photographs.crops(pictures, split, n=100, seed=0).images for split in ("train", "held_out"))
acts = usae.torch.extract(models, train)  # "vit": [100, 64, 192], "resnet": [100, 64, 256]

sae = usae.UniversalSAE(n_concepts=512, k=8).fit(acts, steps=100)
print(sae.evaluate(usae.torch.extract(models, held_out)).summary())
