"""What benchmarks/independent.py compares and prints. VISAEBench itself is run there."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

import usae

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "independent.json"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "workers")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("study", "labels_and_nulls")]:
        del sys.modules[name]


def test_the_page_shows_the_tables_that_the_command_made(study):
    from study import yardstick_table

    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "yardstick.md").read_text(encoding="utf-8")
    made = yardstick_table.summaries(data)
    assert made in page, f"put this into docs/yardstick.md:\n{made}"
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == yardstick_table.page(data)


def test_the_results_are_those_of_the_default_recipe():
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    now = dataclasses.asdict(usae.recipes.default(batch_size=data["training"]["batch"]))
    assert data["recipes"]["default"] == json.loads(json.dumps(now)), f"run again: {data['command']}"


def test_what_an_older_recipe_trained_is_not_continued(study, tmp_path):
    from study import yardstick

    x = {"a": np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)}
    recipe = yardstick.plain(64, 0.01)
    sae = usae.UniversalSAE(24, 3, recipe=recipe, seed=0).fit(x, steps=2, progress=False)
    assert not yardstick.made_by(recipe, tmp_path / "made")
    yardstick.save_exported(sae, "a", recipe, tmp_path / "made", {"train_fvu": 0.5})
    assert yardstick.made_by(recipe, tmp_path / "made")
    assert not yardstick.made_by(recipe.replace(dictionary_norm="bounded"), tmp_path / "made")


def test_each_number_of_codes_has_its_null_and_each_line_its_seeds(study):
    from study import yardstick_table

    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    for world in data["worlds"].values():
        for records in world["networks"].values():
            methods = {record["method"] for record in records}
            assert methods == {*yardstick_table.TRAINED, *yardstick_table.OTHERS}
            for record in records:
                for column, (value, null) in record["metrics"].items():
                    bound = column in ("FVU", "1 - R2", "preservation") or record["method"] in yardstick_table.OTHERS[-2:]
                    assert value is None or bound or null is not None, (record["method"], column)
            for method in (*yardstick_table.TRAINED, "random encoder"):
                assert [record["seed"] for record in records if record["method"] == method] == list(range(data["seeds"]))


def test_classes_are_of_one_kind_and_kinds_have_several_on_both_sides(study):
    from study import labelled

    from usae.demo.pretrained import shipped

    for split in ("train", "held out"):
        entries = [entry for entry in shipped.catalogue() if entry.split == split]
        kinds = {entry.name: labelled.kind_of(f"{entry.package}: {entry.file}") for entry in entries}
        classes = {name: labelled.class_of(name, kind) for name, kind in kinds.items()}
        for kind in ("building", "fish", "tool", "animal"):
            assert len({classes[name] for name in kinds if kinds[name] == kind}) >= 3
        assert all(len({kinds[name] for name in classes if classes[name] == c}) == 1 for c in classes.values())
    assert labelled.class_of("hammer 3", "tool") == "hammer" and labelled.class_of("fish 3", "fish") == "fish 3"


def test_the_photographs_without_a_table_have_one_kind_each(study):
    from study import labelled

    from usae.demo import photographs

    named = [name for members in labelled.KINDS_BY_EYE.values() for name in members]
    assert sorted(named) == sorted(entry.name for entry in photographs._CATALOGUE)


def test_labels_are_shuffled_and_what_must_stay_together_does(study):
    pytest.importorskip("torch")
    import labels_and_nulls
    import torch

    random = np.random.default_rng(0)
    photographs = random.integers(0, 30, 300)
    kinds = random.integers(0, 4, 30)[photographs]
    shuffled = labels_and_nulls.shuffled_kinds({"photographs": photographs, "kinds": kinds}, random)
    assert (shuffled != kinds).any()
    assert all(len(set(shuffled[photographs == p])) == 1 for p in range(30))

    within = labels_and_nulls.shuffled_within(photographs, kinds, random)
    assert (within != photographs).any()
    assert all(sorted(within[kinds == kind]) == sorted(photographs[kinds == kind]) for kind in range(4))

    codes = torch.rand(5, 16, 3)
    moved = labels_and_nulls.shuffled_positions(codes, random)
    assert not torch.equal(moved, codes)
    for image, other in zip(codes, moved, strict=True):  # concepts of a token stay together
        assert sorted(map(tuple, image.tolist())) == sorted(map(tuple, other.tolist()))


def test_codes_that_are_told_the_labels_and_rectangles_are_what_they_say(study):
    pytest.importorskip("torch")
    import labels_and_nulls

    codes = labels_and_nulls.told({"classes": [0, 2, 1], "kinds": [0, 1, 0]}, 4)
    assert codes.shape == (3, 4, 5) and (codes[1] == codes.new_tensor([0, 0, 1, 0, 1])).all()
    squares = labels_and_nulls.squares(10, 8, (3, 3), np.random.default_rng(0)).reshape(10, 8, 8)
    for image in squares.numpy():
        rows, columns = np.nonzero(image)
        assert np.ptp(rows) == np.ptp(columns) == 2 and len(rows) == 9


def test_a_written_baseline_is_read_by_usae_and_has_the_best_decoder(study, tmp_path):
    from study import yardstick

    random = np.random.default_rng(0)
    x = random.standard_normal((600, 10)) @ random.standard_normal((10, 10))
    encoder = random.standard_normal((24, 10))
    encoder /= np.linalg.norm(encoder, axis=1, keepdims=True)
    decoder = yardstick.best_decoder(x, encoder, 3)
    p = np.maximum(x @ encoder.T, 0)
    codes = np.where(p >= np.sort(p, axis=1)[:, -3, None], p, 0)
    best = np.square(x - codes @ decoder).sum()
    for _ in range(20):
        assert np.square(x - codes @ (decoder + 1e-2 * random.standard_normal(decoder.shape))).sum() > best

    rows = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)  # usae takes TopK of rows of equal norm
    yardstick.save_topk(tmp_path / "made", encoder, rows, 3)
    sae = usae.import_sae(tmp_path / "made")
    (name,) = sae.model_names_
    np.testing.assert_allclose(sae.encode(x.astype(np.float32), name).to_dense(), codes, atol=1e-4)
