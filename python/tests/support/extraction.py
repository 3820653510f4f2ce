"""Networks and pictures to extract from."""

import torch
from torch import nn

from usae.torch import Model

IDENTITY = {"mean": 0, "std": 1}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def networks(seed=0, **options):
    torch.manual_seed(seed)
    return {
        "fine": Model(nn.Sequential(nn.Conv2d(3, 5, 4, stride=4)), "0", size=32, **{**IMAGENET, **options}),
        "coarse": Model(nn.Sequential(nn.Conv2d(3, 7, 8, stride=8)), "0", size=32, **IMAGENET),
    }


class Stopping:
    """Pictures that end in an error, as a computer might."""

    def __init__(self, images, after):
        self.images, self.after = images, after

    def __iter__(self):
        for number, image in enumerate(self.images):
            if number == self.after:
                raise KeyboardInterrupt
            yield image
