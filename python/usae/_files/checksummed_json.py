"""JSON files that end with the SHA-256 of everything before it, so that no changed bit is taken for what was written.

The last lines of such a file are ``,``, ``  "sha256": "..."`` and ``}``. The checksum is of all bytes before that comma. A file
that names other files with their checksums thereby has one checksum over all of them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from usae._base import checks
from usae.errors import CheckpointError

KEY = "sha256"

_END = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\n')
_LENGTH = len(',\n  "sha256": ""\n}\n') + 64
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def with_checksum(text: str) -> str:
    r"""Add the checksum to the text of an object, indented by two spaces, that ends in "\n}\n"."""
    body = escaped(text).removesuffix("\n}\n")
    return f'{body},\n  "{KEY}": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def escaped(text: str) -> str:
    """Escape what UTF-8 lacks, as JSON does: bytes of a file's name that are not UTF-8, which Python reads as surrogates."""
    try:
        text.encode()  # faster than a search, and nearly always so
        return text
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_kept(text: str) -> bool:
    """Whether `escaped` is inverted by reading: two surrogates that are a pair would be read as one character."""
    return not any(not 0xDC80 <= ord(match[0]) <= 0xDCFF for match in _LONE_SURROGATE.finditer(text))


def parsed(raw: bytes, file: str, remedy: str, most_values: int) -> tuple[Any, bool]:
    """Return the value in a JSON file, without its checksum, and whether it had one.

    Raises
    ------
    CheckpointError
        If it is not strict JSON, has more than some `most_values` values, or is not what the checksum was computed of.
    """
    end = _END.fullmatch(raw[-_LENGTH:])
    if end and hashlib.sha256(raw[:-_LENGTH]).hexdigest().encode() != end[1]:
        raise CheckpointError(f"{file} is damaged: it was changed after it was written (by its SHA-256); {remedy}")
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > most_values:
        raise CheckpointError(f"{file} is damaged: it has more than {most_values:,} values; {remedy}")
    try:
        value = checks.parsed_json(raw.decode())
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged or cut short: {error}; {remedy}") from None
    if end:
        del value[KEY]  # it is there, and the value is an object, because only so the end that was matched is valid JSON
    return value, end is not None


def check_has_checksum(has_checksum: bool, expected: bool, file: str, remedy: str) -> None:
    """Refuse a file without a checksum whose format has one, and the reverse: its version was changed."""
    if has_checksum != expected:
        raise CheckpointError(
            f"{file} must {'end with' if expected else 'not have'} a {KEY}, as its format_version says, got "
            f"{'one' if has_checksum else 'none'}; {remedy}"
        )
