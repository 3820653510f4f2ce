"""sparsify: SparseCoder, whose fused encoder and embedding_bag decoder are sparse. It subtracts b_dec before encoding.

Its Trainer computes activations with a language model, so its training step is repeated here line by line.
"""

import rival
import torch
from sparsify import SparseCoder, SparseCoderConfig

STEP = (
    "as its Trainer does: decoder normalised, sparse decode (no Triton on a CPU: embedding_bag), fraction of variance "
    "unexplained, AuxK off (its default), gradient parallel to the decoder removed, {}, count of dead latents"
)


class Sparsify(rival.Rival):
    package = "eai-sparsify"
    variants = {"signum": STEP.format("schedule-free sign descent (its default)"), "adam": STEP.format("Adam")}

    def make(self, weights, k, variant):
        n_concepts, width = weights["dictionary"].shape
        self.sae = SparseCoder(width, SparseCoderConfig(num_latents=n_concepts, k=k))
        with torch.no_grad():
            self.sae.encoder.weight.copy_(weights["encoder_weight"])
            self.sae.encoder.bias.copy_(weights["encoder_bias"])
            self.sae.W_dec.copy_(weights["dictionary"])
            self.sae.b_dec.copy_(weights["mean"])
        scale = (n_concepts / 2**14) ** 0.5
        if variant == "signum":
            from schedulefree import ScheduleFreeWrapper
            from sparsify.sign_sgd import SignSGD

            self.optimizer = ScheduleFreeWrapper(SignSGD(self.sae.parameters(), lr=5e-3 / scale), momentum=0.95)
            self.optimizer.train()
        else:
            self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=2e-4 / scale)
        self.silent = torch.zeros(n_concepts, dtype=torch.long)

    def encode(self, x):
        return tuple(self.sae.encode(x)[:2])

    def step(self, x):
        self.sae.set_decoder_norm_to_unit_norm()
        out = self.sae(x, total_variance=(x - x.mean(0)).pow(2).sum())
        fired = torch.zeros(len(self.silent), dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.silent += len(x)
        self.silent[fired] = 0
        return out.fvu.item()


if __name__ == "__main__":
    rival.serve(Sparsify())
