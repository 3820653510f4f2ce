"""Three small networks, real photographs, and what the networks share; nothing is downloaded.

`usae.demo.photographs` cuts crops from the photographs that lie inside the wheels of scikit-image and scikit-learn,
`usae.demo.networks` runs three small vision networks over them, `usae.demo.measures` says what those networks know about
photographs they have not seen, and `run` trains a universal sparse autoencoder on them and draws it. All need
``pip install 'usae[demo]'``; importing this package needs nothing.
"""

from __future__ import annotations

import os
from typing import Any


def run(output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run the demonstration; see `usae.demo.demonstration.run`.

    Raises
    ------
    ImportError
        If torch, matplotlib, scikit-image or scikit-learn is missing; names the remedy.
    """
    try:
        from usae.demo import demonstration
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "usae":
            raise
        raise ImportError(f"the demonstration needs {error.name}; run: pip install 'usae[demo]'") from error
    return demonstration.run(output, small=small, seed=seed)
