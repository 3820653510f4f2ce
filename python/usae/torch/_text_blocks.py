"""The blocks of a network of language, which its layers are numbered by."""

from __future__ import annotations

from typing import Any

from torch import nn

OF_CONFIGS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What configurations of transformers call the number of blocks."""


def blocks_of(network: nn.Module) -> tuple[str, int] | None:
    """Return the name of the list of blocks, and their number; None if it is not clear which list that is.

    It is the only list, not within another, that has as many as the configuration says, or that is the longest.
    """
    kinds = (nn.ModuleList, nn.Sequential)
    lists = {name: len(part) for name, part in network.named_modules() if name and isinstance(part, kinds)}
    outer = {name: n for name, n in lists.items() if not any(name.startswith(f"{other}.") for other in lists)}
    config: Any = getattr(network, "config", None)
    numbers = [getattr(config, name, None) for name in OF_CONFIGS]
    said = next((n for n in numbers if isinstance(n, int)), None)
    wanted = max(outer.values(), default=0) if said is None else said
    found = [name for name, n in outer.items() if n == wanted and n]
    return (found[0], wanted) if len(found) == 1 else None
