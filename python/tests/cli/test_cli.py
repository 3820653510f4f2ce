"""The command ``usae``: what it prints, and how it ends."""

import importlib
import os
import signal
import subprocess
import sys

import pytest

import usae
import usae.demo
from support.refusals import names
from usae import cli


def test_info_shows_what_is_in_use(capsys):
    assert cli.main(["info"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown == {name: str(value) for name, value in usae.show_config().items()}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_info_says_that_an_instruction_set_is_not_there(flags):
    environment = os.environ | {"USAE_KERNELS": "typo", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "usae", "info", *flags], env=environment, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if "kernels" in line)
    assert done.returncode == 2 and "'typo'" in line and "portable" in line
    assert done.stderr.startswith("usae: USAE_KERNELS") and done.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"usae {usae.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--seed", "x"], ["info", "extra"]])
def test_bad_usage_ends_with_2_and_words_on_stderr(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and names("usae", err, anywhere=True)


def test_the_demo_is_given_its_options(monkeypatch):
    calls = []
    monkeypatch.setattr(usae.demo, "run", lambda **options: calls.append(options), raising=False)
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--output", "here", "--small", "--seed", "7", "--networks", "small"]) == 0
    assert calls == [
        {"output": "demo-output", "small": False, "seed": 0, "networks": "pretrained"},
        {"output": "here", "small": True, "seed": 7, "networks": "small"},
    ]


@pytest.mark.parametrize("error", [usae.InvalidInputError("bad"), PermissionError(13, "bad"), ImportError("bad")])
def test_an_error_of_the_user_ends_with_2_and_its_words_alone(error, monkeypatch, capsys):
    def run(**_):
        raise error

    monkeypatch.setattr(usae.demo, "run", run, raising=False)
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr() == ("", f"usae: {error}\n")


def test_an_error_that_nobody_foresaw_is_one_line_too(monkeypatch, capsys, tmp_path):
    def run(**_):
        importlib.import_module("their_network").forward()

    (tmp_path / "their_network.py").write_text("import json\ndef forward():\n    json.loads({1: 2})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(usae.demo, "run", run, raising=False)
    monkeypatch.delenv("USAE_TRACEBACK", raising=False)
    assert cli.main(["demo"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("usae: TypeError in their_network: the JSON") and line.endswith("(USAE_TRACEBACK=1 shows where)\n")
    monkeypatch.setenv("USAE_TRACEBACK", "1")
    assert cli.main(["demo"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "json.loads({1: 2})" in err and err.endswith(line)


@pytest.mark.parametrize("error", [usae.InvalidInputError("bad"), MemoryError("bad")])
def test_the_traceback_of_errors_of_the_user_can_be_seen(error, monkeypatch, capsys):
    def run(**_):
        raise error

    monkeypatch.setattr(usae.demo, "run", run, raising=False)
    monkeypatch.setenv("USAE_TRACEBACK", "1")
    assert cli.main(["demo"]) == 2 and capsys.readouterr().err.startswith("Traceback")


def test_a_bad_number_of_threads_is_refused(capsys):
    assert cli.main(["demo", "--threads", "0"]) == 2
    assert capsys.readouterr().err.startswith("usae: --threads must ")


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "usae", "info"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("version")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_the_command_ends_with_130_and_without_a_traceback(tmp_path):
    script = """
import sys
import usae.cli, usae.demo
def run(**_):
    print("ready", flush=True)
    while True:
        pass
usae.demo.run = run
sys.exit(usae.cli.main(["demo"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors == "usae: interrupted\n"
