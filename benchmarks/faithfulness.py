"""What networks keep when their tokens are replaced: python benchmarks/faithfulness.py small|pretrained [--quick].

`small` trains the demonstration's autoencoder (256 concepts, k = 12, 2,000 steps) on the tokens of the three small networks,
brought to one grid of 8 x 8 or of 16 x 16, and measures `usae.torch.faithfulness` on held-out crops: the classifier's logits
with the crops' photographs as labels, the contrastive network's embedding, and what the masked autoencoder's decoder predicts
of three quarters of the patches from its tokens of the others. `pretrained` does so for the networks whose weights are in
packages of the index (512 concepts, k = 24, 300 steps on 864 crops at 10 x 10 tokens), without labels, on crops of other
photographs. docs/interventions.md has what it printed.
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
from usae.demo.pretrained import pictures, whole
from usae.torch import Faithfulness

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


def small(quick: bool) -> dict[str, Faithfulness]:
    """The demonstration's small networks, on two grids."""
    n_train, n_held_out, steps = (100, 40, 20) if quick else (3000, 1000, 2000)
    found, models = photographs.load(), models_of(networks.load_networks())
    train_crops = photographs.crops(found, "train", n_train, seed=0).images
    held_out = photographs.crops(found, "held_out", n_held_out, seed=1)
    results = {}
    for side in (8, 16):
        train = usae.torch.extract(models, train_crops, grid=side)
        sae = usae.UniversalSAE(256, 12, seed=0, n_threads=1).fit(train, steps=steps)
        results[f"{side} x {side}"] = usae.torch.faithfulness(
            models,
            sae,
            held_out.images,
            outputs={"classifier": "logits", "masked": "embedding", "contrastive": "embedding"},
            labels={"classifier": held_out.photograph.tolist()},
            train=train,
            batch_size=100,
        )
    return results


def pretrained(quick: bool) -> dict[str, Faithfulness]:
    """The networks whose weights are in packages of the index."""
    n_train, n_held_out, steps = (16, 12, 20) if quick else (864, 260, 300)
    found, models = pictures.load(), whole.load_models(threads=1)
    train = usae.torch.extract(models, pictures.crops(found, "train", n_train, seed=0).images, grid=10)
    sae = usae.UniversalSAE(512, 24, seed=0, n_threads=1).fit(train, steps=steps)
    held_out = pictures.crops(found, "held_out", n_held_out, seed=1).images
    return {"10 x 10": usae.torch.faithfulness(models, sae, held_out, outputs=whole.OUTPUTS, train=train, batch_size=20)}


WORLDS = {"small": small, "pretrained": pretrained}


def accuracy_line(found: Faithfulness) -> list[str]:
    """Return how often the classes of labels are named, for the networks that have labels."""
    if found.accuracy is None:
        return []
    lines = []
    for j, name in enumerate(found.model_names):
        if np.isfinite(found.accuracy.original[j]):
            from_others = (f"{found.accuracy.reconstructed[i, j]:.3f} from {each}" for i, each in enumerate(found.model_names))
            lines.append(
                f"Accuracy of {name}: {found.accuracy.original[j]:.3f} as it is, {', '.join(from_others)}, "
                f"{found.accuracy.mean[j]:.3f} with the mean token."
            )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=list(WORLDS))
    parser.add_argument("--quick", action="store_true", help="few crops and steps, to see that it works")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = WORLDS[arguments.world](arguments.quick)
    name = f"faithfulness-{arguments.world}{'-quick' if arguments.quick else ''}"
    content = json.dumps({grid: found.to_dict() for grid, found in results.items()}, indent=1)
    (RESULTS / f"{name}.json").write_text(content + "\n", encoding="utf-8")
    n_images = next(iter(results.values())).n_images
    lines = [
        "# What networks keep when their tokens are replaced",
        "",
        f"`python benchmarks/faithfulness.py {arguments.world}`, {n_images} crops.",
        "",
    ]
    for grid, found in results.items():
        lines += [f"## Trained on a grid of {grid}", "", "```", found.summary(), "```", "", *accuracy_line(found)]
    (RESULTS / f"{name}.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
