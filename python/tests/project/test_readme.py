"""The README's code is run as it stands, in order and in one namespace, in a folder with small files of the names it uses."""

import pathlib
import re

import numpy as np
import pytest
import torchvision_without_cuda  # noqa: F401  # before timm
from conftest import INSTRUCTION_SETS, planted
from PIL import Image

import usae
from usae._core import resolved_recipe
from usae.demo import photographs

import timm  # isort: skip

DOCS = ("design", "method", "controls", "maximization", "recipes", "extraction", "stores", "command_line", "long_runs")
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in DOCS)]
README = pathlib.Path(__file__).resolve().parents[3] / "README.md"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_readme_shows_how_to_fit_and_save(blocks):
    code = "\n".join(blocks)
    for call in ("usae.UniversalSAE(", ".fit(", ".encode(", ".decode(", ".evaluate(", ".save("):
        assert call in code


@pytest.fixture
def small(monkeypatch):
    """What the README shows takes minutes and downloads weights: the same calls, with random weights and few steps."""
    create, maximize = timm.create_model, usae.maximize
    smaller = {"vit_small_patch14_dinov2": ("vit_tiny_patch16_224", {"img_size": 64}), "resnet50": ("resnet18", {})}
    monkeypatch.setattr(resolved_recipe, "MINIMUM_STEPS", 3)
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained: create(smaller[name][0], pretrained=False, **smaller[name][1])
    )
    monkeypatch.setattr(usae, "maximize", lambda *args: maximize(*args, steps=2, views=2, kind="preactivation"), raising=False)


def test_the_readmes_code_runs(blocks, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for i, crop in enumerate(photographs.crops(photographs.load(), "train", 4, seed=0).images):
        Image.fromarray(crop).save(tmp_path / "photographs" / f"{i}.png")
    for name, x in planted(1200, seed=0, widths={"dinov2": 384, "siglip": 768, "vit": 768}).items():
        np.save(f"{name}.npy", x)
    namespace = {"__name__": "readme"}
    assert blocks
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_picture_is_there(page):
    path = README.parent / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert links or page != "README.md"
    for link in links:
        assert (path.parent / link).exists(), f"{page} links {link}"


def test_every_file_that_the_documents_name_is_there():
    """Names in code marks that end like a source file: `Training/Trainer.swift`, `python/tests/core/test_memory.py`."""
    root = README.parent
    folders = ("Sources", "Tests", "python", "examples", "docs", "tools", "benchmarks")
    known = {path.as_posix() for folder in folders for path in (root / folder).rglob("*.*")}
    known |= {path.as_posix() for path in root.glob("*.*")}
    for page in PAGES:
        for name in re.findall(r"`([\w/.-]+\.(?:swift|py|c|h|sh|md))`", (root / page).read_text(encoding="utf-8")):
            assert any(path.endswith("/" + name) for path in known), f"{page} names {name}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md", "Sources/CUSAE/include/usae.h"])
def test_pages_that_list_instruction_sets_list_all(page):
    words = re.findall(r"\w+", (README.parent / page).read_text(encoding="utf-8"))
    assert set(INSTRUCTION_SETS) <= set(words)
