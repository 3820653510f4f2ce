"""`usae COMMAND --help`, and what the command line loads."""

import argparse
import json
import subprocess
import sys

import pytest

import usae
from support.commands import printed
from usae import cli

pytest.importorskip("torch")


(COMMANDS,) = [action.choices for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(f"usage: usae {command}")


def test_importing_the_command_line_loads_nothing_heavy():
    script = (
        "import sys, numpy; before = set(sys.modules); import usae.cli\n"
        "print([name for name in ('torch', 'matplotlib', 'scipy', 'tomllib', 'difflib') if name in set(sys.modules) - before])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


@pytest.mark.slow
def test_info_and_maximize_print_json_too(made, tmp_path, capsys):
    assert printed(capsys, "info") == usae.show_config()
    arguments = ["maximize", made / "model", "--concept", "3", "--network", "demo", "--steps", "1", "--views", "1"]
    (told,) = printed(capsys, *arguments, "--output", tmp_path / "out")
    assert told["concept"] == 3 and told == json.loads((tmp_path / "out" / "report.json").read_text())[0]
