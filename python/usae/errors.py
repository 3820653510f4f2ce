"""The exceptions that usae raises. The C extension raises them too, with messages written by the core."""

from __future__ import annotations


class UsaeError(Exception):
    """Base class of every error that `usae` raises on purpose."""


class InvalidInputError(UsaeError, ValueError):
    """An argument is invalid. The message names it and says what was expected, what was given, and what to do."""


class NotInitializedError(UsaeError, ValueError, AttributeError):
    """The autoencoder has no parameters yet. Also an AttributeError, so that ``hasattr(sae, "history_")`` works."""


class CheckpointError(UsaeError, ValueError):
    """A saved autoencoder, run or store is damaged, was not written by usae, or was written by a newer version."""


class CheckpointFileError(OSError, CheckpointError):
    """A file or folder cannot be read or written. Has `errno` and `filename` like every OSError."""


class OtherProcessError(UsaeError, RuntimeError):
    """Another process of a distributed run could not do its part of a step, so no process did the step."""


class UsaeMemoryError(UsaeError, MemoryError):
    """There was not enough memory. The object is as it was before the call."""
