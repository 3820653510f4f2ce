"""What a network needs to be used: the result of recognising it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from usae.torch._preprocessing import Preprocessing

Pair = tuple[int, int]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
NONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

Scale = tuple[Sequence[float], Sequence[float]]


class Preset(NamedTuple):
    """Properties of a network. Most are arguments of `usae.torch.Model`.

    Attributes
    ----------
    source : str
        Name of the library.
    patch : (int, int) or None
        Height and width of a patch in pixels, for networks whose tokens are patches of the image at every layer.
    preprocessing : Preprocessing
        Scale, size, filter and cut of its images, as far as the library says them.
    channels : int or None
        Number of channels of its images.
    assumed : str
        Whose mean and standard deviation were taken, if the network itself says nothing of them.
    tokens_first : tuple of str
        Names of parts that give [tokens, images, width], as all do that lie within them.
    """

    source: str = "plain module"
    layer: str | None = None
    n_prefix_tokens: int = 0
    patch: Pair | None = None
    preprocessing: Preprocessing = Preprocessing()
    channels: int | None = None
    channels_last: bool | None = None
    assumed: str = ""
    tokens_first: tuple[str, ...] = ()

    def gives_tokens_first(self, layer: str) -> bool:
        """Whether a layer gives [tokens, images, width]."""
        return any(layer == part or layer.startswith(f"{part}.") for part in self.tokens_first)


def as_pair_of(value: Any) -> Pair:
    """Return (height, width) from one integer or two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
