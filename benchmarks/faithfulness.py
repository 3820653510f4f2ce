"""What the demonstration's networks keep when their tokens are replaced: python benchmarks/faithfulness.py [--quick].

Trains the demonstration's autoencoder (256 concepts, k = 12, 2,000 steps) on the tokens of the three networks, brought to one
grid of 8 x 8 or of 16 x 16, and measures `usae.torch.faithfulness` on held-out crops: the classifier's logits with the crops'
photographs as labels, the contrastive network's embedding, and what the masked autoencoder's decoder predicts of three quarters
of the patches from its tokens of the others. docs/interventions.md has what it printed.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np
import torch
from torch import Tensor, nn

import usae
import usae.torch
from usae.demo import networks, photographs
from usae.demo.networks import MaskedAutoencoder, Network

RESULTS = pathlib.Path(__file__).parent / "results"


class Predicting(nn.Module):
    """The masked autoencoder as a function of images: what it predicts of three quarters of the patches.

    The encoder sees all patches, so that all tokens are computed, and replaced; the tokens of a quarter are decoded.
    """

    def __init__(self, network: MaskedAutoencoder):
        super().__init__()
        self.network = network
        self.order = torch.from_numpy(np.random.default_rng(0).permutation(network.n_patches))

    def forward(self, images: Tensor) -> Tensor:
        network = self.network
        visible, hidden = self.order[: network.n_visible], self.order[network.n_visible :]
        everything = torch.arange(network.n_patches).expand(len(images), -1)
        tokens = network.narrow(network.encoder_norm(network._encode(images, everything)))[:, 1:]
        seen = tokens[:, visible] + network.decoder_place[visible]
        asked = (network.hidden + network.decoder_place[hidden]).expand(len(images), -1, -1)
        result: Tensor = network.describe(network.decoder(torch.cat([seen, asked], 1)))[:, network.n_visible :]
        return result


def models_of(nets: dict[str, Network]) -> dict[str, usae.torch.Model]:
    """The layers whose tokens the demonstration takes, on the grids that they have in the networks."""
    options = {"size": 64, "mean": 0.0, "std": 1.0, "threads": 1}
    masked = Predicting(nets["masked"]).eval()
    return {
        "classifier": usae.torch.Model(nets["classifier"], "trunk", **options),
        "masked": usae.torch.Model(masked, "network.encoder_norm", n_prefix_tokens=1, **options),
        "contrastive": usae.torch.Model(nets["contrastive"], "trunk", **options),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few crops and steps, to see that it works")
    quick = parser.parse_args().quick
    n_train, n_held_out, steps = (100, 40, 20) if quick else (3000, 1000, 2000)
    torch.set_num_threads(1)
    nets, pictures = networks.load_networks(), photographs.load()
    models = models_of(nets)
    crops = {
        "train": photographs.crops(pictures, "train", n_train, seed=0),
        "held_out": photographs.crops(pictures, "held_out", n_held_out, seed=1),
    }
    results, tables = {}, []
    for side in (8, 16):
        train = usae.torch.extract(models, crops["train"].images, grid=side)
        sae = usae.UniversalSAE(256, 12, seed=0, n_threads=1).fit(train, steps=steps)
        found = usae.torch.faithfulness(
            models,
            sae,
            crops["held_out"].images,
            outputs={"classifier": "logits", "masked": "embedding", "contrastive": "embedding"},
            labels={"classifier": crops["held_out"].photograph.tolist()},
            train=train,
            batch_size=100,
        )
        results[f"{side} x {side}"] = found.to_dict()
        accuracy = found.accuracy
        tables += [f"## Trained on a grid of {side} x {side}", "", "```", found.summary(), "```", ""]
        tables += [
            f"Accuracy of the classifier: {accuracy.original[0]:.3f} as it is, "
            + ", ".join(f"{accuracy.reconstructed[i, 0]:.3f} from {name}" for i, name in enumerate(found.model_names))
            + f", {accuracy.mean[0]:.3f} with the mean token.",
            "",
        ]
        print("\n".join(tables[-7:]), flush=True)
    name = "faithfulness-quick" if quick else "faithfulness"
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    heading = [
        "# What networks keep when their tokens are replaced",
        "",
        f"`python benchmarks/faithfulness.py`, {n_held_out} crops.",
        "",
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(heading + tables).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
