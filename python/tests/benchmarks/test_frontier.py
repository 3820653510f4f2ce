"""A quick run of benchmarks/frontier.py: its tables, its figure, and what it does not run again."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import usae

BENCHMARKS = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
LINES = ("default", "agreement 0", "one model alone", "plain TopK, PyTorch", "shuffled pairs", "ridge regression")


def run(folder, *arguments):
    options = ["--quick", "--worlds", "synthetic", "--recipes", ";".join(LINES), "--output", folder, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, BENCHMARKS / "frontier.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def study(monkeypatch):
    """Modules of the study, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield lambda name: importlib.import_module(name)
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("study", "frontier", "report", "client"):
            del sys.modules[name]


@pytest.mark.slow
def test_a_quick_study_has_its_tables_and_its_figure_and_runs_nothing_again(tmp_path):
    run(tmp_path, "--seeds", "2")
    records = tmp_path / "frontier-records-quick.json"
    first, page = records.read_text(), (tmp_path / "frontier-quick.md").read_text()
    found = json.loads(first)["records"]
    assert set(found) >= {f"synthetic/{name}/steps" for name in LINES}
    assert all(f"| {name} |" in page for name in LINES if name != "agreement 0")
    whole = found["synthetic/default/steps"]
    assert len(whole["seeds"]) == 2 and 0 < whole["stability"] <= 1
    assert 0 < whole["seeds"][0]["linear ceiling"] <= 1 and "linear ceiling" not in whole["seeds"][1]
    alone, shuffled = (found[f"synthetic/{name}/steps"]["seeds"][0] for name in ("one model alone", "shuffled pairs"))
    assert alone["R2 same"] > whole["seeds"][0]["R2 same"] and "R2 other" not in alone
    assert shuffled["R2 other"] < 0.05 and abs(shuffled["agreement"]) < 0.1
    run(tmp_path, "--seeds", "1")
    assert records.read_text() == first
    run(tmp_path, "--figure", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG") and records.read_text() == first


def test_records_of_another_default_recipe_or_of_fewer_seeds_are_made_again(study, tmp_path):
    frontier = study("frontier")
    path = tmp_path / "records.json"
    keys = {"synthetic/default/steps": frontier.default_recipe(), "synthetic/agreeing/steps": "another"}
    records = {key: {"steps": 2, "seeds": [{"R2 same": 0.5}], "default": default} for key, default in keys.items()}
    path.write_text(json.dumps({"records": records}))
    made = frontier.Study(path, type("Arguments", (), {"seeds": 1, "recipes": ["default", "agreeing"]}))
    assert set(made.records) == {"synthetic/default/steps"}
    assert not made._is_pending("synthetic/default/steps") and made._is_pending("synthetic/agreeing/steps")
    made.arguments.seeds = 2
    assert made._is_pending("synthetic/default/steps")


def test_every_line_of_the_frontier_has_its_weight_and_nothing_else_of_its_own(study):
    rows = study("study.frontier_rows")
    assert set(rows.FRONTIER.values()) <= set(rows.ROWS)
    assert rows.FRONTIER[usae.recipes.default().agreement] == "default"
    assert rows.FRONTIER[usae.recipes.agreeing().agreement] == "agreeing"


def test_the_plain_autoencoder_reconstructs_in_usae_what_it_reconstructs_in_pytorch(study):
    torch, plain = pytest.importorskip("torch"), study("study.plain_topk")
    x = (
        np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32) @ np.diag(np.arange(1, 13)).astype(np.float32)
        + 3
    )
    found = plain.train(x, 24, 3, 1e-2, 30, seed=0)
    np.testing.assert_allclose(np.linalg.norm(found["dictionary"], axis=1), 1, atol=1e-6)
    sae = plain.beside_each_other({"x": found}, 24, 3, 1)
    tokens = torch.from_numpy((x - found["mean"]) / found["scale"])
    tensors = [torch.from_numpy(found[name]) for name in ("encoder_weight", "encoder_bias", "dictionary")]
    own = plain._reconstruct(tokens, *tensors, 3).numpy() * found["scale"] + found["mean"]
    np.testing.assert_allclose(sae.decode(sae.encode(x, "x"), "x"), own, atol=1e-3)  # float32 of numbers up to 40
    residual = np.square(x - own).sum() / np.square(x - x.mean(0)).sum()
    assert sae.evaluate({"x": x}).r2[0, 0] == pytest.approx(1 - residual, abs=1e-4)


@pytest.mark.slow
def test_the_linear_ceiling_is_that_of_the_controls(study):
    linear_ceiling, rng = study("study.linear_ceiling"), np.random.default_rng(0)
    hidden = np.maximum(rng.standard_normal((4000, 12)) - 0.7, 0)
    acts = {name: (hidden @ rng.standard_normal((12, width))).astype(np.float32) for name, width in {"a": 10, "b": 14}.items()}
    train, held_out = ({name: x[part] for name, x in acts.items()} for part in (slice(3000), slice(3000, None)))
    sae = usae.UniversalSAE(24, 3, seed=0).fit(train, steps=60, progress=False)
    found = linear_ceiling.linear_ceiling(sae, held_out, train)
    expected = usae.controls(sae, held_out, train=train, include=["agreement"], progress=False).agreement
    np.testing.assert_allclose(found.agreement, expected.mean(), atol=1e-5)
    np.testing.assert_allclose(found.ceiling, expected.mean("ridge"), atol=5e-3)  # other rows choose the penalty


@pytest.mark.slow
def test_whole_files_of_texts_are_held_out(study):
    worlds = study("study.worlds")
    train, held_out = worlds._docstrings(10**6, 10**6)
    assert train and held_out and len(train) > 3 * len(held_out)
    assert len(set(train) & set(held_out)) < 0.02 * len(held_out)  # a few sentences stand in several files
