"""The history of training as a table."""

import csv
import errno
import math

import pytest

import usae
from support.autoencoders import RECIPE, planted
from support.refusals import refuses, refuses_place


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
    with refuses_place(tmp_path, errno.EISDIR):
        trained.save_history(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    with refuses("path", "3"):
        trained.save_history(3)


def test_an_autoencoder_that_was_not_trained_has_a_table_without_rows(tmp_path):
    usae.UniversalSAE(6, 2).initialize({"a": 3}).save_history(tmp_path / "history.csv")
    assert table(tmp_path / "history.csv") == []
    with pytest.raises(usae.NotInitializedError):
        usae.UniversalSAE(6, 2).save_history(tmp_path / "history.csv")
