"""The pretrained networks with what follows the layer whose tokens are taken, to run them on with edited concepts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from usae.demo.pretrained import networks, onnx_file, trunks
from usae.demo.pretrained.catalogue import NETWORKS, weights
from usae.demo.pretrained.onnx_module import OnnxModule
from usae.demo.pretrained.pictures import SIDE
from usae.torch import Model

OUTPUTS: dict[str, Literal["logits", "embedding"]] = {
    "efficientnet": "logits",
    "mobilenet": "embedding",
    "text detector": "embedding",
}
"""What each network gives: logits of ImageNet's 1,000 classes; the mean of the last convolution, by which its package tells
objects apart; the logits of text, averaged in each token's square of 32 x 32 pixels."""

TEXT_LOGITS = "p2o.pd_op.add.97.0"
"""The text detector's last value before the sigmoid."""


class TextMap(nn.Module):
    """The text detector: how likely the pixels of each token's square are text."""

    def __init__(self, network: OnnxModule):
        super().__init__()
        self.network = network
        self.pool = nn.AvgPool2d(32)

    def forward(self, images: Tensor) -> Tensor:
        """Return mean logits of squares, [n, height / 32 * width / 32], of images of red, green and blue."""
        found: Tensor = self.pool(self.network(images.flip(1))).flatten(1)
        return found


def load_models(*, threads: int | None = None) -> dict[str, Model]:
    """Return the networks as whole modules, for pictures of 320 x 320 pixels.

    Tokens are those of `usae.demo.pretrained.networks` in EfficientNet and the text detector. In MobileNet they are those
    before the last convolution, because there is nothing but a mean after it.

    Parameters
    ----------
    threads : int, optional
        Number of PyTorch's threads in a pass, as for `usae.torch.Model`. Default: None.
    """
    found = networks.load_networks()
    trunk = found["mobilenet"]
    last = max(number for number, part in enumerate(trunk.children()) if isinstance(part, trunks.InvertedResidual))
    mobilenet = nn.Sequential(OrderedDict(trunk=trunk, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
    state = networks.state_of(weights("efficientnet"))
    efficientnet = nn.Sequential(OrderedDict(trunk=found["efficientnet"], head=trunks.efficientnet_lite0_head(state)))
    graph = onnx_file.read(weights("text detector"))
    detector = TextMap(OnnxModule(graph, TEXT_LOGITS, NETWORKS["text detector"].layer))
    layers = {"efficientnet": "trunk", "mobilenet": f"trunk.{last}", "text detector": "network.layer"}
    grid = (SIDE // 32, SIDE // 32)
    return {
        name: Model(
            network.eval().requires_grad_(False),
            layers[name],
            grid=grid,
            mean=NETWORKS[name].mean,
            std=NETWORKS[name].std,
            size=SIDE,
            threads=threads,
        )
        for name, network in (("efficientnet", efficientnet), ("mobilenet", mobilenet), ("text detector", detector))
    }
