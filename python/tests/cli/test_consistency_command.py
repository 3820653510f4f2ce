"""``usae consistency``."""

import numpy as np
import pytest

import usae
from support import exchange
from support.commands import printed, refusal, run
from support.refusals import names


@pytest.fixture
def saved(tmp_path):
    exchange.trained().save(tmp_path / "model")
    exchange.trained(selection="batchtopk", k_max=5).save(tmp_path / "other")
    for name, x in exchange.acts().items():
        np.save(tmp_path / f"{name}.npy", x)
    return tmp_path


def test_it_compares_with_another_autoencoder(saved, capsys):
    run("consistency", saved / "model", "--other", saved / "other")
    out = capsys.readouterr().out
    assert all(name in out for name in exchange.acts()) and "random" in out
    told = printed(capsys, "consistency", "--model", saved / "model", "--other", saved / "other", "--threshold", "0.7")
    expected = usae.consistency(usae.load(saved / "model"), usae.load(saved / "other"), threshold=0.7).to_dict()
    assert told["models"]["a"]["cosines"] == expected["models"]["a"]["cosines"]
    assert told["models"]["a"]["share_above"] == expected["models"]["a"]["share_above"]


def test_it_compares_models_one_by_one(saved, capsys):
    told = printed(capsys, "consistency", saved / "model", "--other", f"a={saved}/other", f"b={saved}/model")
    assert set(told["models"]) == {"a", "b"} and told["models"]["b"]["mean"] == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_it_trains_the_others(saved, capsys):
    train = [f"{name}={saved}/{name}.npy" for name in "abc"]
    mask = np.arange(len(exchange.acts()["a"])) % 2 == 0
    np.save(saved / "mask.npy", mask)
    arguments = ["consistency", saved / "model", "--train", *train, "--train-mask", saved / "mask.npy", "--steps", "3"]
    told = printed(capsys, *arguments, "--train-seed", "7", "--seed", "2")
    sae = usae.load(saved / "model")
    independent = usae.fit_independent(exchange.acts(), like=sae, seed=7, steps=3, mask=mask)
    assert told == usae.consistency(sae, independent, seed=2).to_dict()


def test_options_may_be_in_a_file(saved, capsys):
    (saved / "run.toml").write_text(f"[consistency]\nmodel = '{saved}/model'\nother = {{ a = '{saved}/other' }}\n")
    assert set(printed(capsys, "consistency", "--config", saved / "run.toml")["models"]) == {"a"}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("", "--other"),
        ("--other {saved}/other --train a={saved}/a.npy", "--other"),
        ("--other {saved}/other --train-mask {saved}/a.npy", "--train"),
        ("--other nowhere", "--other"),
        ("--other a=nowhere", "--other a"),
        ("--other x={saved}/other", "'x'"),
        ("--other {saved}/model {saved}/other", "--other"),
        ("--train nowhere", "--train"),
        ("--other {saved}/other --threshold 2", "threshold"),
        ("--train a={saved}/a.npy b={saved}/b.npy c={saved}/c.npy --steps 0", "steps"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(more, name, saved, capsys):
    line = refusal(capsys, "consistency", saved / "model", *more.format(saved=saved).split())
    assert names(name, line, anywhere=True), line
