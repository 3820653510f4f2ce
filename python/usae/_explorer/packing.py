"""Bytes of an explorer's data files, the same for the same content: scripts that hand arrays and pictures to the page."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_NAMES = {"u1": "u8", "u2": "u16", "u4": "u32", "i4": "i32", "f4": "f32"}
_KEPT_BITS = 12
"""Of the 23 bits of a float32's fraction: a relative error of 1 / 8192, which packs into two thirds of the bytes."""


def shortened(values: np.ndarray) -> np.ndarray:
    """Round float32 numbers to `_KEPT_BITS` bits, so that they compress. Whole numbers up to 4096 stay what they are."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    dropped = 23 - _KEPT_BITS
    rounded = (bits + np.uint32(1 << (dropped - 1))) & ~np.uint32((1 << dropped) - 1)
    return np.where(np.isfinite(values), rounded.view(np.float32), values).astype(np.float32)


def unsigned(values: np.ndarray, none: bool = True) -> np.ndarray:
    """Return numbers from -1 up in the smaller type that holds them; -1 becomes the type's largest number."""
    largest = int(values.max(initial=0))
    kind = np.uint16 if largest < 0xFFFF else np.uint32
    return np.where(values < 0, np.iinfo(kind).max, values).astype(kind)


def packed(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], str]:
    """Return the layout {name: [type, offset, shape]} of arrays, and their bytes, gzipped and in base64."""
    layout: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        layout[name] = [_NAMES[little.dtype.str[1:]], offset, list(array.shape)]
        data = little.tobytes()
        parts.append(data + bytes(-len(data) % 4))  # arrays of the page begin at multiples of four
        offset += len(parts[-1])
    return layout, text_of(gzipped(b"".join(parts)))


def gzipped(data: bytes) -> bytes:
    """Compress without a time stamp. (`gzip.compress` writes the system into the header in some versions of Python.)"""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush()
    end = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + body + end


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def script(kind: str, number: int, build: str, content: Mapping[str, Any]) -> str:
    """Return a data file. It is a script, because that is all a page may read from a folder on disk."""
    return f"usaeExplorer.take({quoted(kind)},{number},{quoted(build)},{quoted(content)});\n"


def quoted(value: Any) -> str:
    """Return JSON that is safe in a script in a page: ASCII, and without the beginning of a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def digest(*parts: bytes) -> str:
    """SHA-256 of several pieces of bytes, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()
