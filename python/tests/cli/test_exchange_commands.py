"""``usae export`` and ``usae import``."""

import numpy as np
import pytest

import usae
from support import exchange
from support.commands import printed, refusal, run
from support.refusals import names


@pytest.fixture
def saved(tmp_path):
    exchange.trained(selection="batchtopk", k_max=5).save(tmp_path / "model")
    np.save(tmp_path / "a.npy", exchange.acts()["a"])
    return tmp_path


def test_a_model_is_exported_and_imported(saved, capsys):
    told = printed(
        capsys, "export", saved / "model", "--format", "saelens", "--encoder", "a", "--acts", f"a={saved}/a.npy", "--output",
        saved / "out",
    )  # fmt: skip
    assert told["architecture"] == "jumprelu" and not told["same_codes"] and 0 < told["capped"] < 1 and "k_max" in told["lost"]
    told = printed(capsys, "import", "--input", saved / "out", "--output", saved / "back", "--names", "again")
    assert told == {
        "path": f"{saved}/back",
        "widths": {"again": 24},
        "n_concepts": 96,
        "k": 4,
        "selection": "batchtopk",
        "k_max": 5,
    }
    x = exchange.acts()["a"]
    back, sae = usae.load(saved / "back"), usae.load(saved / "model")
    assert (back.encode(x, "again").indices == sae.encode(x, "a").indices).mean() > 0.999


def test_a_pair_is_exported_and_words_are_printed(saved, capsys):
    run(
        "export",
        "--model",
        saved / "model",
        "--format",
        "saelens",
        "--encoder",
        "a",
        "--target",
        "b",
        "--output",
        saved / "out",
    )
    out = capsys.readouterr().out
    assert "jumprelu_transcoder" in out and "lost: k_max" in out
    run("import", "--input", saved / "out", "--output", saved / "back", "--k-max", "7")
    assert str(saved / "back") in capsys.readouterr().out
    assert usae.load(saved / "back").recipe_.k_max == 7


def test_options_may_be_in_a_file(saved, capsys):
    (saved / "run.toml").write_text(
        f"[export]\nmodel = '{saved}/model'\nformat = 'visaebench'\nencoder = 'a'\nunit_rows = true\noutput = '{saved}/out'\n"
        f"[import]\ninput = '{saved}/out'\noutput = '{saved}/back'\n"
    )
    assert "units" in printed(capsys, "export", "--config", saved / "run.toml")["lost"]
    assert printed(capsys, "import", "--config", saved / "run.toml")["widths"] == {"a": 24}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("export {saved}/model --encoder a --output {new}", "--format"),
        ("export {saved}/model --format safelens --encoder a --output {new}", "--format"),
        ("export {saved}/model --format saelens --output {new}", "model"),
        ("export {saved}/model --format sparsify --encoder a --output {new}", "format"),
        ("export --format saelens --encoder a --output {new}", "--model"),
        ("export {saved}/nowhere --format saelens --output {new}", "{saved}/nowhere"),
        ("import --output {new}", "--input"),
        ("import --input {saved}/nowhere --output {new}", "{saved}/nowhere"),
        ("import --input {saved}/model --output {new}", "{saved}/model"),
        ("import --input hf://user --output {new}", "path"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, name, saved, capsys):
    places = {"saved": saved, "new": saved / "new"}
    line = refusal(capsys, *arguments.format(**places).split())
    assert names(name.format(**places), line, anywhere=True), line
    assert not (saved / "new").exists()
