"""Warnings that point to the user's line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OURS = (_PACKAGE, contextlib.__file__)  # a `with` block of a user's ends in contextlib first


def warn(text: str) -> None:
    """Issue a UserWarning for the first line up the stack that is not in this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
