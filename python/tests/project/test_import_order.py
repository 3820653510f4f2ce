"""Packages import only from packages above them in `ORDER`, and no module imports itself by a detour.

Imports inside functions count. The few that point the other way are in `WHEN_CALLED`, with the reason.
"""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "usae"

ORDER = (
    "_usae",
    "_old_pickles",
    "errors",
    "_base",
    "recipes",
    "_files",
    "_data",
    "_core",
    "_saved",
    "_exchange",
    "_training",
    "_estimator",
    "interop",
    "analysis",
    "maximization",
    "synthetic",
    "_explorer",
    "plot",
    "torch",
    "demo",
    "cli",
)

WHEN_CALLED = {
    ("_estimator", "torch"): "`Codes.to_torch` makes tensors, and PyTorch is an extra",
    ("_estimator", "analysis"): "`UniversalSAE.evaluate` returns an `Evaluation`, whose formulas are analysis",
    ("maximization", "plot"): "`Maximization.plot` is there for notebooks, and Matplotlib is an extra",
    ("_explorer", "torch"): "`Explorer.find` may show a picture to networks, and PyTorch is an extra",
    ("maximization", "torch"): "a PyTorch module may stand for an image model, and PyTorch is an extra",
}
"""Imports that a function makes when it is called, from (package) to (package)."""


def modules():
    """Every module by its dotted name, but for `usae` itself, which is the public list and imports all."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names["usae"], names["usae.__main__"]
    return names


def imports(path, known):
    """(module, when) for each import of a module of the package; when: "loaded", "called", or "typed", which never runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    when = dict.fromkeys(ast.walk(tree), "loaded")
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            when |= dict.fromkeys(ast.walk(node), "called")
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            when |= dict.fromkeys(ast.walk(node), "typed")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "usae":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in known or name == "usae._usae" else node.module), when[node]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "usae":
                    yield alias.name, when[node]


def graph(names):
    """What each module imports, when it is loaded or when one of its functions is called."""
    return {
        name: {target for target, when in imports(path, names) if target in names and when != "typed"}
        for name, path in names.items()
    }


def levels(edges):
    """For each module the length of the longest path of imports from it; a circle is an AssertionError that names it."""
    found, open_ = {}, []

    def level(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name not in found:
            open_.append(name)
            found[name] = 1 + max(map(level, edges[name] - {name}), default=0)
            open_.pop()
        return found[name]

    for name in edges:
        level(name)
    return found


def package(module):
    return module.split(".")[1]


def test_every_package_has_its_place_in_the_order():
    assert {package(name) for name in modules()} | {"_usae"} == set(ORDER)


def test_no_package_imports_from_one_below_it():
    names, upward = modules(), set()
    for name, path in names.items():
        for target, when in imports(path, names):
            if target == "usae":  # the public list, for those who only use it
                assert package(name) in ("demo", "cli"), f"{name} imports usae, which imports everything"
                continue
            here, there = package(name), package(target)
            if ORDER.index(there) > ORDER.index(here):
                assert when != "loaded" and (here, there) in WHEN_CALLED, f"{name} imports {target}, which comes after it"
                upward.add((here, there))
    assert upward == set(WHEN_CALLED), "an exception that nothing needs"


def test_no_module_imports_itself_by_a_detour():
    assert max(levels(graph(modules())).values()) <= 24, "no deeper than it is"


def test_a_detour_would_be_found(tmp_path):
    (tmp_path / "a.py").write_text("from usae import b\n")
    (tmp_path / "b.py").write_text("def later():\n    from usae.a import x\n")
    names = {"usae.a": tmp_path / "a.py", "usae.b": tmp_path / "b.py"}
    with pytest.raises(AssertionError, match="usae.a -> usae.b -> usae.a"):
        levels(graph(names))
