"""Photographs that are part of the package, with their authors and licences.

``photographs.tsv`` has a row for each: where it is from, who took it, and under which licence. ``photographs.zip`` has the
photographs, at most 480 pixels long, as WebP. ``tools/make_demo_photographs.py`` writes it from Debian's packages.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.resources
import zipfile

import numpy as np

TABLE, FILE = "photographs.tsv", "photographs.zip"
"""Names of the files in this folder."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One photograph.

    Attributes
    ----------
    name : str
        Unique name in lower case, and of its file in the archive.
    split : {"train", "held out"}
        Whether the autoencoder of the demonstration is trained on it. Photographs of one building are in one split.
    package, file : str
        Debian package, and file in it or in its Qt resource files.
    author, licence : str
        Who took it, and the licence that the package's sources state: "public domain", "CC0-1.0" or "CC-BY-4.0".
    source : str
        Address that the package gives for it; empty if the photograph was made for the package.
    """

    name: str
    split: str
    package: str
    file: str
    author: str
    licence: str
    source: str


def catalogue() -> list[Entry]:
    """Return the table of the photographs, by name."""
    table = importlib.resources.files("usae.demo.pretrained").joinpath(TABLE).read_text(encoding="utf-8")
    return [Entry(**row) for row in csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)]


def images() -> dict[str, np.ndarray]:
    """Return every photograph by name, each of uint8, [height, width, 3]."""
    from PIL import Image  # scikit-image depends on it

    found = {}
    with importlib.resources.files("usae.demo.pretrained").joinpath(FILE).open("rb") as file, zipfile.ZipFile(file) as archive:
        for entry in catalogue():
            with archive.open(f"{entry.name}.webp") as stream, Image.open(stream) as image:
                found[entry.name] = np.asarray(image.convert("RGB"))
    return found
