"""Small networks of PyTorch."""

import torch
from torch import nn


class Transformer(nn.Module):
    """A class token, a register and patches of 4 x 4 pixels, through one block."""

    def __init__(self, width=12, dropout=0.0):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, 2, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.block(torch.cat([self.extra.expand(len(tokens), -1, -1), tokens], 1))[:, 0])


class Gives(nn.Module):
    """Whatever `make` makes of the images, as the layer "part"."""

    def __init__(self, make):
        super().__init__()
        self.part = nn.Identity()
        self.make = make

    def forward(self, images):
        return self.part(self.make(images))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, 2, 1)).eval()


def transformer(**options):
    torch.manual_seed(1)
    return Transformer(**options).eval()
