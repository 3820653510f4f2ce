"""New Python environments, and the tutorial as a script, for the tools that try what a user would install."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def create(python: str | Path, folder: Path) -> Path:
    """The Python of a new environment in `folder`."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def install(python: Path, requirements: Sequence[str], *options: str) -> None:
    """Install wheels, since a build of numpy is not what is tried."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([*command, *options, *requirements], check=True)


def tutorial(folder: Path) -> Path:
    """docs/tutorial.md as a script."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    script = folder / "tutorial.py"
    script.write_text("".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)), encoding="utf-8")
    return script
