"""One virtual environment for each rival, made when it is first needed, and the packages in it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TORCH = "torch==2.13.*"  # the same version for all, because its matrix products decide the speed of all rivals

# The packages of each rival, in addition to TORCH and numpy. The names are those of the files workers/rival_<name>.py.
REQUIREMENTS = {
    "sae_lens": ["sae-lens==6.54.*"],
    "dictionary_learning": ["dictionary-learning==0.1.0"],
    "overcomplete": ["overcomplete==0.3.*", "matplotlib<3.9"],  # it uses matplotlib.cm.get_cmap
    "sparsify": ["eai-sparsify==1.3.*"],
}

# Libraries that are not timed: they read and write autoencoders (exchange.py), and measure them (independent.py).
OTHERS = {"visaebench": ["safetensors", "pyyaml", "huggingface-hub", "scikit-learn==1.9.*"]}

# Packages that are installed without their dependencies, most of which the modules in use do not need.
ALONE = {"visaebench": ["visaebench==0.1.*"]}

# Dependencies that PyPI has for CUDA builds of PyTorch only. With a CPU build, importing them fails.
REMOVED = {"dictionary_learning": ["torchvision"], "overcomplete": ["torchvision"]}


class NotInstalled(Exception):
    """A rival has no environment, for a reason given in one line."""


def python_of(rival: str, *, install: bool = True) -> Path:
    """Return the interpreter of this rival. Its environment is made first if it does not exist or has other requirements.

    Raises
    ------
    NotInstalled
        If making the environment failed, or if it is needed and `install` is False.
    """
    folder = ROOT / f".venv-bench-{rival}"
    python = folder / "bin" / "python"
    requirements, alone = [TORCH, "numpy", *(REQUIREMENTS | OTHERS)[rival]], ALONE.get(rival, [])
    done = folder / f".installed-{hashlib.sha256(' '.join(requirements + alone).encode()).hexdigest()[:12]}"
    if done.exists():
        return python
    if not install:
        raise NotInstalled("not installed, and --no-install was given")
    print(f"installing {', '.join(requirements + alone)} into {folder.name}", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", folder])
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], attempts=2)
    if alone:
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *alone], attempts=2)
    if rival in REMOVED:
        _run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *REMOVED[rival]])
    done.touch()
    return python


def _run(command: list, attempts: int = 1) -> None:
    for attempt in range(attempts):
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if result.returncode == 0:
            return
        if attempt + 1 < attempts:
            time.sleep(5)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
    raise NotInstalled(f"pip could not install it: {errors[-1].strip()}")
