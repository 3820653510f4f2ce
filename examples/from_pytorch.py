"""Train on activations that hooks on PyTorch modules catch. Takes a few seconds.

The two modules here are small and untrained, so their concepts have no meaning. The example shows how activations get from a
module to `usae`, which is the same for any module.
"""

import torch
from torch import nn

import usae

torch.manual_seed(0)

# The modules are a convolutional network with a map of 8 x 8, and a transformer in bfloat16 with a class token and 8 x 8
# patches.
convolutional = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(32, 48, 5, stride=2, padding=2))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 64))
        self.block = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1))


transformer = Transformer().to(torch.bfloat16)


def catch_output(module, caught):
    """Append the output of the module for each batch to `caught`, in CPU memory."""
    return module.register_forward_hook(lambda module, inputs, output: caught.append(output.detach().cpu()))


maps, tokens = [], []
hooks = [catch_output(convolutional[2], maps), catch_output(transformer.block, tokens)]
with torch.inference_mode():
    for _ in range(8):
        # These are smooth random pictures. Use your own data loader instead.
        images = nn.functional.interpolate(torch.randn(32, 3, 6, 6), size=32, mode="bicubic")
        convolutional.eval()(images)
        transformer.eval()(images.bfloat16())
for hook in hooks:
    hook.remove()

# Row t of every model has to be the same place in the same image. So a map [images, channels, height, width] becomes
# [images, height * width, channels], and the class token, which has no place, is dropped. usae neither converts nor copies.
acts = {
    "convolutional": torch.cat(maps).flatten(2).transpose(1, 2),  # [256, 64, 48], float32
    "transformer": torch.cat(tokens)[:, 1:],  # [256, 64, 64], bfloat16
}
train = {name: x[:224] for name, x in acts.items()}
held_out = {name: x[224:] for name, x in acts.items()}

sae = usae.UniversalSAE(n_concepts=256, k=8, seed=0).fit(train, steps=300)
print(sae.evaluate(held_out).summary())

# Predict the transformer's activations for the first held-out image from the other network's map, and go back to PyTorch.
predicted = torch.from_numpy(sae.reconstruct(held_out["convolutional"][:1], "convolutional", "transformer"))
truth = held_out["transformer"][0].float()
print(f"\nconvolutional -> transformer, cosine of a token: {nn.functional.cosine_similarity(predicted, truth).mean():.2f}")
