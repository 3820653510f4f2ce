"""The README's code is run as it stands, in order and in one namespace, in a folder with small files of the names it uses."""

import pathlib
import re

import numpy as np
import pytest
from conftest import planted

from usae import _plan

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_readme_shows_how_to_fit_and_save(blocks):
    code = "\n".join(blocks)
    for call in ("usae.UniversalSAE(", ".fit(", ".encode(", ".decode(", ".evaluate(", ".save("):
        assert call in code


def test_the_readmes_code_runs(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_plan, "MINIMUM_STEPS", 3)  # what fit does when it is told nothing takes minutes
    for name, x in planted(1200, seed=0, widths={"dinov2": 384, "siglip": 768, "vit": 768}).items():
        np.save(f"{name}.npy", x)
    namespace = {"__name__": "readme"}
    assert blocks
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/method.md", "docs/controls.md"])
def test_every_relative_link_and_picture_is_there(page):
    path = README.parent / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert links or page != "README.md"
    for link in links:
        assert (path.parent / link).exists(), f"{page} links {link}"


def test_every_file_that_the_documents_name_is_there():
    """Names in code marks that end like a source file: `Training/Trainer.swift`, `python/tests/test_memory.py`."""
    root = README.parent
    folders = ("Sources", "Tests", "python", "examples", "docs", "tools", "benchmarks")
    known = {path.as_posix() for folder in folders for path in (root / folder).rglob("*.*")}
    known |= {path.as_posix() for path in root.glob("*.*")}
    for page in ("README.md", "CONTRIBUTING.md", "docs/design.md", "docs/method.md", "docs/controls.md"):
        for name in re.findall(r"`([\w/.-]+\.(?:swift|py|c|h|sh|md))`", (root / page).read_text(encoding="utf-8")):
            assert any(path.endswith("/" + name) for path in known), f"{page} names {name}"
