"""What importing and using the package must leave as it is in the user's process."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

STATE = """
import faulthandler, gc, json, locale, logging, os, signal, sys, threading, warnings
import random
import numpy as np
try:
    import matplotlib
    import matplotlib.pyplot
except ImportError:
    matplotlib = None
import torch
try:
    import sympy  # PyTorch imports it when it is first needed, and it adds a filter of warnings of its own
except ImportError:
    pass

def state():
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    return {
        "backend": matplotlib and matplotlib.rcParams._get_backend_or_none(),
        "styles": matplotlib and {k: repr(v) for k, v in dict.items(matplotlib.rcParams) if k != "backend"},
        "filters": repr(warnings.filters),
        "showwarning": repr(warnings.showwarning),
        "errors of numpy": np.geterr(),
        "options of numpy": repr(np.get_printoptions()),
        "random": repr(random.getstate()),
        "random of numpy": repr(np.random.get_state()),
        "random of torch": torch.get_rng_state().tolist(),
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "gradients": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), str(torch.get_default_dtype())],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "handlers": [repr(signal.getsignal(number)) for number in signal.valid_signals()],
        "environment": dict(os.environ),
        "logging": [repr((x.name, x.level, x.handlers, x.disabled)) for x in loggers if x.handlers or x.level],
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), sys.getrecursionlimit(), gc.get_threshold(),
                  faulthandler.is_enabled(), locale.setlocale(locale.LC_ALL), sys.path, os.getcwd(), repr(sys.gettrace())],
        "started threads": threading.active_count(),
    }

before = state()
"""

COMPARE = """
after = state()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""

EVERYTHING = """
import usae, usae.plot, usae.torch, usae.synthetic, usae.demo, usae.demo.figures, usae.demo.networks, usae.demo.photographs
import usae.cli.extract, usae.cli.evaluate, usae.cli.maximize, usae.cli.train
from usae import *
"""

USE = """
import io, usae, usae.torch
from torch import nn
class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 8, 8)
    def forward(self, x):
        return self.layer(x)
model = usae.torch.Model(Patches().eval(), "layer", mean=0.5, std=0.5, size=32)
before = state()
pictures = (np.arange(8 * 32 * 32 * 3) % 251).astype(np.uint8).reshape(8, 32, 32, 3)
acts = usae.torch.extract({"a": model, "b": model}, pictures)
sae = usae.UniversalSAE(16, 4, seed=0).fit(acts, steps=5)
evaluation = sae.evaluate(acts)
usae.maximize(sae, 0, {"a": model, "b": model}, steps=2)
from matplotlib.figure import Figure
usae.plot.cross_reconstruction(evaluation, ax=Figure().subplots())
"""


def changed_by(script):
    done = subprocess.run([sys.executable, "-c", STATE + script + COMPARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_importing_every_module_changes_nothing_in_the_process():
    pytest.importorskip("matplotlib")
    assert changed_by(EVERYTHING) == {}


@pytest.mark.slow
def test_extracting_training_evaluating_and_drawing_change_nothing_in_the_process():
    pytest.importorskip("matplotlib")
    assert changed_by(USE) == {}


def test_a_star_import_binds_the_public_names_and_no_name_of_another_package():
    script = """
import builtins, sys
import usae, usae.torch, usae.plot, usae.demo.networks
import torch
namespace = {"torch": torch}
exec("from usae import *", namespace)
assert namespace["torch"] is torch, namespace["torch"]
for name in usae.__all__:
    assert not hasattr(builtins, name), name
    assert name not in sys.stdlib_module_names and name not in ("torch", "numpy", "np", "plt", "nn", "timm"), name
for module in ("usae.torch", "usae.plot", "usae.synthetic", "usae.demo", "usae.recipes", "usae.errors"):
    inside = {"torch": torch}
    exec(f"from {module} import *", inside)
    assert inside["torch"] is torch, module
"""
    subprocess.run([sys.executable, "-c", script], check=True)
