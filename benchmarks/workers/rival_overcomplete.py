"""overcomplete: TopKSAE and train_sae, with its default, a linear encoder. It subtracts no bias from the input."""

import sys
import types

import rival
import torch

# overcomplete imports torchvision.transforms for its image models, which are not used here. PyPI's torchvision cannot be
# imported with a CPU build of PyTorch.
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision"].transforms = types.ModuleType("torchvision.transforms")

from overcomplete.sae import TopKSAE, train_sae  # noqa: E402


def criterion(x, x_hat, pre_codes, codes, dictionary):
    return (x - x_hat).square().mean()


class Overcomplete(rival.Rival):
    package = "overcomplete"
    variants = {
        "default": "train_sae with monitoring off: dense decode, squared error (the library has no default loss; AuxK would "
        "cost more), dictionary normalised, count of dead codes, clipping, Adam"
    }

    def make(self, weights, k, variant):
        n_concepts, width = weights["dictionary"].shape
        self.sae = TopKSAE(width, n_concepts, top_k=k, device="cpu")
        linear = next(module for module in self.sae.encoder.modules() if isinstance(module, torch.nn.Linear))
        with torch.no_grad():
            linear.weight.copy_(weights["encoder_weight"])
            linear.bias.copy_(weights["encoder_bias"] - weights["encoder_weight"] @ weights["mean"])
            self.sae.dictionary._weights.copy_(weights["dictionary"])
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=5e-4)

    def encode(self, x):
        return self.sae.encode(x)[1]

    def step(self, x):
        kept = []

        def kept_criterion(*arguments):
            kept.append(criterion(*arguments))
            return kept[-1]

        train_sae(self.sae, [x], kept_criterion, self.optimizer, nb_epochs=1, monitoring=0)
        return kept[-1].item()


if __name__ == "__main__":
    rival.serve(Overcomplete())
