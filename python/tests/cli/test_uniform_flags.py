"""A flag that several commands have says and takes the same in each, and each command has those that make sense for it."""

import argparse
import pathlib
import re
import types

import pytest

import usae
from support.refusals import names, refuses
from usae import cli
from usae.cli import options

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"

ON_A_MODEL = {"evaluate", "controls", "consistency", "top-examples", "maximize", "explore", "export"}
RUN_NETWORKS = {"extract", "maximize"}
OTHERWISE = {"--json": {"info"}, "--output": {"demo"}, "--mask": {"extract"}, "--seed": {"demo"}}
"""Commands without a table of options, whose flag is not one, and extract, of whose store the mask becomes a part."""
WITHOUT_A_FILE = {"demo", "info", "completion"}
WITHOUT_WORK = {"import", "info", "completion"}

SAME = ("--model", "--config", "--json", "--threads", "--device", "--network", "--layer", "--mask", "--train-mask")
ALIKE = ("--acts", "--train", "--seed", "--output", "--concept", "--grid", "--images", "--k")
"""What these are for differs from command to command, but not what they take."""


def commands():
    (found,) = [action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return found.choices


def flags(parser):
    return {flag: action for action in parser._actions for flag in action.option_strings}


def having(flag):
    return {name for name, parser in commands().items() if flag in flags(parser)}


def test_every_command_has_the_flags_that_make_sense_for_it():
    every = set(commands())
    assert having("--model") == ON_A_MODEL
    assert having("--network") == having("--layer") == having("--device") == RUN_NETWORKS
    assert having("--config") == set(options.CONFIGURED) == every - WITHOUT_A_FILE
    assert having("--json") == having("--config") | {"info"}
    assert having("--threads") == every - WITHOUT_WORK
    assert having("--mask") >= having("--acts") - {"export"} and having("--train-mask") == having("--train")


def test_a_model_may_be_given_without_its_flag():
    for name in ON_A_MODEL:
        assert [action.dest for action in commands()[name]._actions if not action.option_strings] == ["folder"]


@pytest.mark.parametrize("flag", SAME + ALIKE)
def test_a_flag_is_the_same_in_every_command(flag):
    found = {}
    for name in having(flag) - OTHERWISE.get(flag, set()):
        action = flags(commands()[name])[flag]
        if flag in ("--seed", "--output", "--images"):
            found[name] = (type(action), action.nargs)
        elif flag == "--concept" or flag in ALIKE:
            found[name] = (type(action), action.nargs, action.metavar)
        else:
            help = action.help.replace(f"[{name}]", "[COMMAND]")
            found[name] = (type(action), action.nargs, action.metavar, action.type, help)
    assert found and len(set(found.values())) == 1, found


def test_every_option_is_explained_and_none_is_short():
    for name, parser in commands().items():
        assert all(action.help for action in parser._actions), name
        assert {flag for flag in flags(parser) if not flag.startswith("--")} <= {"-h"}, name


def test_the_page_lists_every_command_once():
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `usae ([\w-]+)", page, re.MULTILINE)) == sorted(commands())
    listed = re.search(r"^(`extract`.*?) read the table\s+of their name", page, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([\w-]+)`", listed[1]) == list(options.CONFIGURED)


@pytest.mark.parametrize("place", ["hf://user/repo", "folder"])
def test_a_model_is_loaded_from_a_folder_or_the_hub_in_every_command(place, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(usae, "load", lambda path: loaded.append(path))
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ({"model": place, "folder": None}, {"model": None, "folder": place}):
        options.load_model(types.SimpleNamespace(**given))
    assert loaded == [place, place]
    with refuses("--model", "'elsewhere'", remedy="usae train"):
        options.load_model(types.SimpleNamespace(model="elsewhere"))
    for module in ("evaluate", "controls", "consistency", "top_examples", "maximize", "explore", "exchange"):
        assert getattr(cli, module).load_model is options.load_model, module


@pytest.mark.parametrize(("text", "number"), [("32", 32), ("12.75", 12.75), ("32.0", 32), ("1e2", 100)])
def test_k_is_an_integer_where_it_is_whole(text, number):
    assert options.as_mean(text) == number and isinstance(options.as_mean(text), int) == (number == int(number))
    for wrong in ("many", "", "inf", "1/2"):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            options.as_mean(wrong)
        assert names("number", str(caught.value), anywhere=True)
