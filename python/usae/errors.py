"""What can go wrong, as exceptions. The C extension raises these too, with the core's own words."""

from __future__ import annotations


class UsaeError(Exception):
    """Every error that `usae` raises on purpose."""


class InvalidInputError(UsaeError, ValueError):
    """An argument that cannot be used. The text names it and says what was expected, what came, and what to do."""


class NotInitializedError(UsaeError, ValueError, AttributeError):
    """Parameters are asked for before there are any. Also an AttributeError, so that ``hasattr(sae, "history_")`` works."""


class CheckpointError(UsaeError, ValueError):
    """A saved autoencoder that is damaged, foreign, or from a newer version."""


class CheckpointFileError(OSError, CheckpointError):
    """A file or folder that cannot be read or written; has `errno` and `filename` like every OSError."""


class OtherProcessError(UsaeError, RuntimeError):
    """Another of the processes that train together could not do its part of a step, so that none of them did it."""


class UsaeMemoryError(UsaeError, MemoryError):
    """The core could not allocate what it needs. The object is as it was before the call."""
