"""The photographs in the package: the table says where each is from, and the archive has exactly these."""

import importlib.resources
import zipfile

import numpy as np
import pytest

from usae.demo.pretrained import shipped

FOLDER = importlib.resources.files("usae.demo.pretrained")


def test_every_photograph_has_an_author_and_a_licence_that_allows_to_ship_it():
    entries = shipped.catalogue()
    assert [entry.name for entry in entries] == sorted({entry.name for entry in entries})
    for entry in entries:
        assert entry.author and entry.package and entry.file, entry
        assert entry.split in ("train", "held out"), entry
        assert entry.licence in ("public domain", "CC0-1.0", "CC-BY-4.0"), entry
        assert not entry.source or entry.source.startswith("https://"), entry


def test_the_archive_has_the_photographs_of_the_table_and_is_small():
    file = FOLDER.joinpath(shipped.FILE)
    with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        assert archive.namelist() == [f"{entry.name}.webp" for entry in shipped.catalogue()]
    assert len(file.read_bytes()) < 2_500_000


def test_photographs_are_pictures_of_colours():
    pytest.importorskip("PIL")
    found = shipped.images()
    assert list(found) == [entry.name for entry in shipped.catalogue()]
    for name, image in found.items():
        assert image.dtype == np.uint8 and image.shape[2] == 3 and 200 <= max(image.shape) <= 480, name
        assert image.std() > 10, name


def test_photographs_of_one_building_are_in_one_split():
    split = {entry.name: entry.split for entry in shipped.catalogue()}
    for building in ("eiffel tower", "qutub minar", "great wall"):
        assert split[f"{building} 1"] == split[f"{building} 2"]
