"""`--config`: flags in a TOML file."""

import json
import pathlib
import re
import shutil
import tomllib

import pytest

import usae
from support.autoencoders import WIDTHS
from support.commands import printed, refusal, run
from support.refusals import names

pytest.importorskip("torch")
DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.slow
def test_the_documents_example_runs(made, tmp_path, monkeypatch, capsys):
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^# usae (.*)", example, re.MULTILINE)
    assert len(commands) == 4 and set(tomllib.loads(example)) == {"extract", "train", "evaluate"}
    for folder in ("photographs", "held-out-photographs"):
        shutil.copytree(made / folder, tmp_path / folder)
    (tmp_path / "run.toml").write_text(example.replace("steps = 1000", "steps = 8"))
    monkeypatch.chdir(tmp_path)
    for command in commands:
        run(*command.split())
    sae = usae.load("model")
    assert sae.n_concepts == 512 and sae.n_steps_ == 8 and sae.recipe_.learning_rate == 4e-3
    assert sae.recipe_.merge_cosine is None and sae.recipe_.prefixes == (0.25, 0.5, 0.75, 1)
    assert usae.ActivationStore("acts").grid == (8, 8) and usae.ActivationStore("held-out").n_tokens == 384
    assert pathlib.Path("evaluation/cross_reconstruction.png").exists()


def test_flags_win_over_the_file_and_replace_its_lists(made, pairs, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(
        f"[train]\nacts = '{made / 'acts'}'\noutput = '{tmp_path / 'model'}'\nn_concepts = 64\nk = 4\nsteps = 3\n"
        "json = true\nrenormalize = false\nprefixes = [0.5, 1]\nseed = 1\n"
    )
    run("train", "--config", tmp_path / "run.toml", "--acts", *pairs, "--steps", "2", "--renormalize")
    told = json.loads(capsys.readouterr().out)
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["recipe"]["renormalize"] is True
    assert told["seed"] == 1 and told["recipe"]["prefixes"] == [0.5, 1]


def test_tables_and_lists_of_the_file_are_pairs(pairs, tmp_path, capsys):
    table = ", ".join(f'{pair.partition("=")[0]} = "{pair.partition("=")[2]}"' for pair in pairs)
    (tmp_path / "run.toml").write_text(
        f"[train]\nacts = {{ {table} }}\nvalidation = {json.dumps(pairs)}\noutput = '{tmp_path / 'model'}'\n"
        "n_concepts = 16\nk = 3\nepochs = 1.5\n"
    )
    told = printed(capsys, "train", "--config", tmp_path / "run.toml")
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["validation"]["n_tokens"] == 100


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[train]\nlearning_rat = 1\n", "'learning_rat'; did you mean learning_rate"),
        ("[train]\nlearning-rate = 1\n", "'learning-rate'; did you mean learning_rate"),
        ("[train]\nconfig = 'x'\n", "'config'"),
        ("[trian]\nsteps = 1\n", "'trian'; did you mean train"),
        ("steps = 1\n", "'steps'"),
        ("[extract]\n", "[train]"),
        ("", "[train]"),
        ("[train\n", "--config"),
        ("[train]\nsteps = 1.5\n", "--steps"),
        ("[train]\nrenormalize = 1\n", "renormalize"),
        ("[train]\nrecipe = 'latest'\n", "--recipe"),
        ("[train]\nmerge_cosine = 'some'\n", "--merge-cosine"),
        ("[train]\nacts = 'a'\n", "--output"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text, name, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(text)
    line = refusal(capsys, "train", "--config", tmp_path / "run.toml")
    assert names(name, line, anywhere=True), line


def test_a_file_that_is_not_there_is_said_so(capsys):
    assert "--config nowhere.toml" in refusal(capsys, "evaluate", "--config", "nowhere.toml")
