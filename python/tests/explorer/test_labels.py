"""Files of labels: what the page exports, and what is none."""

import json

import pytest

import usae
from support.explorers import REPEATED
from support.refusals import refuses
from usae._explorer.labels import labels_to_json


def write(tmp_path, content, name="labels.json"):
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def content(**changes):
    entry = {"text": "fur 🦊", "starred": True}
    return {"format": "usae-explorer-labels", "version": 1, "tensors": "ab", "labels": {"7": entry, "3": entry}} | changes


def test_json_and_csv_say_the_same(tmp_path):
    labels = usae.read_labels(write(tmp_path, content()))
    assert dict(labels) == {3: ("fur 🦊", True), 7: ("fur 🦊", True)} and list(labels) == [3, 7] and labels.tensors == "ab"
    text = '\ufeffconcept,label,starred\r\n7,"a ""b"", c\nd",1\r\n3,,0\r\n'
    found = usae.read_labels(write(tmp_path, text, "labels.csv"))
    assert dict(found) == {3: ("", False), 7: ('a "b", c\nd', True)} and found.starred == [7]
    again = usae.read_labels(write(tmp_path, labels_to_json(labels, "ab")))
    assert dict(again) == dict(labels) and "2 of them starred" in repr(again)


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        {},
        content(version=2),
        content(format="other"),
        content(labels=[]),
        content(labels={"x": {"text": "", "starred": False}}),
        content(labels={"-1": {"text": "", "starred": False}}),
        content(labels={"1": {"text": 3, "starred": False}}),
        content(labels={"1": {"text": "", "starred": 1}}),
        content(labels={"1": "text"}),
        content(labels={"1": {"text": "x" * 30_000, "starred": False}}),
        content(labels={"²": {"text": "", "starred": False}}),
        content(tensors=3),
        "concept,label\r\n1,x\r\n",
        "concept,label,starred\r\n1,x\r\n",
        "concept,label,starred\r\n1,x,2\r\n",
        "concept,label,starred\r\nx,x,1\r\n",
        '{"format": "usae-explorer-labels", "format": "usae-explorer-labels"}',
        *REPEATED,
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, damaged):
    with refuses("labels.json", error=usae.CheckpointError):
        usae.read_labels(write(tmp_path, damaged))


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    (tmp_path / "labels.json").write_bytes(b"\xff\xfe\x00")
    with refuses("labels.json", error=usae.CheckpointError):
        usae.read_labels(tmp_path / "labels.json")
    with pytest.raises(usae.CheckpointFileError):
        usae.read_labels(tmp_path / "none.json")
    with refuses("path"):
        usae.read_labels(3)


def test_labels_of_a_file_are_given_to_an_explorer(sae, acts, tmp_path):
    from support.explorers import GRID, read_folder

    file = write(tmp_path, content())
    page = usae.explorer(sae, acts, None, tmp_path / "x", grid=GRID, labels=file, progress=False)
    assert read_folder(page.path.parent)["index", 0]["header"]["labels"]["7"] == {"text": "fur 🦊", "starred": True}
