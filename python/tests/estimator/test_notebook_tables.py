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


def test_partners_and_their_frame(trained, held_out):
    evaluation = trained.evaluate(held_out, partners=True)
    partners, frame = evaluation.partners, evaluation.partners.to_frame()
    assert list(frame) == list(partners.columns()) and frame.index.name == "concept"
    of_text = [line.split("  ") for line in partners.summary().splitlines()[1:]]
    assert [cell.strip() for line in of_text for cell in line if cell.strip()][0] in partners._repr_html_()
    assert len(cells(partners._repr_html_())) == 6 * 6


def test_consistency_and_latent_scaling_are_frames(trained, held_out):
    other = {name: trained.dictionary(name)[::-1] for name in trained.model_names_}
    found = usae.consistency(trained, other)
    frame = found.to_frame()
    assert list(frame["match[vit]"]) == list(found["vit"].indices) and list(frame.index) == list(found.concepts)
    assert cells(found._repr_html_())[0] == f"{next(iter(found.models.values())).mean:.3f}"
    assert cells(found["vit"]._repr_html_())[1] == f"{found['vit'].share_above:.1%}"
    scaling = usae.latent_scaling(trained, held_out)
    frame = scaling.to_frame()
    assert list(frame.private) == list(scaling.private()) and list(frame.index) == list(scaling.concepts)
    np.testing.assert_array_equal(frame["ratio_error[vit]"], scaling.ratio_error[scaling.model_names.index("vit")])
    assert all(cell in scaling.summary() for cell in cells(scaling._repr_html_()))


def test_a_null_shows_what_it_is_compared_with(controls):
    shown = cells(controls.tokens._repr_html_())
    assert shown[-2:] == [f"{controls.tokens.share_above:.1%}", f"{controls.tokens.above_by_chance:.1%}"]


def test_labels_stores_and_recipes(tmp_path):
    (tmp_path / "labels.csv").write_text("concept,label,starred\n3,<b>fur</b>,1\n5,,1\n")
    labels = usae.read_labels(tmp_path / "labels.csv")
    assert "&lt;b&gt;fur" in labels._repr_html_() and "<b>" not in labels._repr_html_()
    frame = labels.to_frame()
    assert frame.label[3] == "<b>fur</b>" and list(frame.starred) == [True, True]
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
        store.append({"vit": np.ones((2, 3, 4), np.float32)})
    assert cells(store._repr_html_()) == ["4", "", ""]
    changed = cells(usae.Recipe().replace(batch_size=7)._repr_html_())
    assert changed.count("7") == 1 and changed[changed.index("7") + 1] == str(usae.Recipe().batch_size)
