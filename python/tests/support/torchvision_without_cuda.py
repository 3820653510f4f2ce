"""Makes torchvision, and so timm, importable beside a PyTorch without CUDA.

PyPI's torchvision is compiled for PyTorch with CUDA. Beside the other its operators do not load, which it would forgive but for
two that it describes without looking whether they are there. They are for detection; nothing here calls them. As a script it
runs the script that it is given.
"""

import runpy
import sys

import torch

_declared = torch.library.Library("torchvision", "FRAGMENT")  # operators live as long as this


try:
    import torchvision
except RuntimeError:
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
