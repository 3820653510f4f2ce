"""The code of docs/long_runs.md, run as it stands, and the history as a table."""

import csv
import math
import pathlib
import re
import sys
import types

import numpy as np
import pytest
from conftest import RECIPE, planted

import usae

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "long_runs.md"


class Recorder:
    """Stands in for TensorBoard's writer and the run of Weights & Biases: keeps how it is called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments, **named: self.calls.append((name, *arguments, named))


@pytest.fixture
def stand_ins(monkeypatch):
    board, run = Recorder(), Recorder()
    tensorboard = types.SimpleNamespace(SummaryWriter=lambda folder: board)
    wandb = types.SimpleNamespace(init=lambda **options: run)
    for name, module in {"torch.utils.tensorboard": tensorboard, "wandb": wandb}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return board, run


def test_the_code_of_the_page_runs_and_tells_both_services_every_step(stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, x in planted(2100, seed=0).items():
        np.save(f"{name}.npy", x)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    namespace = {"__name__": "long_runs"}
    for number, block in enumerate(blocks, 1):
        block = block.replace("n_concepts=6144, k=32", "n_concepts=24, k=3")
        exec(compile(block, f"docs/long_runs.md, python block {number}", "exec"), namespace)
    board, run = (stand_in.calls for stand_in in stand_ins)
    steps = namespace["sae"].n_steps_
    assert steps == 40 and namespace["latest"].n_steps_ == steps
    assert [call[3] for call in board if call[0] == "add_scalar" and call[1].startswith("loss of")] == list(range(1, steps + 1))
    assert [call[3] for call in board if call[:2] == ("add_scalar", "R2")] == [8, 16, 24, 32, 40]
    assert board[-1][0] == "close"
    assert [call[2]["step"] for call in run if call[0] == "log"] == list(range(1, steps + 1))
    assert run[0][1]["losses"].keys() == {"dinov2", "siglip", "vit"} and run[-1][0] == "finish"
    assert len(pathlib.Path("run1.csv").read_text().splitlines()) == 1 + steps


def table(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_history_as_csv_has_a_row_for_each_entry_and_a_column_for_each_number(acts, held_out, tmp_path):
    sae = usae.UniversalSAE(24, 3, recipe=RECIPE).fit(acts, steps=10, validation=held_out)
    sae.save_history(tmp_path / "history.csv")
    rows = table(tmp_path / "history.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    for row, entry in zip(rows, sae.history_, strict=True):
        assert row["encoder"] == entry["encoder"] and float(row["loss"]) == entry["loss"]
        assert math.isnan(float(row["gradient_norm"]))  # this recipe does not need it
        assert {name: float(row[f"losses.{name}"]) for name in acts} == entry["losses"]
        assert (row["validation.r2.dinov2->vit"] != "") == ("validation" in entry)
    last = sae.history_[-1]["validation"]
    assert float(rows[-1]["validation.r2.dinov2->vit"]) == last["r2"][0][2]
    assert float(rows[-1]["validation.r2.vit->dinov2"]) == last["r2"][2][0]
    assert float(rows[-1]["validation.l0.siglip"]) == last["l0"][1] and rows[-1]["validation.n_tokens"] == "200"
    assert len(rows[0]) == 9 + 3 + 1 + 3 + 9


def test_names_with_commas_quotes_and_line_breaks_stay_whole(tmp_path):
    names = {'a,"b"\nc': 3, "网络": 4}
    sae = usae.UniversalSAE(6, 2, recipe=RECIPE).fit(planted(50, 0, names), steps=2)
    sae.save_history(tmp_path / "history.csv")
    rows = table(tmp_path / "history.csv")
    assert [row["encoder"] for row in rows] == [entry["encoder"] for entry in sae.history_]
    assert {f"losses.{name}" for name in names} <= rows[0].keys()


def test_a_table_is_replaced_whole_or_not_at_all(trained, tmp_path):
    trained.save_history(str(tmp_path / "history.csv"))
    before = (tmp_path / "history.csv").read_bytes()
    trained.save_history(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(usae.CheckpointFileError, match="cannot write the history: No such file"):
        trained.save_history(tmp_path / "nowhere" / "history.csv")
    with pytest.raises(usae.CheckpointFileError, match="cannot write the history: Is a directory"):
        trained.save_history(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    with pytest.raises(usae.InvalidInputError, match="path must name a file, got 3"):
        trained.save_history(3)


def test_an_autoencoder_that_was_not_trained_has_a_table_without_rows(tmp_path):
    usae.UniversalSAE(6, 2).initialize({"a": 3}).save_history(tmp_path / "history.csv")
    assert table(tmp_path / "history.csv") == []
    with pytest.raises(usae.NotInitializedError):
        usae.UniversalSAE(6, 2).save_history(tmp_path / "history.csv")
