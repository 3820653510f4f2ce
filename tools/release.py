"""Makes all that a release needs, checks it, and stops before anything is published.

    make release

From a clean clone whose CHANGELOG.md has the version with its date: builds dist/ anew (the wheel from the sdist alone, in an
empty folder, with what pyproject.toml asks for), checks the descriptions, the conda recipe and the use of the stable ABI, tries
the wheel where there is neither OpenBLAS nor Swift, with the oldest and the newest packages, and with the tutorial in an empty
environment, and writes dist/SHA256SUMS. `--check` only looks at the clone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

VERSIONS = {
    "pyproject.toml": r'^version = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "Sources/USAE/API/Configuration.swift": r'static let version = "(.+)"',
    "recipe/recipe.yaml": r"^  version: (.+)$",
}
"""Where the version stands. `usae.__version__` is that of the Swift library."""


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def version_of(folder: Path) -> str:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def faults(folder: Path) -> Iterator[str]:
    """Why this clone cannot be released."""
    version = version_of(folder)
    for name, pattern in VERSIONS.items():
        said = re.search(pattern, (folder / name).read_text(encoding="utf-8"), re.MULTILINE)
        if said is None or said[1] != version:
            yield f"{name} must have the version {version} of pyproject.toml, got {said[1] if said else 'none'}"
    heading = re.search(r"^## (\S+?), (.+)$", (folder / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if heading is None or heading[1] != version or re.fullmatch(r"\d{4}-\d\d-\d\d", heading[2]) is None:
        got = heading[0] if heading else "no such heading"
        yield f"CHANGELOG.md must begin with '## {version}, YEAR-MONTH-DAY', got {got!r}"
    changed = git(folder, "status", "--porcelain").splitlines()
    if changed:
        yield f"the clone must have no changes, got {len(changed)}, the first of {changed[0][3:]}; commit or remove them"
    if f"v{version}" in git(folder, "tag", "--list").split() and "v" + version not in git(folder, "tag", "--points-at").split():
        yield f"v{version} must be a new tag, got one of another commit; raise the version"


def step(*command: str | Path) -> None:
    print("$ " + " ".join(map(str, command)), flush=True)
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)


def render_recipe(path: Path) -> None:
    """By rattler-build, with the compilers of conda-forge. Nothing is built, which takes its packages."""
    from rattler_build import Stage0Recipe, VariantConfig

    variants = {"c_compiler": ["gcc"], "cxx_compiler": ["gxx"], "c_stdlib": ["sysroot"], "c_stdlib_version": ["2.28"]}
    rendered = Stage0Recipe.from_yaml(path.read_text(encoding="utf-8")).render(VariantConfig(variants))
    print(f"{path.name}: {len(rendered)} package, {rendered[0].recipe.package.name} {rendered[0].recipe.package.version}")


def write_checksums(folder: Path) -> Path:
    """As sha256sum does, for `sha256sum --check SHA256SUMS`."""
    path = folder / "SHA256SUMS"
    files = sorted(file for file in folder.glob("usae-*") if file.is_file())
    path.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    return path


def release() -> None:
    version, dist, python = version_of(ROOT), ROOT / "dist", Path(sys.executable)
    (dist / ".wheel").unlink(missing_ok=True)
    step("make", "wheel", "ISOLATION=")
    sdist, wheel = dist / f"usae-{version}.tar.gz", next(dist.glob(f"usae-{version}-*.whl"))
    step(python, "-m", "twine", "check", "--strict", sdist, wheel)
    step(python, "-m", "abi3audit", "--strict", wheel)
    render_recipe(ROOT / "recipe" / "recipe.yaml")
    step("make", "test-wheel", "test-matrix")
    step(python, "tools/measure_install.py", wheel)
    print(write_checksums(dist).read_text())
    print(f"dist/ is ready, and nothing is published. What is left for usae {version}:")
    print(f"  git tag -a v{version} -m 'usae {version}' && git push origin v{version}")
    print(f"  {python} -m twine upload dist/usae-{version}*")
    print(f"  the checksum of {sdist.name} into recipe/recipe.yaml, for conda-forge")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only look at versions, CHANGELOG.md, changes and tags")
    arguments = parser.parse_args()
    found = list(faults(ROOT))
    for fault in found:
        print(f"release: {fault}", file=sys.stderr)
    if not found and not arguments.check:
        release()
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
