"""Figures that commands write beside their numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from usae.cli import process


def drawn(file: Path, draw: Callable[[], Any]) -> bool:
    """Save the figure that `draw` returns. If that fails, tell so and return False: numbers must not be lost with a picture."""
    try:
        draw().savefig(file, dpi=150)
    except ImportError as error:
        process.tell(f"{file} is not drawn: figures need matplotlib ({error}); pip install 'usae[plot]'")
    except Exception as error:  # matplotlib raises many kinds, and a full disk is one more
        process.tell(f"{file} is not drawn: {type(error).__name__}: {error}")
    else:
        return True
    return False
