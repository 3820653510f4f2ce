"""The README's code is run as it stands, in order and in one namespace, and what it prints is compared with what is shown."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import usae
from support.kernels import INSTRUCTION_SETS
from usae._core import resolved_recipe
from usae.demo import photographs

ROOT = pathlib.Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]


@pytest.fixture(scope="module")
def text():
    return README.read_text(encoding="utf-8")


@pytest.fixture
def small(monkeypatch):
    """What the README shows takes minutes and downloads weights: the same calls, with random weights and few steps."""
    import support.torchvision_without_cuda  # noqa: F401  # before timm, which imports torchvision

    import timm  # isort: skip

    create, maximize = timm.create_model, usae.maximize
    smaller = {"vit_small_patch14_dinov2": ("vit_tiny_patch16_224", {"img_size": 64}), "resnet50": ("resnet18", {})}
    monkeypatch.setattr(resolved_recipe, "MINIMUM_STEPS", 3)
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained: create(smaller[name][0], pretrained=False, **smaller[name][1])
    )
    few = {"steps": 2, "views": 2}
    monkeypatch.setattr(usae, "maximize", lambda *args, **kwargs: maximize(*args, **kwargs, **few), raising=False)


def numbers_of(table):
    """The cross-reconstruction matrix of a summary."""
    return np.array([[float(x) for x in re.findall(r"-?\d\.\d{3}", line)] for line in table.splitlines()[2:5]])


@pytest.mark.slow
def test_the_readmes_code_runs_and_prints_what_it_says(text, small, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for i, crop in enumerate(photographs.crops(photographs.load(), "train", 4, seed=0).images):
        Image.fromarray(crop).save(tmp_path / "photographs" / f"{i}.png")
    namespace, printed = {"__name__": "readme"}, []
    assert len(blocks) == 4
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
        printed.append(capsys.readouterr().out)
    assert (tmp_path / "first-sae").is_dir() and (tmp_path / "concept.png").is_file()
    shown = re.search(r"^```\n(R2 of .*?)^```", text, re.DOTALL | re.MULTILINE).group(1)
    # Instruction sets that round differently lead to other numbers, which are near these.
    np.testing.assert_allclose(numbers_of(printed[0]), numbers_of(shown), atol=0.03)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_picture_is_there(page):
    path = ROOT / page
    for link, _, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)\s]+))?\)", path.read_text(encoding="utf-8")):
        target = (path.parent / link).resolve() if link else path
        assert target.exists(), f"{page} links {link}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert heading in anchors, f"{page} links #{heading} of {target.name}"


def test_the_readme_links_every_page(text):
    linked = re.findall(r"\]\((docs/\w+\.md)", text)
    assert sorted({page for page in PAGES if page.startswith("docs/")}) == sorted(set(linked))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_folder_that_a_page_names_is_there(page):
    """Names in code marks that end like a source file or folder: `Training/Trainer.swift`, `python/usae/torch/`."""
    places = ("Sources", "Tests", "python", "examples", "docs", "tools", "benchmarks")
    known = {path.relative_to(ROOT).as_posix() for place in places for path in (ROOT / place).rglob("*")}
    known |= {path.name for path in ROOT.iterdir()}
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`([\w/.-]+(?:\.(?:swift|py|c|h|sh|md)|/))`", prose):
        wanted = "/" + name.removesuffix("/")
        assert any(f"/{path}".endswith(wanted) for path in known), f"{page} names {name}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md", "Sources/CUSAE/include/usae.h"])
def test_pages_that_list_instruction_sets_list_all(page):
    words = re.findall(r"\w+", (ROOT / page).read_text(encoding="utf-8"))
    assert set(INSTRUCTION_SETS) <= set(words)
