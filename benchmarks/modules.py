"""The autoencoder's PyTorch modules beside the core: python benchmarks/modules.py [--quick] [--threads N].

Encodes 16,384 tokens of 768 numbers with 6,144 concepts and k = 32, and decodes their codes, with the core, and with the
modules on the CPU and, if there is one, on a GPU, in float32 and within autocast. Before a time is printed the codes are
compared with the core's (`usae.torch.code_agreement`): concepts may differ by rounding alone. Last, what
`usae.torch.intervene` adds to a pass of a transformer of that width. Times are medians of several runs in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import usae
import usae.torch

RUNS = 5


class Transformer(nn.Module):
    """A vision transformer with patches of 16 x 16."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mean(1)


def made_up(n_tokens: int, width: int, n_concepts: int, k: int) -> tuple[usae.UniversalSAE, np.ndarray]:
    """An autoencoder with random parameters, and normally distributed activations: the hardest for the selection."""
    sae = usae.UniversalSAE(n_concepts, k).initialize({"vit": width})
    return sae, np.random.default_rng(0).standard_normal((n_tokens, width)).astype(np.float32)


def median_times(ways: dict[str, Callable[[], Any]], device: str) -> dict[str, float]:
    """Median seconds of each way, in turn, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(RUNS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if device != "cpu":
                torch.cuda.synchronize()
            if run:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def compare(sae: usae.UniversalSAE, x: np.ndarray, device: str) -> None:
    """Print the agreement and the times of a device."""
    tokens = torch.from_numpy(x).to(device)
    encoder = usae.torch.Encoder.from_sae(sae, "vit", device=device).requires_grad_(False)
    decoder = usae.torch.Decoder.from_sae(sae, "vit", device=device).requires_grad_(False)
    codes, sparse = sae.encode(x, "vit"), encoder.sparse(tokens)

    def autocast(work: Callable[[], Any]) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return work()

    for name, agreement in (
        ("float32", usae.torch.code_agreement(sae, encoder, tokens[:2048], "vit")),
        ("autocast to bfloat16", autocast(lambda: usae.torch.code_agreement(sae, encoder, tokens[:2048], "vit"))),
    ):
        assert agreement.beyond == 0, f"{name} on {device}: {agreement}"
        print(f"{device}, {name}: the core's concepts in {agreement.same:.2%} of the tokens, others by rounding")
    ways: dict[str, Callable[[], Any]] = {
        "encode": lambda: encoder.sparse(tokens),
        "encode, autocast to bfloat16": lambda: autocast(lambda: encoder.sparse(tokens)),
        "decode": lambda: decoder(sparse),
    }
    if device == "cpu":
        ways |= {"encode, core": lambda: sae.encode(x, "vit"), "decode, core": lambda: sae.decode(codes, "vit")}
    for name, seconds in median_times(ways, device).items():
        print(f"{device}, {name}: {seconds:.4f} s, {len(x) / seconds:,.0f} tokens/s")


def interventions(sae: usae.UniversalSAE, device: str, depth: int, n_images: int) -> None:
    """Print how much longer a pass takes with edited tokens."""
    width = sae.n_features_in_["vit"]
    network = Transformer(width, depth).eval().requires_grad_(False).to(device)
    model = usae.torch.Model(network, f"blocks.{depth // 2}", size=224, mean=0.0, std=1.0)
    modules = usae.torch.Autoencoder.from_sae(sae, device=device).requires_grad_(False)
    images = torch.randn(n_images, 3, 224, 224, device=device)

    def edited(with_modules: Any) -> Tensor:
        with usae.torch.intervene({"vit": model}, with_modules, usae.torch.Edit.ablate(range(10))):
            return network(images)

    ways: dict[str, Callable[[], Any]] = {
        "a pass": lambda: network(images),
        "with edits": lambda: edited(modules),
        "with edits, parameters copied each time": lambda: edited(sae),
    }
    for name, seconds in median_times(ways, device).items():
        print(f"{device}, {depth} blocks, {n_images} images, {name}: {seconds:.4f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; the times mean nothing")
    parser.add_argument("--threads", type=int, default=2, help="threads of the core and of PyTorch. Default: 2")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    usae.set_num_threads(arguments.threads)
    sizes = (512, 64, 256, 8) if arguments.quick else (16_384, 768, 6144, 32)
    sae, x = made_up(*sizes)
    print(f"{sizes[0]:,} tokens of {sizes[1]} numbers, {sizes[2]:,} concepts, k = {sizes[3]}, {arguments.threads} threads")
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        compare(sae, x, device)
        interventions(sae, device, 2 if arguments.quick else 12, 2 if arguments.quick else 16)


if __name__ == "__main__":
    main()
