"""Damage to files: of bytes, of JSON, of pickles, of archives, and of what stands in a file's place."""

from __future__ import annotations

import copy
import io
import json
import os
import pathlib
import pickletools
import random
import re
import shutil
import socket
import zipfile
from collections.abc import Callable

HUGE = (0, 1, 2**15, 2**16 - 1, 2**28, 2**31 - 1, 2**32 - 1, 2**48, 2**53, 2**63 - 1, 2**64 - 1)


# --- Bytes ------------------------------------------------------------------------------------------------------------


def flipped(data: bytes, draw: random.Random) -> bytes:
    """Flip one to eight bits."""
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        if result:
            result[draw.randrange(len(result))] ^= 1 << draw.randrange(8)
    return bytes(result)


def overwritten(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + draw.randbytes(draw.choice((1, 2, 8, 64))) + data[start + 8 :]


def truncated(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def extended(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((b"\0", b"\n", draw.randbytes(64), data))


def spliced(data: bytes, draw: random.Random) -> bytes:
    """Copy a piece of the file over, or between, other parts of it."""
    a, b, c = (draw.randrange(len(data) + 1) for _ in range(3))
    piece = data[min(a, b) : max(a, b)]
    return data[:c] + piece + data[c + draw.choice((0, len(piece))) :]


def enlarged(data: bytes, draw: random.Random) -> bytes:
    """Set a number to a large one: in binary at any place, or within a number in text."""
    number = draw.choice(HUGE)
    numbers = list(re.finditer(rb"\d+", data[:100_000]))
    if numbers and draw.random() < 0.6:
        match = draw.choice(numbers)
        text = draw.choice((str(number), "-" + str(number), "9" * draw.choice((20, 400, 5000)), "1e999", f"{number}.5"))
        return data[: match.start()] + text.encode() + data[match.end() :]
    size = draw.choice((2, 4, 8))
    start = draw.randrange(max(1, len(data) - size))
    return data[:start] + (number % 2 ** (8 * size)).to_bytes(size, "little") + data[start + size :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped,
    flipped,
    overwritten,
    truncated,
    extended,
    spliced,
    enlarged,
)


def damaged(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(BYTES)(data, draw)
    return data


# --- JSON -------------------------------------------------------------------------------------------------------------


DEEP = "a list in a list, and so on"  # its place is taken when it is written, because Python could not copy it


def strange_value(draw: random.Random) -> object:
    texts = ("", "x" * 1000, "\0", "\udc80", "../../etc/passwd", "float16", "bfloat16", "batchnorm", "batchtopk", "inf")
    numbers = (*HUGE, *(-n for n in HUGE), 0.5, -0.0, 1e308, 10**400)
    others = (None, True, False, [], {}, [[]], {"": {}}, DEEP, [0] * 1000)
    return draw.choice((draw.choice(texts), draw.choice(numbers), draw.choice(numbers), draw.choice(others)))


def places(value: object) -> list[tuple[object, object]]:
    """Return each container with each of its keys, of all containers in a value."""
    found, left = [], [value]
    while left:
        one = left.pop()
        items = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        found += [(one, key) for key, _ in items]
        left += [item for _, item in items]
    return found


def strange_json(value: object, draw: random.Random) -> object:
    """Replace, remove, add or exchange one to three parts of a value."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2, 3))):
        found = places(value)
        if not found:
            return strange_value(draw)
        container, key = draw.choice(found)
        kind = draw.randrange(6)
        if kind <= 2:
            container[key] = strange_value(draw)
        elif kind == 3:
            del container[key]
        elif kind == 4:
            other, other_key = draw.choice(found)
            container[key] = copy.deepcopy(other[other_key])
        elif isinstance(container, dict):
            container[draw.choice(("", "k", "sha256", "format_version", "x" * 100))] = strange_value(draw)
        else:
            container.insert(key, copy.deepcopy(container[key]))
    return value


def written_json(value: object) -> bytes | None:
    """Return indented JSON, as files have it; None for what cannot be written."""
    try:
        text = json.dumps(value, indent=2) + "\n"
    except ValueError:
        return None
    return text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).encode()


# --- Pickles ----------------------------------------------------------------------------------------------------------

SNIPPETS = (
    b"(" * 50_000 + b"t" * 50_000,
    b"]" * 1000,
    b"}",
    b")",
    b"(",
    b"0",
    b"N",
    b"r" + (2**28).to_bytes(4, "little"),
    b"j" + (2**32 - 1).to_bytes(4, "little"),
    b"q\x01h\x01h\x01\x86",
    b"\x8e" + (2**60).to_bytes(8, "little"),
    b"\x8b\xff\xff\xff\x7f",
    b"I" + b"9" * 5000 + b"\n",
    b"cos\nsystem\n(S'true'\ntR",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"R",
    b"b",
    b"s",
    b"u",
    b"t",
    b"Q",
    b"\x85",
    b"\x86",
    b"K\xff",
    b"J\xff\xff\xff\xff",
)


def strange_pickle(data: bytes, draw: random.Random) -> bytes:
    """Remove, repeat, exchange or insert instructions."""
    ends = [position for _, _, position in pickletools.genops(io.BytesIO(data))] + [len(data)]
    steps = [data[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    for _ in range(draw.choice((1, 1, 2, 5))):
        at, kind = draw.randrange(len(steps)), draw.randrange(5)
        if kind == 0 and len(steps) > 1:
            del steps[at]
        elif kind == 1:
            steps[at:at] = steps[max(0, at - draw.randrange(1, 30)) : at]
        elif kind == 2:
            other = draw.randrange(len(steps))
            steps[at], steps[other] = steps[other], steps[at]
        elif kind == 3:
            steps[at] = enlarged(steps[at], draw)
        else:
            steps.insert(at, draw.choice(SNIPPETS))
    return b"".join(steps)


# --- Archives ---------------------------------------------------------------------------------------------------------


def strange_archive(data: bytes, draw: random.Random, of_pickle: bool) -> bytes:
    """Change an entry of an archive, whose own sums then fit: what is in it, its name, its compression, or its number."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at, kind = draw.randrange(len(entries)), draw.randrange(8)
    compression = zipfile.ZIP_STORED
    name, content = entries[at]
    if kind == 0:
        del entries[at]
    elif kind == 1:
        entries.append((draw.choice(entries)[0], content))
    elif kind == 2:
        entries[at] = draw.choice(("", "/", "x/data.pkl", "data.pkl", name + "x", "../" + name)), content
    elif kind == 3:
        compression = draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 4:  # what expands to much
        compression, entries[at] = zipfile.ZIP_DEFLATED, (name, content + bytes(2**24))
    elif of_pickle and name.endswith("data.pkl") or of_pickle and kind > 5:
        at = next((i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl")), at)
        entries[at] = entries[at][0], strange_pickle(entries[at][1], draw)
    else:
        entries[at] = name, damaged(content, draw)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return result.getvalue()


# --- What stands in a file's place ------------------------------------------------------------------------------------


def replace_file(file: pathlib.Path, draw: random.Random, victim: pathlib.Path) -> None:
    """Put something else in the place of a file. `victim` is a file that nothing may write to."""
    if file.is_symlink() or file.is_file():
        file.unlink()
    elif file.is_dir():
        shutil.rmtree(file)
    kind = draw.randrange(11)
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.mkdir()
    elif kind == 2:
        file.touch()
    elif kind == 3:
        with open(file, "wb") as stream:
            stream.truncate(2**40)  # takes no place on the disk
    elif kind == 4 and len(os.fsencode(file)) < 100:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(file))
    elif kind < 10:
        others = [path for path in file.parent.rglob("*") if path.is_file() and not path.is_symlink()] or [victim]
        targets = (victim, victim.parent / "nowhere", file, pathlib.Path("/dev/zero"), file.parent, draw.choice(others))
        file.symlink_to(draw.choice(targets))
