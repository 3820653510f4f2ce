"""Which text and which characters each row is, and activations that carry it."""

import itertools
import pickle

import numpy as np
import pytest

import usae
from support.refusals import refuses
from usae._data import text_rows

TEXTS = ["A cat sat.", "", "Two  dogs\nran."]
ROWS = usae.TextRows(TEXTS, text=[0, 0, 0, 2, 2, 2], spans=[(0, 1), (2, 5), (6, 9), (0, 3), (5, 9), (10, 13)])


def test_a_row_has_its_characters_and_those_around_them():
    context = ROWS.context(4, before=3, after=2)
    assert context == (2, 5, 9, "o  ", "dogs", "\nr")
    assert str(ROWS.context(4)) == "Two [dogs] ran."
    assert str(ROWS.context(0, before=0, after=0)) == "[A]"
    assert len(ROWS) == 6 and ROWS.texts == tuple(TEXTS)


def test_rows_are_numbered_in_their_text():
    assert ROWS.numbers_in_text.tolist() == [0, 1, 2, 0, 1, 2]
    assert ROWS.starts.tolist() == [0, 3]
    nothing = usae.TextRows([], [], [])
    assert len(nothing) == 0 and nothing.numbers_in_text.tolist() == [] and nothing.starts.tolist() == []


def test_batches_are_joined_with_their_texts_numbered_through():
    joined = usae.TextRows.joined([ROWS, usae.TextRows(["x"], [0], [(0, 1)]), ROWS])
    assert joined.text.tolist() == [0, 0, 0, 2, 2, 2, 3, 4, 4, 4, 6, 6, 6]
    assert [str(joined.context(row, 0, 0)) for row in (4, 6, 11)] == ["[dogs]", "[x]", "[dogs]"]
    assert len(usae.TextRows.joined([])) == 0


def test_rows_can_be_pickled_and_not_changed():
    again = pickle.loads(pickle.dumps(ROWS))
    assert np.array_equal(again.spans, ROWS.spans) and again.texts == ROWS.texts
    with pytest.raises(ValueError):
        ROWS.text[0] = 1


def test_padded_activations_have_rows_without_characters():
    rows = usae.TextRows(["ab", "c"], [0, 0, 1, 1], [(0, 1), (1, 2), (0, 1), (0, 0)])
    acts = usae.TextActivations({"a": np.ones((2, 2, 3))}, rows)
    assert list(acts) == ["a"] and len(acts) == 1 and str(rows.context(3)) == "[]c"


def test_a_mask_keeps_what_rows_are():
    acts = usae.TextActivations({"a": np.ones((6, 2))}, ROWS)
    assert usae.MaskedActivations(acts, ROWS.numbers_in_text > 0).text_rows is ROWS
    assert usae.MaskedActivations({"a": np.ones((6, 2))}, np.ones(6, bool)).text_rows is None


def test_what_cannot_be_rows_of_texts_is_refused():
    with refuses("texts", "one text", "texts=["):
        usae.TextRows("A cat", [0], [(0, 1)])
    with refuses("texts[1]", "3"):
        usae.TextRows(["a", 3], [0], [(0, 1)])
    with refuses("texts"):
        usae.TextRows(None, [0], [(0, 1)])
    with refuses("text", "0 to 1"):
        usae.TextRows(["a"], [0, 1], [(0, 1), (0, 1)])
    with refuses("text", "float64"):
        usae.TextRows(["a"], [0.5], [(0, 1)])
    with refuses("spans", "[1, 2]"):
        usae.TextRows(["a"], [0, 0], [(0, 1)])
    for span in [(0, 2), (1, 0), (-1, 1)]:
        with refuses("spans", list(span)):
            usae.TextRows(["a"], [0], [span])
    with refuses("row", "6"):
        ROWS.context(6)
    with refuses("before", "-1"):
        ROWS.context(0, before=-1)
    with refuses("after", "0.5"):
        ROWS.context(0, after=0.5)
    with refuses("parts[1]", "None"):
        usae.TextRows.joined([ROWS, None])


def test_texts_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(text_rows, "MOST_TEXTS", 5)
    with refuses("texts", "more"):
        usae.TextRows(itertools.repeat("a"), [0], [(0, 1)])
    assert len(usae.TextRows(iter("abcde"), [4], [(0, 1)]).texts) == 5
    with refuses("texts", remedy="texts.values()"):
        usae.TextRows({"one": "a"}, [0], [(0, 1)])


def test_what_cannot_be_activations_of_texts_is_refused():
    with refuses("text_rows", "list"):
        usae.TextActivations({"a": np.ones((6, 2))}, [1])
    with refuses("text_rows", "6"):
        usae.TextActivations({"a": np.ones((5, 2))}, ROWS)
    with refuses("dropped", "int"):
        usae.TextActivations({"a": np.ones((6, 2))}, ROWS, 3)
    with refuses("dropped", "none"):
        usae.TextActivations({"a": np.ones((6, 2))}, ROWS).report()
