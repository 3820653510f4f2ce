"""A demonstration with three small networks and real photographs. Nothing is downloaded.

`activations` returns the activations of the three networks on crops of the photographs. They are part of the package and need
nothing else. Everything below needs ``pip install 'usae[demo]'``.

`usae.demo.photographs` cuts crops from photographs that are in the wheels of scikit-image and scikit-learn.
`usae.demo.networks` runs the three networks over them. `usae.demo.measures` evaluates these networks on held-out crops. `run`
trains a universal sparse autoencoder on their activations and draws its concepts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def activations() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Real activations of three networks, to try things on. Read from the package; needs numpy alone.

    Returns
    -------
    train, held_out : dict of str to numpy.ndarray
        "classifier" [crops, 16, 96], "masked" [crops, 16, 128] and "contrastive" [crops, 16, 64], float32, in the networks' own
        units. 240 crops to train on, 80 held out, 4 x 4 tokens each; row t of each network is the same place in the same crop.
        Held-out crops come from parts of the photographs that neither the networks nor `train` have seen.
    """
    from usae.demo import shipped_activations

    return shipped_activations.load()


def crops() -> tuple[np.ndarray, np.ndarray]:
    """The pictures that `activations` are of, cut from the photographs inside the wheels of scikit-image and scikit-learn.

    Returns
    -------
    train, held_out : numpy.ndarray
        uint8 [240, 64, 64, 3] and [80, 64, 64, 3], in the order of `activations`.

    Raises
    ------
    ImportError
        If scikit-image, scikit-learn or another package of 'usae[demo]' is missing; names the remedy.
    """
    with _names_the_remedy():
        from usae.demo import shipped_activations

        return shipped_activations.crops()


def run(output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run the demonstration and return the contents of its ``report.json``.

    Parameters
    ----------
    output : path-like
        Folder to write to. It is made if it does not exist; files of an earlier demonstration are replaced.
        Default: "demo-output".
    small : bool
        Whether to run for a few seconds only, to check that everything works. Default: False.
    seed : int
        Seed of the crops and of the autoencoder. Default: 0.

    Raises
    ------
    ImportError
        If torch, matplotlib, scikit-image or scikit-learn is missing. The message says how to install it.
    """
    with _names_the_remedy():
        from usae.demo import demonstration
    return demonstration.run(output, small=small, seed=seed)


@contextlib.contextmanager
def _names_the_remedy() -> Iterator[None]:
    """Turn the error for a missing package into one that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "usae":
            raise
        raise ImportError(f"the demonstration needs {error.name}; run: pip install 'usae[demo]'") from error
