"""``usae controls``."""

import numpy as np
import pytest

import usae
from support import exchange
from support.commands import printed, refusal, run
from support.refusals import names


@pytest.fixture
def saved(tmp_path):
    exchange.trained().save(tmp_path / "model")
    for name, x in exchange.acts().items():
        np.save(tmp_path / f"{name}.npy", x)
    return tmp_path


def arguments(saved):
    return ["controls", saved / "model", "--acts", *(f"{name}={saved}/{name}.npy" for name in "abc")]


def test_it_prints_the_table_or_all_of_it_as_json(saved, capsys):
    run(*arguments(saved), "--include", "tokens", "random")
    assert "permuted" in capsys.readouterr().out
    told = printed(capsys, *arguments(saved), "--include", "tokens", "--seed", "3")
    expected = usae.controls(exchange.trained(), exchange.acts(), include=("tokens",), seed=3)
    assert told["table"] == expected.to_dict()["table"] and told["images"] is None


def test_what_needs_training_rows_gets_them(saved, capsys):
    train = ["--train", *(f"{name}={saved}/{name}.npy" for name in "abc")]
    assert printed(capsys, *arguments(saved), *train, "--include", "linear")["linear"]["r2"]


def test_untrained_networks_are_two_more_sets_of_activations(saved, capsys):
    entries = [f"{name}={saved}/{name}.npy" for name in "abc"]
    mask = saved / "mask.npy"
    np.save(mask, np.arange(len(exchange.acts()["a"])) % 5 > 0)
    more = ["--untrained", *entries, "--untrained-train", *entries, "--include", "untrained", "--steps", "3", "--mask", mask]
    told = printed(capsys, *arguments(saved), *more)
    expected = usae.controls(
        exchange.trained(),
        exchange.acts(),
        untrained=exchange.acts(),
        untrained_train=exchange.acts(),
        include=("untrained",),
        steps=3,
        mask=np.load(mask),
    )
    assert told["table"] == expected.to_dict()["table"] and told["untrained"]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--include", "linear"], "include"),
        (["--include", "nothing"], "include"),
        (["--seed", "-1"], "seed"),
        (["--train", "nowhere"], "--train"),
        (["--untrained", "nowhere"], "--untrained"),
        (["--include", "untrained"], "untrained"),
        (["--mask", "nowhere.npy"], "--mask"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(more, name, saved, capsys):
    assert names(name, refusal(capsys, *arguments(saved), *more), anywhere=True)
