"""Write the pages of the documentation site to build/pages, from which `make docs` builds it.

They are those of docs/, a reference, and the files of the repository that pages link to.

The reference has a page for each public module, and for `usae` itself one for each subject. All names come from `__all__`,
which is read and not imported, so that the site needs no build of the library. Pages link to files as the repository has them,
for example `../benchmarks/README.md`. Such files become pages below `repository/`, so that no link leaves the site.
"""

from __future__ import annotations

import ast
import json
import pathlib
import posixpath
import re
import shutil
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "usae"
ELSEWHERE = "repository"
START = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]  # are in the navigation, whether a page links them or not
PICTURES = (".png", ".svg", ".jpg")

# The title of a page, and where the names on it are defined: their modules below usae.
SUBJECTS = {
    "Autoencoder": ("_estimator",),
    "Activations": ("_data",),
    "Evaluation and controls": ("analysis",),
    "Images of concepts": ("maximization",),
    "Explorer": ("_explorer",),
    "Exchange": ("_exchange", "interop"),
    "Reports of training": ("_core",),
    "Settings": ("_base",),
    "Errors": ("errors",),
}
FIRST = ("usae.UniversalSAE",)
"""On top of their pages. All other names are in the order of the alphabet."""
# Modules that have a page of their own.
MODULES = {
    "usae.recipes": "Recipes",
    "usae.torch": "PyTorch",
    "usae.plot": "Plots",
    "usae.synthetic": "Synthetic activations",
    "usae.demo": "Demonstration",
}

LINK = re.compile(r"(\]\()([^)\s#]+)?(#[^)\s]*)?(\))")
CODE = re.compile(r"^(```.*?^```|~~~.*?^~~~)|(`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def literal(file: pathlib.Path, name: str) -> Any:
    """The value of a module's variable, without importing the module."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise ValueError(f"{file} has no literal {name}")


def public(module: str) -> list[str]:
    """The names in `__all__`, or the public functions and classes of a module that has none."""
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    if any(isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__" for node in tree.body):
        return literal(source(module), "__all__")
    return [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]


def source(module: str) -> pathlib.Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def reference() -> dict[str, tuple[str, list[str]]]:
    """Of each page of the reference its title, and the full names on it."""
    module_of = literal(source("usae"), "_MODULE_OF")
    pages = {}
    for title, places in SUBJECTS.items():
        names = [f"usae.{name}" for name, module in module_of.items() if module.partition(".")[0] in places]
        names.sort(key=lambda name: name not in FIRST)
        pages[f"reference/{title.lower().replace(' ', '_')}.md"] = (title, names)
    for module, title in MODULES.items():
        pages[f"reference/{module}.md"] = (title, [f"{module}.{name}" for name in public(module)])
    return pages


def missing() -> list[str]:
    """The public names of usae that no page of the reference has."""
    there = {name for _, names in reference().values() for name in names}
    module_of = literal(source("usae"), "_MODULE_OF")
    elsewhere = {
        name for name, module in module_of.items() if f"usae.{module}.{name}" in there
    }  # usae.Recipe, usae.recipes.Recipe
    return [
        name
        for name in literal(source("usae"), "__all__")
        if name != "__version__" and name not in elsewhere and f"usae.{name}" not in there | {*MODULES, "usae.errors"}
    ]


def reference_page(page: str) -> str:
    title, names = reference()[page]
    module = page.removeprefix("reference/").removesuffix(".md")
    blocks = [f"# {title}\n"]
    if module in MODULES:
        blocks.append(f"::: {module}\n    options:\n      members: false\n      show_root_toc_entry: false\n")
    blocks += [f"::: {name}\n" for name in names]
    return "\n".join(blocks)


def overview() -> str:
    """The index of the reference: every public name, with its page."""
    if missing():
        raise ValueError(f"no page of the reference has {', '.join(missing())}: add the modules to SUBJECTS in {__file__}")
    lines = ["# Reference", "", "Every public name, from the docstrings. `usae.__version__` is the version as text.", ""]
    for page, (title, names) in reference().items():
        links = (f"[`{name}`]({posixpath.basename(page)}#{name})" for name in sorted(names, key=str.lower))
        lines += [f"## {title}", "", ",\n".join(links), ""]
    return "\n".join(lines)


def uri(path: str) -> str:
    """Where the site has a file of the repository, by its path there."""
    if path == "docs" or path.startswith("docs/"):
        return path.removeprefix("docs/") if path != "docs" else "README.md"
    path = path.replace("README.md", "readme.md")  # which does not become the index of a section of the navigation
    return f"{ELSEWHERE}/{path}" if path.endswith((".md", *PICTURES)) else f"{ELSEWHERE}/{path}.md"


def is_local(target: str) -> bool:
    return not re.match(r"[a-z][a-z0-9+.-]*:|/", target)


def links(text: str, path: str) -> Iterator[str]:
    """The files that a page of the repository links to."""
    for _, target, _, _ in LINK.findall(CODE.sub("", text)):
        if target and is_local(target):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def rewritten(text: str, path: str) -> str:
    """A page of the repository with its links as the site has them."""
    here = posixpath.dirname(uri(path)) or "."

    def link(match: re.Match[str]) -> str:
        before, target, fragment, after = match.groups()
        if not target or not is_local(target):
            return match[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if there.startswith("docs/") and path.startswith("docs/"):
            return match[0]
        return f"{before}{posixpath.relpath(uri(there), here)}{fragment or ''}{after}"

    pieces, end = [], 0
    for code in CODE.finditer(text):  # what is code stays as it is
        pieces += [LINK.sub(link, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join(pieces) + LINK.sub(link, text[end:])


def fenced(text: str, language: str) -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def page_of_file(path: str) -> str:
    """A file of the repository, or a folder, as a page."""
    file = ROOT / path
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if not entry.name.startswith((".", "_")))
        return f"# {path}\n\n" + "\n".join(f"* `{name}`" for name in inside) + "\n"
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return rewritten(text, path)
    if file.suffix == ".ipynb":
        cells = [("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(text)["cells"]]
        return "\n\n".join(fenced(cell, "python") if kind == "code" else rewritten(cell, path) for cell, kind in cells)
    language = {".py": "python", ".swift": "swift", ".h": "c", ".cff": "yaml"}.get(file.suffix, "text")
    return f"# {path}\n\n{fenced(text, language)}"


def needed(start: list[str]) -> list[str]:
    """The files outside docs/ that pages link to, directly or through each other. One that is not there is not returned."""
    found: list[str] = []
    waiting = [*start, *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
    while waiting:
        path = waiting.pop()
        if path in found or path.startswith("..") or not (ROOT / path).exists():
            continue
        found.append(path)
        if path.endswith(".md"):
            waiting += links((ROOT / path).read_text(encoding="utf-8"), path)
    return [path for path in found if path != "docs" and not path.startswith("docs/")]


def pages() -> dict[str, str]:
    """The text of each page of the site, by its place there."""
    docs = {
        file.name: rewritten(file.read_text(encoding="utf-8"), f"docs/{file.name}") for file in (ROOT / "docs").glob("*.md")
    }
    outside = {uri(path): page_of_file(path) for path in needed(START) if (ROOT / path).suffix not in PICTURES}
    return docs | outside | {"reference/README.md": overview()} | {page: reference_page(page) for page in reference()}


def write(folder: pathlib.Path) -> None:
    """Write all pages and their pictures; what the folder had before is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    for place, text in pages().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    for path in needed(START):
        if (ROOT / path).suffix in PICTURES:
            (folder / uri(path)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / uri(path))
    shutil.copytree(ROOT / "docs" / "images", folder / "images")
    shutil.copytree(ROOT / "tools" / "site", folder / "site")


if __name__ == "__main__":
    write(ROOT / "build" / "pages")
