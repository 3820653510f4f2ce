"""dictionary_learning: AutoEncoderTopK and TopKTrainer. It subtracts b_dec before encoding; decoder columns have norm 1."""

import rival
import torch
from dictionary_learning.trainers.top_k import TopKTrainer


class DictionaryLearning(rival.Rival):
    package = "dictionary-learning"
    variants = {
        "default": "TopKTrainer.update: dense decode, squared error, AuxK (no concept is dead yet), gradient parallel to "
        "the decoder removed, clipping, Adam, decoder normalised"
    }

    def make(self, weights, k, variant):
        n_concepts, width = weights["dictionary"].shape
        self.trainer = TopKTrainer(100_000, width, n_concepts, k, 0, "none", seed=0, device="cpu")
        own = self.trainer.ae
        with torch.no_grad():
            own.encoder.weight.copy_(weights["encoder_weight"])
            own.encoder.bias.copy_(weights["encoder_bias"])
            own.decoder.weight.copy_(weights["dictionary"].T)
            own.b_dec.copy_(weights["mean"])
        self.steps = 1  # step 0 would set b_dec to the median of the data

    def encode(self, x):
        return self.trainer.ae.encode(x)

    def step(self, x):
        loss = self.trainer.update(self.steps, x)
        self.steps += 1
        return loss


if __name__ == "__main__":
    rival.serve(DictionaryLearning())
