"""Writes python/usae/demo/activations.npz: python tools/make_demo_activations.py. Needs usae[demo]; takes a few seconds.

Run it after examples/train_demo_networks.py has written other weights. The tests compare the file with the weights.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch

from usae.demo import shipped_activations


def main() -> None:
    torch.set_num_threads(1)  # sums then have a fixed order, so that each run writes the same file
    path = pathlib.Path(shipped_activations.__file__).with_name(shipped_activations.FILE)
    arrays = {
        f"{split}.{name}": values.astype(np.float16)
        for split, images in zip(("train", "held_out"), shipped_activations.crops(), strict=True)
        for name, values in shipped_activations.compute(images).items()
    }
    np.savez_compressed(path, **arrays)
    for key, values in arrays.items():
        print(f"{key:22} {values.dtype} {list(values.shape)}")
    print(f"{path.stat().st_size / 1e6:.2f} MB in {path}")


if __name__ == "__main__":
    main()
