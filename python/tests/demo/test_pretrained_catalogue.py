"""The pretrained networks of the demonstration: licences, files and extras, and what happens without their packages."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from usae.demo.pretrained import catalogue

ROOT = Path(__file__).resolve().parents[3]


def installed(name):
    """Skip the test where the package of a network is not installed."""
    package = catalogue.NETWORKS[name].package
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed (usae[demo])")


@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_the_package_has_the_weights_that_the_catalogue_names(name):
    installed(name)
    assert len(catalogue.weights(name)) > 1_000_000  # and their checksum is right, or it raises


@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_the_package_states_the_licence_that_the_catalogue_names(name):
    installed(name)
    network = catalogue.NETWORKS[name]
    words = catalogue.package_file(name, network.licence_file).read_text()
    assert network.licence_words in words
    assert {"MIT": "MIT", "Apache-2.0": "Apache"}[network.licence] in words


def test_the_extra_asks_for_the_packages_of_the_catalogue():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {f"{network.package}{network.versions}" for network in catalogue.NETWORKS.values()}
    assert wanted <= set(extras["demo"])
    assert wanted <= {line.partition("  #")[0] for line in (ROOT / "requirements-dev.txt").read_text().splitlines()}


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ImportError, match=r"rapidocr.*pip install .*usae\[demo\]"):
        catalogue.weights("text detector")


class Distribution:
    """An installed package with one file, or none."""

    def __init__(self, *files):
        self.files = [importlib.metadata.PackagePath(str(file)) for file in files]
        for file in self.files:
            file.dist = self

    def locate_file(self, path):
        return Path(path)


def test_another_version_of_a_package_is_told_with_the_version_that_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(ImportError, match=r"pip install 'rapidocr>=3.10,<3.11'"):
        catalogue.weights("text detector")
    file = tmp_path / catalogue.NETWORKS["text detector"].file
    file.write_bytes(b"other weights")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(file))
    with pytest.raises(ImportError, match=r"SHA-256.*rapidocr>=3.10,<3.11"):
        catalogue.weights("text detector")
