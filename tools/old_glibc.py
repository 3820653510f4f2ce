"""Lets a library that is linked here run with an older glibc: writes a folder of libraries to link with instead of the
system's.

A linker binds each function to the newest version in the system's libc.so.6, though most of what is asked for is as old as
glibc. The libraries written here list the same symbols with the newest version that an older glibc has, and hold no code; the
system's own are loaded at run time. The few functions that an older glibc lacks are compiled from old_glibc.c. libstdc++ is
linked statically, since the one of an older system lacks symbols too.

    python tools/old_glibc.py 2.27 FOLDER     # then link with -L FOLDER before the system's folders
"""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

# What was in a library of its own before glibc 2.34. The system still has these libraries, without code.
ONCE_APART = {"libdl.so.2": re.compile(r"dl[a-z]+1?$"), "libpthread.so.0": re.compile(r"(pthread|sem)_\w+$")}
ROW = re.compile(r"\s*\d+: .* (FUNC|OBJECT|IFUNC|NOTYPE)\s+(?:GLOBAL|WEAK)\s+DEFAULT\s+(?!UND)\S+ (\w+)@@?GLIBC_([0-9.]+)$")


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def symbols(library: Path, newest: str) -> Iterator[tuple[str, str, str]]:
    """(name, type, version) of what ``library`` defines, each with its newest version that is not after ``newest``."""
    best: dict[str, tuple[str, str]] = {}
    text = subprocess.run(["readelf", "--wide", "--dyn-syms", library], check=True, capture_output=True, text=True).stdout
    for kind, name, version in (row.groups() for row in map(ROW.match, text.splitlines()) if row):
        old = name not in best or as_numbers(best[name][1]) < as_numbers(version)
        if as_numbers(version) <= as_numbers(newest) and old:
            best[name] = ("object" if kind == "OBJECT" else "function", version)
    for name, (kind, version) in sorted(best.items()):
        yield name, kind, version


def write_library(path: Path, rows: list[tuple[str, str, str]], clang: str) -> None:
    """A shared library called ``path.name`` with these symbols and nothing behind them."""
    lines = [".data"]
    for at, (name, kind, version) in enumerate(rows):
        lines += [f".globl s{at}", f".type s{at},@{kind}", f"s{at}: .skip 1", f".symver s{at},{name}@@GLIBC_{version},remove"]
    versions = sorted({row[2] for row in rows}, key=as_numbers)
    source, script = path.with_suffix(".s"), path.with_suffix(".map")
    source.write_text("\n".join(lines) + "\n")
    script.write_text("".join(f"GLIBC_{version} {{ }};\n" for version in versions))
    command = [clang, "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", f"-Wl,--version-script={script}"]
    subprocess.run([*command, "-o", path, source], check=True)


def write(folder: Path, newest: str, clang: str = "clang") -> None:
    """Fills ``folder``. ``newest`` is the version of glibc that the linked library may need, such as "2.27"."""

    def found(name: str) -> Path:
        path = subprocess.run([clang, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(path):
            raise SystemExit(f"{clang} finds no {name}, which a library for glibc {newest} is linked with.")
        return Path(path)

    folder.mkdir(parents=True, exist_ok=True)
    left = list(symbols(found("libc.so.6"), newest))
    for library, apart in ONCE_APART.items():
        write_library(folder / library, [row for row in left if apart.match(row[0])], clang)
        left = [row for row in left if not apart.match(row[0])]
    write_library(folder / "libc.so.6", left, clang)
    write_library(folder / "libm.so.6", list(symbols(found("libm.so.6"), newest)), clang)

    lacking = folder / "old_glibc.o"
    command = [clang, "-O2", "-fPIC", "-fvisibility=hidden", "-c"]
    subprocess.run([*command, Path(__file__).with_suffix(".c"), "-o", lacking], check=True)
    archive = folder / "libold_glibc.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rc", archive, lacking], check=True)
    # As the system's own libc.so, which is such a script too.
    parts = (folder / "libc.so.6", archive, found("libc_nonshared.a"))
    (folder / "libc.so").write_text("GROUP ( " + " ".join(f'"{part}"' for part in parts) + " )\n")
    for name, target in (
        ("libm.so", "libm.so.6"),
        ("libdl.so", "libdl.so.2"),
        ("libpthread.so", "libpthread.so.0"),
        ("libstdc++.a", found("libstdc++.a")),
    ):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("newest", help="version of glibc, such as 2.27")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clang", default="clang")
    arguments = parser.parse_args()
    write(arguments.folder.resolve(), arguments.newest, arguments.clang)
