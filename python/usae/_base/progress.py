"""A progress bar for terminals and notebooks."""

from __future__ import annotations

import sys
from typing import Any

from usae._base import checks


def progress_bar(total: int | None, progress: object, desc: str = "training", unit: str = "step", initial: int = 0) -> Any:
    """Return a tqdm bar. `total` None: unknown length. `progress` None: show it only in a terminal or a notebook."""
    progress = checked(progress)
    notebook = _in_notebook()
    if progress is None:
        progress = notebook or (sys.stderr is not None and sys.stderr.isatty())
    if not progress:
        return _NoBar()
    if notebook:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, initial=initial, unit=unit, desc=desc, dynamic_ncols=True)


def checked(progress: object) -> bool | None:
    """Return the argument `progress` of a function that trains or reads for long. InvalidInputError if it is none."""
    return None if progress is None else checks.boolean(progress, "progress", " or None")


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code. That its packages are imported does not mean so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class _NoBar:
    """Replaces a bar that is not shown, so that tqdm is not imported: its import takes longer than a small training step."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int = 1) -> None:
        pass

    def set_postfix_str(self, *_: object, **__: object) -> None:
        pass
