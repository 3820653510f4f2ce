"""The documentation site: every page is in the navigation, every public name in the reference, and no link leads nowhere."""

import importlib.util
import itertools
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import usae

yaml = pytest.importorskip("yaml")

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODULES = ("usae", "usae.plot", "usae.recipes", "usae.synthetic", "usae.torch")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without calling the functions that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def site():
    """The module that writes the pages, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def navigation():
    """The pages of the navigation, in its order."""

    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]

    return pages(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])


def test_the_navigation_names_every_page_once(site, navigation):
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    others = {"reference/README.md", *site.reference(), *(site.uri(path) for path in site.START)}
    assert sorted(navigation) == sorted(documents | others)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(site, name):
    there = {each for page in site.reference() for each in re.findall(r"^::: (\S+)$", site.reference_page(page), re.MULTILINE)}
    module = importlib.import_module(name)
    same = [importlib.import_module(other) for other in MODULES[1:]]
    for public in module.__all__:
        if public == "__version__" or f"{name}.{public}" in there:
            continue
        value = getattr(module, public)
        elsewhere = [f"{other.__name__}.{public}" for other in same if getattr(other, public, None) is value]
        assert there & set(elsewhere) or f"reference/{name}.{public}.md" in site.reference() or public == "errors", public


def test_a_name_that_no_page_has_is_refused(site, monkeypatch):
    monkeypatch.delitem(site.SUBJECTS, "Settings")
    assert site.missing() == ["set_num_threads", "show_config"]
    with pytest.raises(ValueError, match="set_num_threads"):
        site.overview()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](stores.md#limits)", "[a](stores.md#limits)"),
        ("[a](../benchmarks/README.md#x)", "[a](repository/benchmarks/readme.md#x)"),
        ("[a](../examples/two_models.py)", "[a](repository/examples/two_models.py.md)"),
        ("`[a](../README.md)`", "`[a](../README.md)`"),
        ("[a](https://example.org) [b](#here)", "[a](https://example.org) [b](#here)"),
    ],
)
def test_links_are_those_of_the_site(site, text, expected):
    assert site.rewritten(text, "docs/page.md") == expected


def test_a_page_outside_docs_links_back(site):
    assert site.rewritten("[a](../docs/method.md)", "benchmarks/README.md") == "[a](../../method.md)"


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))])
def test_lists_and_tables_have_a_blank_line_before_them(page):
    """Code hosts do without, the site's Markdown does not."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = []
    for before, line in itertools.pairwise(text.splitlines()):
        if re.match(r"(\*|\d+\.) ", line) and not re.match(r"(\*|\d+\.) |  |$", before):
            found.append(line)
        if re.match(r"\|.*\|$", line) and not re.match(r"\||$", before):
            found.append(line)
    assert found == []


@pytest.mark.slow
def test_the_tutorial_shows_what_its_code_prints():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    shown = np.array(re.findall(r"(?<= )-?\d\.\d{3}", re.search(r"^```\n(R2 of .*?)^```", text, re.DOTALL | re.MULTILINE)[1]))
    train, held_out = usae.demo.activations()
    ev = usae.UniversalSAE(n_concepts=256, k=12, seed=0).fit(train, steps=500).evaluate(held_out)
    # Instruction sets that round differently lead to other numbers, which are near these.
    np.testing.assert_allclose(ev.r2.ravel(), shown.astype(float), atol=0.03)


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_other_server(site, tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    for name in ("mkdocs.yml", "tools", "python"):
        source = ROOT / name
        (tmp_path / name).symlink_to(source, target_is_directory=source.is_dir())
    site.write(tmp_path / "build" / "pages")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(
            r'<(?:script|img|iframe)[^>]* src="?https?:|<link[^>]* rel="?stylesheet"?[^>]* href="?https?:', text
        )
    shutil.rmtree(tmp_path / "site")


@pytest.mark.slow
def test_a_dead_link_is_an_error(site, tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"^nav:.*", "", config, flags=re.DOTALL | re.MULTILINE), encoding="utf-8")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / "python").symlink_to(ROOT / "python")
    pages = tmp_path / "build" / "pages"
    shutil.copytree(ROOT / "tools" / "site", pages / "site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml")]
    for text, code in (("[a](#here)\n\n# Here", 0), ("[a](nowhere.md)", 1), ("[a](#nowhere)", 1)):
        (pages / "index.md").write_text(text, encoding="utf-8")
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == code, text
