"""Tests a wheel with the oldest and the newest Pythons and packages that pyproject.toml declares.

    make test-matrix                                     # or python tools/test_matrix.py dist/usae-*.whl
    python tools/test_matrix.py --torch dist/usae-*.whl  # with PyTorch: gigabytes, where pip finds no build for the CPU

The oldest Python is tried with each package at the oldest version that is declared, each newer one with the newest. The first
and the last run the quick tests that need no package but those; all run the tutorial and learn. All extras together have to be
installable, oldest and newest, with every Python that is declared. One that is not here is otherwise counted as skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import environments

SHOWN = ("numpy", "scipy", "safetensors", "tqdm", "matplotlib", "pillow", "pandas", "torch", "transformers")
WITHOUT_TORCH = ("plot", "explore", "tsne", "pandas", "hub")
WITH_TORCH = ("torch", "text", "demo")
MADE = ("build", "dist", "site", "demo-output", "wheelhouse")
"""Folders of a clone that are made in it."""


@dataclasses.dataclass(frozen=True)
class Row:
    python: Path
    version: str
    oldest: bool = False
    tests: bool = False
    torch: bool = False

    @property
    def extras(self) -> tuple[str, ...]:
        return WITHOUT_TORCH + (WITH_TORCH if self.torch else ())


def pythons() -> dict[str, Path | None]:
    """The declared versions, and a Python of each, if there is one here."""
    versions = [word.rpartition(" ")[2] for word in environments.PROJECT["classifiers"] if re.search(r":: 3\.\d+$", word)]
    return {version: found(version) for version in versions}


def found(version: str) -> Path | None:
    places = [os.path.expanduser(f"~/{place}") for place in (".pyenv/versions/{}.*/bin", ".local/share/uv/python/*-{}*/bin")]
    folders = [path for place in places for path in sorted(Path("/").glob(place.format(version).lstrip("/")))]
    candidates = [shutil.which(f"python{version}"), *(path / "python3" for path in folders)]
    test = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in filter(None, candidates):
        if Path(candidate).exists() and subprocess.run([candidate, "-c", test], capture_output=True).returncode == 0:
            return Path(candidate)
    return None


def oldest(requirements: Sequence[str]) -> list[str]:
    """The same with the oldest version of each."""
    return [re.sub(r">=([\d.]+).*", r"==\1", requirement) for requirement in requirements]


def requirements(row: Row, wheel: Path) -> list[str]:
    extras = environments.PROJECT["optional-dependencies"]
    declared = [*environments.PROJECT["dependencies"], *(word for extra in row.extras for word in extras[extra])]
    of_tests = ["pytest", "hypothesis", "ml_dtypes", *(["torchvision"] if row.torch else [])]
    return [f"{wheel}[{','.join(row.extras)}]", *of_tests, *(oldest(declared) if row.oldest else [])]


def versions_in(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m; print(*(d.name.lower() + '=' + d.version for d in m.distributions()))"
    words = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return dict(word.split("=", 1) for word in words)


def copy_clone(folder: Path, left_out: tuple[str, ...]) -> None:
    """Copy what tests read to where there is no package, so that the installed one is what they import."""

    def ignored(parent: str, names: list[str]) -> set[str]:
        place = Path(parent).relative_to(environments.ROOT).as_posix()
        of_place = {".": MADE, "python": ("usae",), "python/tests": left_out}.get(place, ())
        return {name for name in names if name.startswith(".") or name in ("__pycache__", *of_place)}

    shutil.copytree(environments.ROOT, folder, symlinks=True, ignore=ignored, dirs_exist_ok=True)


def run_tests(python: Path, folder: Path, torch: bool) -> bool:
    """The quick tests that can be collected."""
    copy_clone(folder, ("project", "fuzz", "demo", "interop", "maximization") + (() if torch else ("torch",)))
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-r", "fE"]
    shown = subprocess.run([*command, "--collect-only"], cwd=folder, capture_output=True, text=True)
    for name in re.findall(r"^ERROR (\S+)", shown.stdout, re.MULTILINE):  # they need other packages
        print(f"not tried, since it needs a package that is not installed here: {name}")
        (folder / name).unlink()
    done = subprocess.run([*command, "--no-header", "-W", "ignore"], cwd=folder, capture_output=True, text=True)
    print(done.stdout[-3000:] if done.returncode else done.stdout.rstrip().rpartition("\n")[2], flush=True)
    return done.returncode == 0


def try_row(row: Row, wheel: Path) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = environments.create(row.python, folder / "environment")
        environments.install(python, requirements(row, wheel))
        versions = versions_in(python)
        print(
            f"Python {row.version}: " + ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions), flush=True
        )
        clean = {"HOME": temporary, "PATH": os.defpath, "MPLBACKEND": "agg"}
        for script in (environments.ROOT / "tools" / "use_wheel.py", environments.tutorial(folder)):
            done = subprocess.run([python, "-I", script], cwd=folder, env=clean, capture_output=True, text=True)
            if done.returncode:
                print(f"{script.name}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
                return False
        return not row.tests or run_tests(python, folder, row.torch)


def resolves(wheel: Path, version: str, resolution: str) -> bool:
    """Whether all extras together can be installed with a Python that need not be here. Only descriptions are downloaded."""
    extras = ",".join(environments.PROJECT["optional-dependencies"])
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--only-binary", ":all:", "--python", sys.executable]
    command += ["--python-version", version, "--resolution", resolution, "-"]  # it prints what it finds
    done = subprocess.run(command, input=f"usae[{extras}] @ {wheel.as_uri()}", text=True, capture_output=True)
    print(done.stderr, end="", flush=True)
    return done.returncode == 0


def checks(wheel: Path, torch: bool) -> Iterator[tuple[str, bool | None]]:
    """What was tried and whether it works, None for what cannot be tried here."""
    here = pythons()
    present = {version: path for version, path in here.items() if path is not None}
    first, last = next(iter(here)), list(present)[-1]
    for version, python in here.items():
        if python is None:
            print(f"Python {version}: not tried, since there is none here")
            yield f"Python {version}", None
        elif version == first:
            yield (
                f"Python {version}, oldest packages",
                try_row(Row(python, version, oldest=True, tests=True, torch=torch), wheel),
            )
        else:
            tests = version == last
            yield f"Python {version}, newest packages", try_row(Row(python, version, tests=tests, torch=torch and tests), wheel)
    yield f"all extras, oldest, on Python {first}", resolves(wheel, first, "lowest-direct")
    for version in here:
        yield f"all extras, newest, on Python {version}", resolves(wheel, version, "highest")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", action="store_true", help="install PyTorch and transformers too, oldest and newest")
    arguments = parser.parse_args()
    outcomes: list[bool | None] = []
    begin = time.monotonic()
    for what, works in checks(arguments.wheel.resolve(), arguments.torch):
        outcomes.append(works)
        print(
            f"{'skipped' if works is None else 'works' if works else 'FAILED'}: {what} ({time.monotonic() - begin:.0f} s)",
            flush=True,
        )
    print(f"{outcomes.count(True)} passed, {outcomes.count(False)} failed, {outcomes.count(None)} skipped")
    return False in outcomes


if __name__ == "__main__":
    sys.exit(main())
