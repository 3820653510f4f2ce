"""Activations with labels, for metrics that need to know what an image shows."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

import usae


@dataclasses.dataclass(frozen=True)
class Size:
    """How many concepts there are, how many of them a token has, and how many crops are cut."""

    n_concepts: int
    k: int
    training_crops: int
    held_out_crops: int

    def quick(self) -> Size:
        return dataclasses.replace(self, training_crops=min(self.training_crops, 60), held_out_crops=240)


SIZES = {"small networks": Size(256, 12, 240, 400), "pretrained networks": Size(512, 24, 864, 440)}

PARTNERS = {
    "classifier": "contrastive",
    "masked": "contrastive",
    "contrastive": "masked",
    "efficientnet": "mobilenet",
    "mobilenet": "efficientnet",
    "text detector": "efficientnet",
}
"""For each network another one, in whose tokens the images of a concept are compared."""

KINDS = {"monuments": "building", "explore_monuments": "building", "fishes": "fish", "tools": "tool"}
KINDS |= {"explore_farm_animals": "animal"}
"""What a photograph shows, by the folder that the picture table names. Photographs from elsewhere are of the kind "other"."""

KINDS_BY_EYE = {
    "material": ("brick", "grass", "gravel"),
    "microscopy": ("cell", "histology", "retina"),
    "people": ("astronaut", "camera", "faces"),
    "sky": ("hubble", "moon", "rocket"),
    "print": ("page", "text"),
    "alive": ("cat", "flower"),
    "thing": ("coffee", "coins", "motorcycle"),
    "building": ("pagoda",),
}
"""Kinds of the photographs in scikit-image and scikit-learn, which no table has."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Activations in the units of VISAEBench, and what the held-out images show.

    Attributes
    ----------
    train : dict of str to ndarray of float32, each [n_tokens, width]
        What is trained on. The mean of each dimension is 0, and the mean variance of dimensions is 1.
    held_out : dict of str to ndarray of float32, each [n_images, tokens, width]
        Held-out activations, with the mean and scale of the training activations.
    pooled : dict of str to ndarray of float32, each [n_images, width]
        The mean token of each held-out image in the network's own units.
    photographs, classes, kinds : list of str
        The photograph that each held-out image is a crop of, its class, and the class's kind.
    """

    train: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]
    pooled: dict[str, np.ndarray]
    photographs: list[str]
    classes: list[str]
    kinds: list[str]

    @property
    def grid(self) -> int:
        return round(next(iter(self.held_out.values())).shape[1] ** 0.5)


def small_networks(size: Size) -> Labelled:
    """usae.demo's networks. Trained on the activations in the package; held out are more crops of the photographs' other parts.

    The activations in the package are every second row and column of a grid of 8 x 8; the held-out ones are the whole grid.
    """
    from usae.demo import networks, photographs

    train = {name: x[: size.training_crops] for name, x in usae.demo.activations()[0].items()}
    pictures = photographs.load()
    crops = photographs.varied_crops(pictures, "held_out", size.held_out_crops, seed=1)
    held_out = networks.activations(networks.load_networks(), crops.images)
    names = [pictures[number].name for number in crops.photograph]
    kind_of = {name: kind for kind, members in KINDS_BY_EYE.items() for name in members}
    return _standardised(train, held_out, names, names, [kind_of[name] for name in names])


def pretrained_networks(size: Size) -> Labelled:
    """The pretrained networks of the demonstration, on crops of photographs of which none is in both splits."""
    from usae.demo.pretrained import networks, pictures

    found, models = pictures.load(), networks.load_models(threads=1)
    cut = {
        "train": pictures.crops(found, "train", size.training_crops, seed=0),
        "held_out": pictures.crops(found, "held_out", size.held_out_crops, seed=1),
    }
    train, held_out = (networks.activations(models, crops.images) for crops in cut.values())
    shown = [found[number] for number in cut["held_out"].photograph]
    names, kinds = [photograph.name for photograph in shown], [kind_of(photograph.source) for photograph in shown]
    return _standardised(train, held_out, names, list(map(class_of, names, kinds)), kinds)


def kind_of(source: str) -> str:
    """Return what a photograph shows, from its file: building, fish, tool, animal or other."""
    return next((KINDS[folder] for folder in source.split("/") if folder in KINDS), "other")


def class_of(name: str, kind: str) -> str:
    """Return the class of a photograph: its name without a number, but with it for a fish, since each is of another species."""
    return name if kind == "fish" else re.sub(r" \d+$", "", name)


def _standardised(
    train: dict[str, np.ndarray],
    held_out: dict[str, np.ndarray],
    photographs: list[str],
    classes: list[str],
    kinds: list[str],
) -> Labelled:
    rows = {name: x.reshape(-1, x.shape[-1]).astype(np.float32) for name, x in train.items()}
    means = {name: x.mean(0, dtype=np.float64) for name, x in rows.items()}
    scales = {name: float(np.sqrt(x.var(0, dtype=np.float64).mean())) for name, x in rows.items()}

    def standard(name: str, x: np.ndarray) -> np.ndarray:
        return ((x - means[name]) / scales[name]).astype(np.float32)

    return Labelled(
        {name: standard(name, x) for name, x in rows.items()},
        {name: standard(name, x) for name, x in held_out.items()},
        {name: x.mean(1) for name, x in held_out.items()},
        photographs,
        classes,
        kinds,
    )


WORLDS: dict[str, Callable[[Size], Labelled]] = {
    "small networks": small_networks,
    "pretrained networks": pretrained_networks,
}


def load(world: str, size: Size, folder: Path) -> Labelled:
    """Return a world from its files in `folder`, which are written first if they are not there."""
    if not (folder / "labels.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = WORLDS[world](size)
        for part in ("train", "held_out", "pooled"):
            for name, x in getattr(made, part).items():
                np.save(folder / f"{part}.{name}.npy", x)
        labels = {"names": list(made.train), "photographs": made.photographs, "classes": made.classes, "kinds": made.kinds}
        (folder / "labels.json").write_text(json.dumps(labels))
    labels = json.loads((folder / "labels.json").read_text())
    names = labels.pop("names")
    arrays = {part: {n: np.load(folder / f"{part}.{n}.npy") for n in names} for part in ("train", "held_out", "pooled")}
    return Labelled(**arrays, **labels)
