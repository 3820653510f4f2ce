"""What notebooks show of results, and results as DataFrames."""

import re
import sys

import numpy as np
import pytest

import usae
from support import exchange


def cells(page):
    return re.findall(r"<td>(.*?)</td>", page)


@pytest.fixture(scope="module")
def controls(trained, held_out):
    return usae.controls(trained, held_out, include=("tokens",), n_draws=5, progress=False)


def test_an_evaluation_shows_its_r2_and_names_are_text(trained, held_out):
    evaluation = trained.evaluate(held_out)
    page = evaluation._repr_html_()
    assert cells(page) == [f"{value:.3f}" for value in evaluation.r2.ravel()]
    odd = usae.UniversalSAE(8, 2).initialize({"<b>&": 3})
    shown = odd.evaluate({"<b>&": np.ones((4, 3), np.float32) * np.arange(4)[:, None].astype(np.float32)})._repr_html_()
    assert "&lt;b&gt;&amp;" in shown and "<b>" not in shown


def test_controls_show_their_table_and_are_a_frame(controls):
    table, frame = controls.table(), controls.to_frame("controls")
    assert list(frame.index) == list(table) and list(frame.columns) == list(next(iter(table.values())))
    for name, row in table.items():
        for column, value in row.items():
            assert frame.loc[name, column] == value or (value is None and np.isnan(frame.loc[name, column]))
    assert len(cells(controls._repr_html_())) == frame.size


def test_the_history_is_a_frame_with_a_row_for_each_entry(trained):
    frame = trained.history_frame()
    assert list(frame.index) == [entry["step"] for entry in trained.history_]
    assert list(frame["losses.vit"]) == [entry["losses"]["vit"] for entry in trained.history_]
    assert len(usae.UniversalSAE(8, 2).initialize({"a": 3}).history_frame()) == 0


def test_an_export_shows_what_is_lost(tmp_path):
    done = exchange.one_model().export(tmp_path / "out", "saelens")
    assert cells(done._repr_html_()) == list(done.lost.values())


def test_without_pandas_the_error_says_what_to_install(trained, controls, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for make in (trained.history_frame, controls.to_frame):
        with pytest.raises(ImportError) as caught:
            make()
        assert "pandas" in str(caught.value)
