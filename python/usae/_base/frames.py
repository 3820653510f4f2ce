"""pandas, which usae does not install."""

from __future__ import annotations

from types import ModuleType


def pandas_for(caller: str) -> ModuleType:
    """Return the module pandas. ImportError, which names `caller` and the remedy, if it is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{caller} needs pandas, which is missing; run: pip install 'usae[pandas]'") from error
    return pandas
