"""``usae completion``: scripts with which shells complete what is typed, sourced and asked."""

import os
import shutil
import subprocess
import sys

import pytest

from support.commands import refusal
from support.refusals import names
from usae import cli

SHELLS = ("bash", "zsh", "fish")

ASK = {
    "bash": """
source "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
words=($(complete -p usae))
for ((i = 0; i < ${#words[@]}; i++)); do [ "${words[i]}" = -F ] && "${words[i + 1]}" usae "${@: -1}" "${@: -2:1}"; done
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "fish": 'source $SCRIPT\ncomplete -C "$argv" | string split -f 1 \\t',
}
"""What is printed for the words of a command line, of which the last is being typed."""


def script(capsys, shell):
    capsys.readouterr()
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture(params=[shell for shell in ASK if shutil.which(shell)])
def ask(request, capsys, tmp_path):
    pytest.importorskip("shtab")
    shell = request.param
    (tmp_path / "script").write_text(script(capsys, shell))
    (tmp_path / "ask").write_text(ASK[shell])
    (tmp_path / "here").mkdir()

    def asked(*words):
        told = [" ".join(["usae", *words])] if shell == "fish" else ["usae", *words]
        environment = os.environ | {"SCRIPT": str(tmp_path / "script"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        return subprocess.run(
            [shell, str(tmp_path / "ask"), *told],
            env=environment, cwd=tmp_path / "here", capture_output=True, text=True, check=True, timeout=60,
        ).stdout.split()  # fmt: skip

    asked.here = tmp_path / "here"
    return asked


def commands():
    return next(action.choices for action in cli._parser()._actions if action.dest == "==SUPPRESS==" or action.choices)


def test_commands_are_completed(ask):
    assert set(commands()) <= set(ask(""))
    assert ask("ev") == ["evaluate"] and ask("top") == ["top-examples"]
    assert set(ask("completion", "")) >= set(SHELLS)


def test_flags_are_completed(ask):
    assert set(ask("evaluate", "--th")) == {"--threshold", "--threads"}
    assert ask("train", "--learning") == ["--learning-rate"]
    assert set(ask("controls", "--")) >= {"--model", "--config", "--json", "--no-json", "--acts", "--train-mask"}


def test_choices_are_completed(ask):
    assert set(ask("train", "--recipe", "")) >= {"default", "matryoshka", "agreeing", "published"}
    assert ask("train", "--selection", "batch") == ["batchtopk"]
    assert ask("export", "--format", "cross") == ["crosscoder"]


def test_folders_and_files_are_completed(ask):
    (ask.here / "models").mkdir()
    (ask.here / "model.toml").touch()
    assert [word.rstrip("/") for word in ask("evaluate", "--model", "mod")] == ["models"]
    assert [word.rstrip("/") for word in ask("evaluate", "mod")] == ["models"]
    assert sorted(word.rstrip("/") for word in ask("evaluate", "--acts", "mod")) == ["model.toml", "models"]
    assert "model.toml" in ask("train", "--config", "mod")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_read_its_script(shell, capsys, tmp_path):
    pytest.importorskip("shtab")
    text = script(capsys, shell)
    assert all(command in text for command in commands()) and str(tmp_path) not in text
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(text)
    assert subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True).stderr == ""


def test_without_shtab_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert names("pip install 'usae[completion]'", refusal(capsys, "completion", "bash"), anywhere=True)
    assert "powershell" in refusal(capsys, "completion", "powershell")
