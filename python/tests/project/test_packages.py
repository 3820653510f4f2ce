"""What pip and conda are told of the package is true of the code, the documents and each other."""

import ast
import pathlib
import re
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
"""Of modules that have another name."""
BROUGHT_BY_THE_USER = {"timm", "torchvision", "sae_lens"}
"""Where networks and autoencoders come from. usae imports these by a name that the user gives, or to look at their classes."""

SOURCES = sorted((ROOT / "python" / "usae").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*"), *SOURCES]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower()


def imported(path):
    """Top-level modules that a file imports from elsewhere, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


def test_every_package_that_is_imported_is_a_dependency_or_belongs_to_an_extra():
    declared = {name_of(word) for words in (PROJECT["dependencies"], *EXTRAS.values()) for word in words}
    for path in SOURCES:
        modules = set(imported(path)) - set(sys.stdlib_module_names) - BROUGHT_BY_THE_USER - {"usae"}
        missing = {module for module in modules if DISTRIBUTIONS.get(module, module).lower() not in declared}
        assert not missing, f"{path.relative_to(ROOT)} imports {missing}, of no extra"


def test_a_package_of_an_extra_is_asked_for_by_the_extra():
    """An error that says `pip install pandas` forgets which versions work."""
    of_extras = {name_of(word) for words in EXTRAS.values() for word in words}
    for path in SOURCES:
        for named in re.findall(r"pip install '?([A-Za-z][\w-]*)(?![\w-]*[{\[<>=])", path.read_text(encoding="utf-8")):
            assert named.lower() not in of_extras, f"{path.relative_to(ROOT)} says to install {named} without its extra"


def test_every_extra_that_is_named_is_declared():
    for path in filter(pathlib.Path.is_file, PAGES):
        for group in re.findall(r"(?:usae|'\.|`\.|\s\.)\[([a-z][a-z,]*)\]", path.read_text(encoding="utf-8")):
            assert set(group.split(",")) <= set(EXTRAS), path


def test_an_extra_asks_for_the_same_version_as_every_other():
    oldest = {}
    for requirement in [word for words in EXTRAS.values() for word in words]:
        oldest.setdefault(name_of(requirement), set()).add(requirement)
    assert all(len(requirements) == 1 for requirements in oldest.values()), oldest


def test_the_page_lists_the_extras():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE) == list(EXTRAS)


def test_the_oldest_python_is_the_first_that_is_classified_and_that_of_the_stable_abi():
    classified = [word.rpartition(" ")[2] for word in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", word)]
    assert PROJECT["requires-python"] == f">={classified[0]}"
    assert f'"py_limited_api": "cp{classified[0].replace(".", "")}"' in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_the_conda_recipe_asks_for_the_same_versions():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    asked = recipe["requirements"]
    as_conda = {re.sub(r">=", " >=", word) for word in PROJECT["dependencies"]}
    assert recipe["context"]["version"] == PROJECT["version"]
    assert set(asked["run"]) == as_conda | {f"python {PROJECT['requires-python']}"}
    named = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    versions = {name_of(word): word for words in EXTRAS.values() for word in words}
    for constraint in asked["run_constraints"]:
        name, version = constraint.split()
        assert versions[named.get(name, name)] == named.get(name, name) + version


def test_the_matrix_tests_the_installed_package_with_all_that_tests_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import test_matrix

    test_matrix.copy_clone(tmp_path, ("project",))
    assert not (tmp_path / "python" / "usae").exists() and not (tmp_path / "python" / "tests" / "project").exists()
    named = set()
    for path in (ROOT / "python" / "tests").rglob("*.py"):
        if "project" not in path.parts:
            named |= set(re.findall(r'(?:ROOT|parents\[[23]\]) / "([^"/]+)', path.read_text(encoding="utf-8")))
    assert {"docs", "benchmarks", "tools"} <= named
    assert all((tmp_path / name).exists() for name in named if (ROOT / name).exists())
