"""Make Markdown of what docstrings write in another way, for the documentation site: literal blocks, and shapes."""

from __future__ import annotations

import re
from typing import Any

import griffe


class AsMarkdown(griffe.Extension):
    """Turn `text::` into `text:`, as Markdown shows indented lines as code anyway, and keep `[M][M]` from being a link.

    In the types of arguments, `path-like` is no subtraction: it gets a hyphen that is none of Python's.
    """

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = re.sub(r"^::$", "", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"(?<=\S)::$", ":", text, flags=re.MULTILINE)
            text = re.sub(
                r"^ *[\w*, ]+ : .*-.*$", lambda line: re.sub(r"(?<=\w)-(?=\w)", "\u2011", line[0]), text, flags=re.MULTILINE
            )
            obj.docstring.value = re.sub(r"\]\[", r"]\[", text)
