"""`make release` refuses a clone that is not ready, and says why."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
import release  # noqa: E402


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path):
    """A clone with all that is looked at, ready for a release."""
    folder = tmp_path / "clone"
    for name in release.VERSIONS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {release.version_of(ROOT)}, 2027-01-31\n\n## 0.0.1, 2026-01-01\n")
    git(folder, "init")
    commit(folder)
    return folder


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--message", "A commit")


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_clone_that_is_ready_has_no_faults_and_may_have_its_tag_already(clone):
    assert list(release.faults(clone)) == []
    git(clone, "tag", f"v{release.version_of(clone)}")
    assert list(release.faults(clone)) == []


@pytest.mark.parametrize("name", [name for name in release.VERSIONS if name != "pyproject.toml"])
def test_every_place_of_the_version_has_to_agree(clone, name):
    replace(clone / name, release.version_of(clone), "7.7.7")
    commit(clone)
    (fault,) = release.faults(clone)
    assert fault.startswith(name) and "7.7.7" in fault


@pytest.mark.parametrize("heading", ["## {}, unreleased", "## 7.7.7, 2027-01-31", "## {}", "Nothing"])
def test_the_changelog_has_to_begin_with_the_version_and_its_date(clone, heading):
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n" + heading.format(release.version_of(clone)) + "\n")
    commit(clone)
    (fault,) = release.faults(clone)
    assert fault.startswith("CHANGELOG.md")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new.txt"])
def test_changes_that_are_not_committed_are_refused(clone, name):
    with (clone / name).open("a") as file:
        file.write("\n")
    (fault,) = release.faults(clone)
    assert name in fault


def test_a_tag_of_another_commit_is_refused(clone):
    git(clone, "tag", f"v{release.version_of(clone)}")
    commit(clone)
    (fault,) = release.faults(clone)
    assert fault.startswith(f"v{release.version_of(clone)}")


def test_checksums_are_those_that_sha256sum_checks(tmp_path):
    for name in ("usae-1.tar.gz", "usae-1.whl", "other"):
        (tmp_path / name).write_text(name)
    path = release.write_checksums(tmp_path)
    assert re.findall(r"  (.*)$", path.read_text(), re.MULTILINE) == ["usae-1.tar.gz", "usae-1.whl"]
    subprocess.run(["sha256sum", "--check", path.name], cwd=tmp_path, check=True, capture_output=True)
