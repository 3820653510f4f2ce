"""The source distribution, from which `make test-wheel` builds a wheel."""

import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_sources_are_in_it_as_they_are_here_and_links_are_links(tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("usae-*.tar.gz"))) as archive:
        members = {m.name.partition("/")[2]: m.linkname for m in archive if not m.isdir()}
    here = {
        path.relative_to(ROOT).as_posix(): os.readlink(path) if path.is_symlink() else ""
        for folder in ("Sources", "Tests", "tools")
        for path in (ROOT / folder).rglob("*")
        if (path.is_symlink() or path.is_file()) and path.suffix != ".pyc"  # tests import some of the tools
    }
    assert any(here.values())
    assert {name: link for name, link in members.items() if name.startswith(("Sources/", "Tests/", "tools/"))} == here
