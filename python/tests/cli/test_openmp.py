"""What a command sets for PyTorch's threads before it imports PyTorch. A module that tells what it finds stands in for it."""

import json
import os
import subprocess
import sys

import pytest

import usae
from support.commands import refusal
from usae.cli import openmp

pytestmark = pytest.mark.slow

STAND_IN = """
import json, os
print(json.dumps(dict(os.environ)))
raise ImportError("enough")
"""

DEMO = ["demo"]
EXTRACT = ["extract", "--images", ".", "--network", "a=anything:at_all", "--output", "acts"]
MAXIMIZE = ["maximize", "--model", "model", "--concept", "0", "--network", "a=anything:at_all"]
VARIABLES = (*openmp.WAITING, *openmp.COUNTS)


@pytest.fixture
def found(tmp_path):
    """The variables of OpenMP that PyTorch finds when a command imports it, in a process with `given` ones."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(STAND_IN)

    def variables(command, **given):
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | given
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        usae.UniversalSAE(8, 2).initialize({"a": 3}).save(tmp_path / "model")
        program = [sys.executable, "-m", "usae", *command]
        done = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and "enough" in done.stderr, done.stderr
        return {name: value for name, value in json.loads(done.stdout).items() if name in VARIABLES}

    return variables


@pytest.mark.parametrize("command", [DEMO, EXTRACT, MAXIMIZE], ids=lambda command: command[0])
def test_threads_of_a_command_sleep_when_they_have_nothing_to_do(found, command):
    assert found(command)["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", openmp.WAITING)
def test_how_threads_wait_is_as_the_user_has_set_it(found, name):
    assert {key: value for key, value in found(DEMO, **{name: "0"}).items() if key in openmp.WAITING} == {name: "0"}


def test_a_commands_number_of_threads_is_pytorchs_too(found):
    for command in (DEMO, MAXIMIZE):
        variables = found([*command, "--threads", "3"], OMP_NUM_THREADS="5")
        assert {name: variables[name] for name in openmp.COUNTS} == dict.fromkeys(openmp.COUNTS, "3")


@pytest.mark.parametrize("name", openmp.COUNTS)
def test_the_number_of_threads_is_as_the_user_has_set_it(found, name):
    assert {key: value for key, value in found(DEMO, **{name: "5"}).items() if key in openmp.COUNTS} == {name: "5"}


@pytest.mark.parametrize(("quota", "number"), [(2, "2"), (4, None), (8, None)])
def test_pytorch_gets_no_more_threads_than_a_containers_quota(monkeypatch, quota, number):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(openmp, "_cores", lambda: 4)
    monkeypatch.setattr(usae, "show_config", lambda: {"n_threads": quota})
    openmp.set_up(None)
    assert os.environ.get("OMP_NUM_THREADS") == number


def test_a_command_that_is_called_as_a_function_changes_no_environment(capsys):
    before = dict(os.environ)
    refusal(capsys, "extract", "--images", "no-such-folder", "--network", "demo", "--output", "acts")
    assert dict(os.environ) == before
