"""Lines of Swift and C are as short as ruff keeps those of Python."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_lines_of_swift_and_c_have_at_most_the_length_that_ruff_keeps():
    longest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["line-length"]
    sources = [ROOT / "Package.swift"]
    for folder in ("Sources", "Tests", "python/src", "examples"):
        sources += [file for file in (ROOT / folder).rglob("*") if file.suffix in (".swift", ".c", ".h")]
    assert len(sources) > 200
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in sources
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > longest
    ]
    assert found == []
