"""``usae top-examples``."""

import numpy as np
import pytest

import usae
from support import exchange
from support.commands import printed, refusal, run
from support.refusals import names
from usae.cli import top_examples as command


@pytest.fixture
def saved(tmp_path):
    exchange.trained().save(tmp_path / "model")
    acts = exchange.acts()
    for name, x in acts.items():
        np.save(tmp_path / f"{name}.npy", x)
    images = {name: x[:600].reshape(100, 6, -1) for name, x in acts.items()}
    with usae.ActivationStore.create(tmp_path / "store", grid=(2, 3), dtype="float32") as store:
        store.append(images, [f"cat/{i}.png" for i in range(100)])
    return tmp_path


def arguments(saved):
    return ["top-examples", saved / "model", "--acts", *(f"{name}={saved}/{name}.npy" for name in "abc")]


def test_it_prints_tokens_of_files(saved, capsys):
    run(*arguments(saved), "--concept", "3", "--concept", "5", "--n", "2")
    out = capsys.readouterr().out
    expected = usae.top_examples(usae.load(saved / "model"), exchange.acts(), 2)
    assert out.count("concept 3 in ") == out.count("concept 5 in ") == 3
    assert f"token {expected.tokens[0, 3, 0]}\n" in out and f"{expected.values[2, 5, 0]:.2f}" in out


def test_it_names_the_pictures_of_a_store(saved, capsys):
    told = printed(capsys, "top-examples", saved / "model", "--acts", saved / "store", "--concept", "3", "--one-per-image")
    sae, store = usae.load(saved / "model"), usae.ActivationStore(saved / "store")
    expected = usae.top_examples(sae, store, 16, grid=(2, 3), one_per_image=True)
    first = told["concepts"]["3"]["b"][0]
    assert first["image"] == f"cat/{expected.images[1, 3, 0]}.png" and first["code"] == expected.values[1, 3, 0]
    assert (first["row"], first["column"]) == (expected.rows[1, 3, 0], expected.columns[1, 3, 0])
    assert len({each["image"] for each in told["concepts"]["3"]["b"]}) == len(told["concepts"]["3"]["b"])
    run("top-examples", saved / "model", "--acts", saved / "store", "--concept", "3", "--n", "1")
    assert f"{first['image']}, row {first['row']}, column {first['column']}" in capsys.readouterr().out


def test_it_writes_those_of_all_concepts(saved, capsys):
    told = printed(capsys, "top-examples", saved / "model", "--acts", saved / "store", "--output", saved / "new" / "top.npz")
    assert told["file"] == str(saved / "new" / "top.npz") and told["concepts"] == {} and told["n_tokens"] == 600
    expected = usae.top_examples(usae.load(saved / "model"), usae.ActivationStore(saved / "store"), grid=(2, 3))
    with np.load(told["file"]) as arrays:
        assert arrays["models"].tolist() == ["a", "b", "c"] and arrays["grid"].tolist() == [2, 3]
        for name in ("tokens", "values", "images", "rows", "columns"):
            np.testing.assert_array_equal(arrays[name], getattr(expected, name))


def test_a_mask_leaves_rows_out(saved, capsys):
    mask = np.arange(len(exchange.acts()["a"])) >= 50
    np.save(saved / "mask.npy", mask)
    told = printed(capsys, *arguments(saved), "--concept", "3", "--mask", saved / "mask.npy")
    assert told["n_left_out"] == 50 and all(each["token"] >= 50 for each in told["concepts"]["3"]["a"])


def test_texts_are_shown_with_what_is_around_them():
    rows = usae.TextRows(["the cat sat", "a dog"], [0, 0, 0, 1, 1], [(0, 3), (4, 7), (8, 11), (0, 1), (2, 5)])
    values = np.array([[[3.0, 1.0]]], np.float32)
    top = usae.TopExamples(("m",), 5, None, np.array([[[4, -1]]]), values, text_rows=rows)
    assert command._table(top, 0, None) == f"concept 0 in m\n    3.00  {top.contexts('m', 0)[0]}"


def test_a_concept_that_does_not_fire_is_said_to(saved, capsys):
    top = usae.TopExamples(("m",), 5, None, np.array([[[-1]]]), np.zeros((1, 1, 1), np.float32))
    assert command._table(top, 0, None) == "concept 0 in m: does not fire"


def test_options_may_be_in_a_file(saved, capsys):
    (saved / "run.toml").write_text(
        f"[top-examples]\nmodel = '{saved}/model'\nacts = '{saved}/store'\nconcept = [3, 5]\none_per_image = true\nn = 1\n"
    )
    assert set(printed(capsys, "top-examples", "--config", saved / "run.toml")["concepts"]) == {"3", "5"}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("", "--concept"),
        ("--concept 96", "--concept"),
        ("--concept -1", "--concept"),
        ("--concept three", "--concept"),
        ("--concept 3 --n 0", "n"),
        ("--concept 3 --one-per-image", "grid"),
        ("--concept 3 --one-per-text", "text_rows"),
        ("--concept 3 --grid 7x9", "grid"),
        ("--concept 3 --mask nowhere.npy", "--mask"),
        ("--output {saved}/top.txt", "--output"),
        ("--output {saved}/a.npy/top.npz", "--output"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(more, name, saved, capsys):
    line = refusal(capsys, *arguments(saved), *more.format(saved=saved).split())
    assert names(name, line, anywhere=True), line
