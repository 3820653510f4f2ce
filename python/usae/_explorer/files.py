"""An explorer on disk: a folder or one file, written beside its place and put there when it is whole."""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator

from usae._files import disk
from usae.errors import CheckpointFileError

MARK = "<!-- usae-explorer 1 -->"
"""In the first bytes of the page of every explorer: what may be replaced by another one."""

SCRIPTS = (
    "core.js", "data.js", "pictures.js", "measures.js", "state.js", "labels.js", "parts.js", "filters.js", "list.js",
    "concept.js", "image.js", "map.js", "overview.js", "keys.js", "main.js",
)  # fmt: skip
"""The page's scripts, in the order in which they are joined."""

Scripts = Iterable[tuple[str, str]]
"""Names of data files, such as "index.js", and their contents."""


def page(title: str, data: Iterable[str]) -> Iterator[str]:
    """Yield the page in pieces. `data` are elements that stand before its end: scripts, or links to them."""
    folder = importlib.resources.files("usae._explorer") / "page"
    shell = (folder / "shell.html").read_text(encoding="utf-8")
    before, _, after = shell.partition("{{data}}")
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    style = (folder / "page.css").read_text(encoding="utf-8")
    code = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    parts = {"title": escaped, "style": style, "code": script}
    # all at once, because a title may hold the name of another part
    yield MARK + "\n" + re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], before)
    yield from data
    yield after


def check_place(path: object, one_file: bool) -> pathlib.Path:
    """Return where to write. CheckpointFileError if something else is there, or nothing can be written there."""
    given = disk.path_of(path, "a file" if one_file else "a folder")
    if one_file and given.suffix.lower() not in (".html", ".htm"):
        given = given.with_name(given.name + ".html")
    with disk.io_errors(given, "write", "the explorer"):
        place = pathlib.Path(os.path.realpath(given))
        _check_replaceable(place, one_file)
        disk.make_parents(place)
        attempt = disk.beside_name(place)
        attempt.touch(exist_ok=False)
        attempt.unlink()
    return place


def _check_replaceable(place: pathlib.Path, one_file: bool) -> None:
    if not os.path.lexists(place):
        return
    kind = "a file" if one_file else "a folder"
    if place.is_dir() == one_file:
        raise CheckpointFileError(
            errno.EEXIST, f"cannot write the explorer there: it is not {kind}; choose another path", str(place)
        )
    if not one_file and not any(place.iterdir()):
        return
    with contextlib.suppress(OSError), (place if one_file else place / "index.html").open("rb") as stream:
        if stream.read(len(MARK)) == MARK.encode():
            return
    raise CheckpointFileError(
        errno.EEXIST, "cannot write the explorer there: it holds something that is no explorer; choose another path", str(place)
    )


def write_folder(place: pathlib.Path, title: str, scripts: Scripts) -> None:
    """Write a folder with the page and its data files. An explorer that is there is replaced when the new one is whole."""
    beside = disk.beside_name(place)
    try:
        with disk.io_errors(place, "write", "the explorer"):
            (beside / "data").mkdir(parents=True)
            for name, content in scripts:
                disk.write_text(beside / "data" / name, content)
            disk.write_text(beside / "index.html", "".join(page(title, ['<script src="data/index.js"></script>\n'])))
            disk.sync(beside / "data")
            disk.sync(beside)
            _check_replaceable(place, one_file=False)
            if place.exists():
                old = disk.beside_name(place)
                place.rename(old)
                beside.rename(place)
                shutil.rmtree(old, ignore_errors=True)
            else:
                beside.rename(place)
            disk.sync(place.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # nothing is there if it has taken its place


def write_file(place: pathlib.Path, title: str, scripts: Scripts) -> None:
    """Write the page with all data in it."""
    with disk.io_errors(place, "write", "the explorer"):
        with disk.replacing(place) as beside:
            with beside.open("x", encoding="utf-8", newline="\n") as stream:
                for piece in page(title, (f"<script>{content}</script>\n" for _, content in scripts)):
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
            _check_replaceable(place, one_file=True)
        disk.sync(place.parent)
