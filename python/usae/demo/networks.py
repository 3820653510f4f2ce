"""Three small vision networks of different architectures and training tasks.

==============  ============================  =====  ===========  ==========================================
name            architecture                  width  token grid   trained to
==============  ============================  =====  ===========  ==========================================
`classifier`    convolutions, BatchNorm          96  16 x 16      recognise the photograph of a crop
`masked`        vision transformer              128   8 x 8       predict the three quarters that are hidden
`contrastive`   ConvNeXt-like, 48-pixel input    64  12 x 12      find a neighbouring crop
==============  ============================  =====  ===========  ==========================================

``examples/train_demo_networks.py`` trains them on the training regions of `usae.demo.photographs` in a few minutes. Its output
is in ``weights/``, stored as float16 to halve the size. Networks compute in float32.
"""

from __future__ import annotations

import abc
import importlib.resources
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

try:
    import safetensors.torch
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
except ImportError as error:
    raise ImportError(f"the demo's networks need torch and safetensors ({error}): pip install 'usae[demo]'") from error

from usae.demo.photographs import CROP_SIDE
from usae.torch import Model

GRID = 8
"""Side of the token grid to which all activations are resized. Token t is in row t // 8, column t % 8."""

N_APPEARANCE = 42
"""Number of values that the masked network predicts for a patch of 8 x 8 pixels; see `_appearance`."""

PADDING: Literal["replicate"] = "replicate"
"""With zero padding, the border of the crop would become the clearest concept in featureless crops."""


class Network(nn.Module, abc.ABC):
    """Base class of the three networks, which have a token of `width` dimensions for each place of an image."""

    width: int

    @abc.abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """Return tokens, [n, width, grid, grid], of images, [n, 3, 64, 64] in 0..1."""


class Classifier(Network):
    """Convolutional network that recognises the photograph from which a crop comes.

    Its tokens are those before the last stage. Their receptive field is 31 of 64 pixels wide, so they describe their place. The
    receptive field of the last stage is the whole crop, so its tokens mostly describe the photograph.
    """

    width = 96

    def __init__(self, n_classes: int):
        super().__init__()
        self.trunk = nn.Sequential(
            _convolution(3, 24, stride=2),
            _convolution(24, 48, stride=2),
            _convolution(48, 96),
            _convolution(96, 96, groups=4),
            _convolution(96, 96, groups=4),
        )
        self.head = nn.Sequential(
            _convolution(96, 128, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, n_classes)
        )

    def tokens(self, images: Tensor) -> Tensor:
        """Return tokens, [n, 96, 16, 16], of images, [n, 3, 64, 64] in 0..1."""
        return self.trunk(_centred(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [n, n_classes], of images, [n, 3, 64, 64] in 0..1."""
        return self.head(self.tokens(images))


class MaskedAutoencoder(Network):
    """Vision transformer that predicts properties of hidden patches from the visible ones.

    As in masked autoencoders (He et al., CVPR 2022), the encoder takes a quarter of the patches, and a small decoder predicts
    the rest. It predicts colours and edge directions of each patch, as in MaskFeat (Wei et al., CVPR 2022): the pixels of grass
    cannot be predicted, and a small network that has to predict pixels learns little but brightness.
    """

    width = 128
    patch = 8
    n_patches = (CROP_SIDE // patch) ** 2
    n_visible = n_patches // 4

    def __init__(self):
        super().__init__()
        d, d_decoder = self.width, 64
        self.embed = nn.Linear(3 * self.patch**2, d)
        self.place = nn.Parameter(0.02 * torch.randn(self.n_patches, d))
        self.summary = nn.Parameter(0.02 * torch.randn(1, d))  # the class token, which is not among the tokens returned
        self.encoder = nn.Sequential(*(_Attention(d, heads=4) for _ in range(2)))
        self.encoder_norm = nn.LayerNorm(d)
        self.narrow = nn.Linear(d, d_decoder)
        self.hidden = nn.Parameter(0.02 * torch.randn(1, d_decoder))
        self.decoder_place = nn.Parameter(0.02 * torch.randn(self.n_patches, d_decoder))
        self.decoder = nn.Sequential(_Attention(d_decoder, heads=4), nn.LayerNorm(d_decoder))
        self.describe = nn.Linear(d_decoder, N_APPEARANCE)
        self.standardise = nn.BatchNorm1d(N_APPEARANCE, affine=False)

    def tokens(self, images: Tensor) -> Tensor:
        """Return tokens, [n, 128, 8, 8], of images, [n, 3, 64, 64] in 0..1. No patch is hidden."""
        everything = torch.arange(self.n_patches).expand(len(images), -1)
        encoded = self.encoder_norm(self._encode(images, everything))[:, 1:]
        return encoded.transpose(1, 2).reshape(len(images), self.width, 8, 8)

    def forward(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Predict hidden patches.

        `images` is [n, 3, 64, 64] in 0..1. `order`, [n, 64], is a permutation of the patches, of which the first 16 are
        visible. Returns prediction and truth for the hidden patches in that order, both [n, 48, N_APPEARANCE], in units of the
        standard deviation over training patches.
        """
        visible, hidden = order[:, : self.n_visible], order[:, self.n_visible :]
        encoded = self.narrow(self.encoder_norm(self._encode(images, visible)))[:, 1:] + self.decoder_place[visible]
        decoded = self.decoder(torch.cat([encoded, self.hidden + self.decoder_place[hidden]], 1))
        truth = self.standardise(_appearance(images)).transpose(1, 2)
        return self.describe(decoded[:, self.n_visible :]), _rows(truth, hidden)

    def _encode(self, images: Tensor, visible: Tensor) -> Tensor:
        patches = F.unfold(_centred(images), self.patch, stride=self.patch).transpose(1, 2)
        tokens = self.embed(_rows(patches, visible)) + self.place[visible]
        return self.encoder(torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], 1))


class Contrastive(Network):
    """ConvNeXt-like network that distinguishes a neighbouring crop from crops of other places (InfoNCE, as in SimCLR).

    It takes crops of 48 x 48 pixels, in patches of 4. Its embedding is computed from the mean of its tokens, which are not
    negative, as in a bag of words.
    """

    width = 64
    input_side = 48

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 64, 4, stride=4),
            _ChannelNorm(64),
            *(_Mixer(64) for _ in range(5)),
            _ChannelNorm(64),
            nn.Conv2d(64, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))

    def tokens(self, images: Tensor) -> Tensor:
        """Return tokens, [n, 64, 12, 12], of images, [n, 3, side, side] in 0..1, which are resized to 48 x 48."""
        if images.shape[-1] != self.input_side:
            images = F.interpolate(images, size=(self.input_side,) * 2, mode="bilinear", antialias=True)
        return self.trunk(_centred(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings of norm 1, [n, 64], of images, [n, 3, side, side] in 0..1."""
        return F.normalize(self.head(self.tokens(images)), dim=1)


def load_networks(folder: str | os.PathLike[str] | None = None) -> dict[str, Network]:
    """Read the three networks.

    Parameters
    ----------
    folder : path-like, optional
        Folder with the files ``<name>.safetensors``. Default: None, which takes the weights in the package.

    Returns
    -------
    dict of str to Network
        "classifier", "masked" and "contrastive", in evaluation mode, float32, without gradients.
    """
    weights = {name: _read_weights(folder, name) for name in ("classifier", "masked", "contrastive")}
    networks = _built(weights["classifier"])
    for name, network in networks.items():
        network.load_state_dict(weights[name])
    return networks


def untrained_networks(seed: int = 0) -> dict[str, Network]:
    """Return the three networks with random weights, for comparison; see docs/controls.md.

    Parameters
    ----------
    seed : int
        Seed of the weights. PyTorch's own random numbers stay as they are. Default: 0.

    Returns
    -------
    dict of str to Network
        As `load_networks` returns them, with the weights that PyTorch draws and BatchNorm that changes nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _built(_read_weights(None, "classifier"))


def _built(classifier: Mapping[str, Tensor]) -> dict[str, Network]:
    """Return the three networks with the weights that PyTorch draws. The classifier has as many classes as these weights."""
    networks: dict[str, Network] = {
        "classifier": Classifier(n_classes=len(classifier["head.3.bias"])),
        "masked": MaskedAutoencoder(),
        "contrastive": Contrastive(),
    }
    return {name: network.eval().requires_grad_(False) for name, network in networks.items()}


class OnCommonGrid(nn.Module):
    """A network whose tokens are resized to the grid of 8 x 8 that all activations of the demonstration have."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens, [n, width, 8, 8], of images, [n, 3, side, side] in 0..1."""
        return F.interpolate(self.network.tokens(images), size=(GRID, GRID), mode="bilinear", antialias=True)


def load_models(folder: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> dict[str, Model]:
    """Return the three networks for `usae.maximize` and `usae.torch.extract`. Their tokens are those of `activations`.

    Parameters
    ----------
    folder : path-like, optional
        Folder of weights, as for `load_networks`. Default: None.
    threads : int, optional
        Number of PyTorch's threads in a pass, as for `usae.torch.Model`. Default: None.
    """
    settings: dict[str, Any] = {"mean": 0.0, "std": 1.0, "size": CROP_SIDE, "threads": threads}
    return {
        name: Model(OnCommonGrid(network), "", n_prefix_tokens=0, grid=(GRID, GRID), **settings)
        for name, network in load_networks(folder).items()
    }


def activations(
    networks: Mapping[str, Network],
    images: np.ndarray,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, np.ndarray]:
    """Run every network over the same images and resize the tokens to one grid.

    The grids of the networks differ, so each map is resized to 8 x 8 (bilinear, antialiased). Token t is then the same 8 x 8
    pixels of the image in every network.

    Parameters
    ----------
    networks : mapping of str to Network
        The networks, as `load_networks` returns them.
    images : ndarray of uint8, [n, 64, 64, 3]
        The images.
    batch_size : int
        Number of images that are computed at a time. It changes only memory and speed. Default: 256.
    progress : callable, optional
        Function that is called as ``progress(images_done, n)`` after each batch. Default: None.

    Returns
    -------
    dict of str to ndarray of float32, each [n, 64, width]
        Activations of each network, with tokens row by row.

    Raises
    ------
    ValueError
        If `images` has another shape or dtype, or `batch_size` is not positive.
    """
    _check_images(images)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    n = len(images)
    results = {name: np.empty((n, GRID**2, network.width), np.float32) for name, network in networks.items()}
    for start in range(0, n, batch_size):
        batch = to_tensor(images[start : start + batch_size])
        for name, network in networks.items():
            with torch.inference_mode():
                grid = OnCommonGrid(network)(batch)
            results[name][start : start + batch_size] = grid.flatten(2).transpose(1, 2).numpy()
        if progress is not None:
            progress(min(start + batch_size, n), n)
    return results


def to_tensor(images: np.ndarray) -> Tensor:
    """Convert uint8 [n, H, W, 3] to float32 [n, 3, H, W] in 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _check_images(images: np.ndarray) -> None:
    expected = (CROP_SIDE, CROP_SIDE, 3)
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise ValueError(
            f"images: expected uint8 [n, {CROP_SIDE}, {CROP_SIDE}, 3], got {images.dtype} {list(images.shape)}; "
            "cut them with photographs.crops()"
        )


def _read_weights(folder: str | os.PathLike[str] | None, name: str) -> dict[str, Tensor]:
    shipped = importlib.resources.files("usae.demo").joinpath("weights")
    path = (shipped if folder is None else pathlib.Path(folder)).joinpath(f"{name}.safetensors")
    weights = safetensors.torch.load(path.read_bytes())
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _centred(images: Tensor) -> Tensor:
    return 4 * (images - 0.45)  # about mean 0 and standard deviation 1 over these photographs


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the rows `index`, [n, m], of `tokens`, [n, t, d], as [n, m, d]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def _appearance(images: Tensor) -> Tensor:
    """Return colours and edge directions of each patch, [n, N_APPEARANCE, 64 patches], of images, [n, 3, 64, 64] in 0..1.

    There are 6 directions in each quarter of the patch, 3 colours in each quarter, and 6 directions at half the resolution.
    """
    grey = images.mean(1, keepdim=True)
    fine = F.pixel_unshuffle(_edge_directions(grey), 2)
    colours = F.pixel_unshuffle(F.avg_pool2d(images, 4), 2)
    coarse = _edge_directions(F.avg_pool2d(grey, 2))
    return torch.cat([fine, colours, coarse], 1).flatten(2)


def _edge_directions(grey: Tensor) -> Tensor:
    """Return the strength of edges in 6 directions over cells of 4 x 4 pixels, [n, 6, h / 4, w / 4], of [n, 1, h, w]."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    strength = (across**2 + down**2 + 1e-8).sqrt()
    # The angle is doubled, so that edges from light to dark and from dark to light have the same direction.
    angle = torch.arange(6, device=grey.device).view(6, 1, 1) * (2 * math.pi / 6)
    alignment = ((across**2 - down**2) * angle.cos() + 2 * across * down * angle.sin()) / strength**2
    energy = F.avg_pool2d(strength * alignment.clamp(min=0) ** 2, 4)
    return (energy + 1e-3).sqrt()  # without the root, a few strong edges would dominate the variance


def _convolution(n_in: int, n_out: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode=PADDING, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


class _Attention(nn.Module):
    """Pre-norm transformer block, [n, t, d] to [n, t, d], with a hidden layer twice as wide as the tokens."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


class _Mixer(nn.Module):
    """ConvNeXt block, [n, d, h, w] to [n, d, h, w]: a depthwise 3 x 3 convolution, then a hidden layer four times as wide."""

    def __init__(self, d: int):
        super().__init__()
        self.space = nn.Conv2d(d, d, 3, padding=1, padding_mode=PADDING, groups=d)
        self.norm = _ChannelNorm(d)
        self.channels = nn.Sequential(nn.Conv2d(d, 4 * d, 1), nn.GELU(), nn.Conv2d(4 * d, d, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.channels(self.norm(self.space(x)))


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [n, d, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
