"""Small networks of language with random weights."""

import torch
from torch import nn


class Block(nn.Module):
    """A layer within another, because PyTorch computes a layer that has hooks in another way."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0, batch_first=True)

    def forward(self, x, padding):
        return self.layer(x, src_key_padding_mask=padding)


class Encoder(nn.Module):
    """Looks at all tokens that the mask allows, as an encoder of transformers does."""

    def __init__(self, width=8, depth=3):
        super().__init__()
        self.embeddings = nn.Embedding(64, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.calls = 0

    def forward(self, input_ids, attention_mask=None):
        self.calls += 1
        x = self.embeddings(input_ids) + 0.1 * torch.arange(input_ids.shape[1])[:, None]
        padding = None if attention_mask is None else attention_mask == 0
        for block in self.blocks:
            x = block(x, padding)
        return (x, x[:, 0])


class Recurrent(nn.Module):
    """Reads from both sides and takes no mask, so that padding would change what it says."""

    def __init__(self, width=6):
        super().__init__()
        self.embeddings = nn.Embedding(64, width)
        self.states = nn.GRU(width, width, batch_first=True, bidirectional=True)

    def forward(self, numbers):
        return self.states(self.embeddings(numbers))[0]


def encoder(seed=0, **options):
    torch.manual_seed(seed)
    return Encoder(**options).eval()


def recurrent(seed=0):
    torch.manual_seed(seed)
    return Recurrent().eval()
