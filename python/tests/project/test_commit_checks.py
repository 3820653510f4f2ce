"""What is checked before a commit is what `make lint` runs, and `make test` runs it first."""

import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def prerequisites(target):
    return re.search(rf"^{target}:(.*)$", MAKEFILE, re.MULTILINE)[1].split()


def test_hooks_run_targets_of_the_makefile_with_what_is_installed():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert [(hook["entry"], hook["language"], hook["pass_filenames"]) for hook in hooks] == [("make lint", "system", False)]
    assert all(re.search(hook["files"], name) for hook in hooks for name in ("python/usae/recipes.py", "pyproject.toml"))


def test_lint_is_ruff_and_mypy_and_comes_first():
    shown = subprocess.check_output(["make", "--dry-run", "--always-make", "lint"], cwd=ROOT, text=True)
    assert re.findall(r"^\.venv/bin/((?:ruff|mypy).*)", shown, re.MULTILINE) == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
    ]
    assert prerequisites("test")[0] == prerequisites("test-quick")[0] == "lint"
