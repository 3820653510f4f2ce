"""SAELens: TopKTrainingSAE and SAETrainer for training, TopKSAE for encoding. It subtracts b_dec before encoding.

By default, training multiplies pre-activations by the norms of decoder rows. This changes nothing here, because they are 1.
"""

import rival
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

STEP = (
    "SAETrainer.step: {} decode, squared error, AuxK (no concept is dead yet), clipping, Adam, statistics of firing; "
    "the decoder's norms are a factor and not normalised"
)


class SAELens(rival.Rival):
    package = "sae-lens"
    variants = {"default": STEP.format("dense"), "use_sparse_activations": STEP.format("sparse")}

    def make(self, weights, k, variant):
        n_concepts, width = weights["dictionary"].shape
        self.inference = TopKSAE(TopKSAEConfig(d_in=width, d_sae=n_concepts, k=k, device="cpu"))
        config = TopKTrainingSAEConfig(
            d_in=width, d_sae=n_concepts, k=k, device="cpu", use_sparse_activations=variant == "use_sparse_activations"
        )
        self.training = TopKTrainingSAE(config)
        for sae in (self.inference, self.training):
            with torch.no_grad():
                sae.W_enc.copy_(weights["encoder_weight"].T)
                sae.b_enc.copy_(weights["encoder_bias"])
                sae.W_dec.copy_(weights["dictionary"])
                sae.b_dec.copy_(weights["mean"])
        self.trainer = None

    def encode(self, x):
        return self.inference.encode(x)

    def step(self, x):
        if self.trainer is None:
            config = SAETrainerConfig(  # lr_end is required, but not used with a constant rate
                total_training_samples=100_000 * len(x), train_batch_size_samples=len(x), lr_end=3e-5, device="cpu"
            )
            self.trainer = SAETrainer(cfg=config, sae=self.training, data_provider=iter(()))
        output = self.trainer.step(x)
        self.trainer.n_training_steps += 1
        return output.loss.item()


if __name__ == "__main__":
    rival.serve(SAELens())
