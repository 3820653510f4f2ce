"""Which pictures cannot be read: an error, or left out for every model and listed."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._images import Picture
from usae.torch._pixels import Draft, kind_of


class SkippedPicture(NamedTuple):
    """A picture that was left out because it could not be read.

    Attributes
    ----------
    number : int
        Its number among all pictures.
    name : str
        Its file, or what it is called in messages.
    reason : str
        The error's text.
    """

    number: int
    name: str
    reason: str


class Reader:
    """Loads pictures, and leaves out those that cannot be read if `on_error` is "skip".

    Attributes
    ----------
    skips : bool
        Whether pictures are left out.
    skipped : list of SkippedPicture
        What was left out. It is the caller's list if one was given.
    number : int
        Number, among all pictures, of the one that was loaded, left out or passed over last; -1 before the first.
    """

    def __init__(self, on_error: object = "raise", skipped: object = None):
        if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
            raise InvalidInputError(f'on_error must be "raise" or "skip", got {checks.shown(on_error)}')
        if skipped is not None and not isinstance(skipped, list):
            raise InvalidInputError(f"skipped must be a list, to which pictures are appended, or None, got {kind_of(skipped)}")
        self.skips = on_error == "skip"
        self.skipped: list[SkippedPicture] = [] if skipped is None else skipped
        self._first = len(self.skipped)
        self.number = -1

    def try_to_load(self, picture: Picture, draft: Draft | None) -> Tensor | None:
        """Return a picture's pixels, or None if it was left out."""
        try:
            pixels = picture.loaded(draft)
        except InvalidInputError as error:
            self.leave_out(picture, error)
            return None
        self.number += 1
        return pixels

    def leave_out(self, picture: Picture, error: InvalidInputError) -> None:
        """Count a picture that could not be read. Without "skip" it is an error."""
        self.number += 1
        if not self.skips:
            raise error
        self.skipped.append(SkippedPicture(self.number, picture.name or picture.where, str(error)))

    def pass_over(self) -> None:
        """Count a picture that was loaded, or need not be."""
        self.number += 1

    def check_some(self, n: int, stacklevel: int = 3) -> None:
        """Refuse to have read no picture. With some, warn of those that were left out."""
        new = self.skipped[self._first :]
        if not n:
            reason = f" that can be read of {len(new)}; the first error: {new[0].reason}" if new else ""
            raise InvalidInputError(f"images must hold at least one picture, got none{reason}")
        self.warn(stacklevel + 1)

    def warn(self, stacklevel: int = 2) -> None:
        """Warn of pictures that were left out, if there are any."""
        new = self.skipped[self._first :]
        if new:
            some = ", ".join(repr(each.name) for each in new[:3]) + (", ..." if len(new) > 3 else "")
            warnings.warn(
                f"images: {len(new)} of {self.number + 1} pictures could not be read and were left out ({some}); the first "
                f"error: {new[0].reason}; give skipped=[] to get the whole list",
                stacklevel=stacklevel,
            )
