"""The published architecture."""

import pytest
import torch

from reference import published
from support.published_checkpoints import N_CONCEPTS, WIDTHS, K


@pytest.fixture(scope="module")
def saes():
    """The published architecture with random weights and running statistics that are not those of its birth."""
    torch.manual_seed(0)
    result = {}
    for j, width in WIDTHS.items():
        pair = published.TopKSAE(width, N_CONCEPTS, K)
        norm = pair.encoder.final_block[1]
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.1, 2)
            norm.num_batches_tracked += 12345
        result[j] = pair.eval()
    return result
