"""The code of docs/long_runs.md, run as it stands."""

import pathlib
import re
import sys
import types

import numpy as np
import pytest

from support.autoencoders import planted

pytestmark = pytest.mark.slow

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "long_runs.md"


class Recorder:
    """Stands in for TensorBoard's writer and the run of Weights & Biases: keeps how it is called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments, **named: self.calls.append((name, *arguments, named))


@pytest.fixture
def stand_ins(monkeypatch):
    board, run = Recorder(), Recorder()
    tensorboard = types.SimpleNamespace(SummaryWriter=lambda folder: board)
    wandb = types.SimpleNamespace(init=lambda **options: run)
    for name, module in {"torch.utils.tensorboard": tensorboard, "wandb": wandb}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return board, run


def test_the_code_of_the_page_runs_and_tells_both_services_every_step(stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, x in planted(2100, seed=0).items():
        np.save(f"{name}.npy", x)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    namespace = {"__name__": "long_runs"}
    for number, block in enumerate(blocks, 1):
        block = block.replace("n_concepts=6144, k=32", "n_concepts=24, k=3")
        exec(compile(block, f"docs/long_runs.md, python block {number}", "exec"), namespace)
    board, run = (stand_in.calls for stand_in in stand_ins)
    steps = namespace["sae"].n_steps_
    assert steps == 60 and namespace["latest"].n_steps_ == steps
    assert [call[3] for call in board if call[0] == "add_scalar" and call[1].startswith("loss of")] == list(range(1, steps + 1))
    assert [call[3] for call in board if call[:2] == ("add_scalar", "R2")] == [12, 24, 36, 48, 60]
    assert board[-1][0] == "close"
    assert [call[2]["step"] for call in run if call[0] == "log"] == list(range(1, steps + 1))
    assert run[0][1]["losses"].keys() == {"dinov2", "siglip", "vit"} and run[-1][0] == "finish"
    assert len(pathlib.Path("run1.csv").read_text().splitlines()) == 1 + steps
