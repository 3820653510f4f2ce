"""`usae evaluate`: from a saved autoencoder to numbers and figures."""

import json

import numpy as np
import pytest

import usae
from support.commands import printed, refusal, run
from usae import cli

pytestmark = pytest.mark.slow  # together: each is short

pytest.importorskip("torch")


def test_evaluate_writes_arrays_numbers_and_figures(made, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    told = printed(
        capsys, "evaluate", "--model", made / "model", "--acts", made / "held-out", "--threshold", ".1", "--output", out
    )
    evaluation = usae.load(made / "model").evaluate(usae.ActivationStore(made / "held-out"), threshold=0.1)
    assert told["r2"] == evaluation.r2.tolist() and told["threshold"] == 0.1 and told["n_tokens"] == 384
    assert told["concepts_alive"] == (~evaluation.dead).sum(1).tolist()
    with np.load(out / "evaluation.npz") as arrays:
        assert tuple(arrays["model_names"]) == evaluation.model_names
        np.testing.assert_array_equal(arrays["cofire_counts"], evaluation.cofire_counts)
        np.testing.assert_array_equal(arrays["firing_entropy"], evaluation.firing_entropy)
    assert json.loads((out / "evaluation.json").read_text()) == {key: told[key] for key in told if key != "files"}
    assert sorted(told["files"]) == sorted(str(file) for file in out.iterdir())
    for name in ("cross_reconstruction", "firing_entropy", "cofire_proportion", "energy_cofires"):
        assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_evaluate_writes_partners_on_request(made, tmp_path, capsys):
    arguments = ["evaluate", "--model", made / "model", "--acts", made / "held-out", "--output", tmp_path / "out"]
    assert "wmppc" not in printed(capsys, *arguments)
    with np.load(tmp_path / "out" / "evaluation.npz") as arrays:  # NumPy refuses to read objects
        assert not [name for name in arrays if "partner" in name and arrays[name] is not None]
    told = printed(capsys, *arguments, "--partners")
    partners = usae.load(made / "model").evaluate(usae.ActivationStore(made / "held-out"), partners=True).partners
    assert told["wmppc"][0][1] == partners.wmppc[0, 1] and told["partner_share"][1][0] == partners.share()[1, 0]
    with np.load(tmp_path / "out" / "evaluation.npz") as arrays:
        for name in ("rank", "index", "correlation"):
            np.testing.assert_array_equal(arrays[f"partner_{name}"], getattr(partners, name))


def test_evaluate_of_one_model_leaves_out_what_compares_models(pairs, tmp_path, capsys):
    run("train", "--acts", pairs[0], "--output", tmp_path / "model", "--n-concepts", "16", "--k", "3", "--steps", "2")
    told = printed(capsys, "evaluate", "--model", tmp_path / "model", "--acts", pairs[0], "--output", tmp_path / "out")
    assert not any("firing_entropy" in file for file in told["files"]) and len(told["files"]) == 5


@pytest.mark.parametrize(
    "error", [ValueError("Data cannot be log-scaled"), KeyError("x"), ImportError("no matplotlib"), OSError(28, "full")]
)
def test_a_figure_that_fails_costs_no_numbers_and_no_other_figure(made, tmp_path, capsys, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(usae.plot, "firing_entropy", failing)
    run("evaluate", "--model", made / "model", "--acts", made / "held-out", "--output", tmp_path)
    out, err = capsys.readouterr()
    assert out.startswith("R2 of 384 tokens") and err.count("\n") == 1 and "firing_entropy.png" in err
    expected = {"cross_reconstruction.png", "cofire_proportion.png", "energy_cofires.png", "evaluation.json", "evaluation.npz"}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_numbers_that_cannot_be_written_are_printed(made, tmp_path, capsys):
    (tmp_path / "evaluation.npz").mkdir()
    arguments = ["evaluate", "--model", made / "model", "--acts", made / "held-out", "--output", tmp_path]
    assert cli.main([str(each) for each in arguments]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("R2 of 384 tokens") and "evaluation.npz" in err and err.count("\n") == 1


def test_an_output_that_is_no_folder_is_told_before_the_evaluation(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(usae.UniversalSAE, "evaluate", lambda *_, **__: pytest.fail("it evaluated"))
    (tmp_path / "file").write_text("")
    arguments = ["evaluate", "--model", made / "model", "--acts", made / "held-out", "--output", tmp_path / "file"]
    assert str(tmp_path / "file") in refusal(capsys, *arguments)
