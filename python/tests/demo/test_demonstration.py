"""The demonstration: which concepts and crops it shows, how it draws them, and that it runs."""

import dataclasses
import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import usae  # noqa: E402
from usae.demo import concepts, demonstration, networks, photographs  # noqa: E402

# Fields an Evaluation has that choosing concepts does not look at.
UNUSED = {name: np.zeros((2, 2)) for name in ("r2", "r2_standardized", "r2_scalar_mean", "mse", "max_activation")}
UNUSED |= {name: np.zeros((2, 2)) for name in ("pair_cofire_counts", "union_counts", "code_products")}


def evaluation(firing_counts, cofire_counts, mean_activation):
    """Two networks' worth of numbers about the concepts, [2, m]."""
    return usae.Evaluation(
        model_names=("a", "b"),
        n_tokens=1000,
        threshold=0.0,
        l0=np.ones(2),
        firing_counts=np.array(firing_counts),
        cofire_counts=np.array(cofire_counts),
        mean_activation=np.array(mean_activation),
        **UNUSED,
    )


def test_universal_concepts_fire_evenly_and_together_and_the_most_energetic_comes_first():
    found = concepts.universal_concepts(
        evaluation(
            #    even, one-sided, even, dead, dead in b, even, even but apart
            [[100, 500, 50, 0, 80, 10, 100], [90, 5, 60, 0, 0, 10, 100]],
            [80, 5, 40, 0, 0, 9, 10],
            [[0.1, 9.0, 0.5, 0.0, 3.0, 0.2, 5.0], [0.1, 9.0, 0.5, 0.0, 0.0, 0.9, 5.0]],
        ),
        12,
    )
    assert found == [2, 5, 0]  # 0.5 * 0.5 > 0.2 * 0.9 > 0.1 * 0.1
    assert concepts.universal_concepts(evaluation([[0, 3], [0, 0]], [0, 0], [[0, 1], [0, 0]]), 12) == []


def codes_of(heat):
    """One concept's codes, [crops, grid, grid], as Codes of two slots with concept 7 in the second."""
    values = np.stack([np.full(heat.size, 9.0), heat.ravel()], 1).astype(np.float32)
    indices = np.where(values > 0, [3, 7], -1).astype(np.int32)
    return usae.Codes(values, indices, 8)


def test_examples_are_the_strongest_crops_with_different_places():
    heat = np.zeros((5, 2, 2), np.float32)
    heat[0, 0, 1] = 1.0
    heat[1] = 2.0
    heat[2] = 1.9  # the same place as crop 1
    heat[3, 1, 1] = 3.0
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60], [0, 0, 10, 10]])
    crops = photographs.Crops(np.zeros((5, 64, 64, 3), np.uint8), np.array([1, 0, 0, 0, 2]), boxes)
    found = concepts.examples(codes_of(heat), crops, 7, n=5, grid=2)
    assert [example.crop for example in found] == [1, 3, 0]  # 2 overlaps 1; 4 does not fire
    assert np.array_equal(found[2].heat, heat[0])
    assert len(concepts.examples(codes_of(heat), crops, 7, n=1, grid=2)) == 1
    assert concepts.examples(codes_of(heat), crops, 5, n=5, grid=2) == []


def test_photograph_shares_add_up_the_codes_of_each_photograph():
    heat = np.zeros((3, 2, 2), np.float32)
    heat[0], heat[1], heat[2] = 1.0, 2.0, 3.0
    crops = photographs.Crops(np.zeros((3, 64, 64, 3), np.uint8), np.array([4, 0, 4]), np.zeros((3, 4), np.int64))
    shares = concepts.photograph_shares(codes_of(heat), crops, 7, grid=2)
    assert list(shares) == [4, 0]
    assert shares[4] == pytest.approx(16 / 24) and shares[0] == pytest.approx(8 / 24)


def test_varied_crops_are_rarely_featureless():
    pictures = photographs.load()
    images = photographs.varied_crops(pictures, "train", 300, seed=0).images
    flat = images.reshape(300, -1, 3).std(1).max(1) < photographs.FLAT
    plain = photographs.crops(pictures, "train", 300, 0).images
    assert flat.mean() < 0.05 < (plain.reshape(300, -1, 3).std(1).max(1) < photographs.FLAT).mean()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "output"
    return folder, demonstration.run(folder, small=True, seed=1)


@pytest.mark.slow
def test_the_small_demonstration_writes_what_it_says(small_run):
    folder, report = small_run
    for name in ("cross_reconstruction.png", "training.png", "concepts.png", "maximization.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"usae-explorer" in (folder / "explorer.html").read_bytes()[:32]
    pages = sorted((folder / "concepts").iterdir())
    assert len(pages) == len(report["concepts"]) == demonstration.SMALL.shown_concepts
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))  # tuples become lists


@pytest.mark.slow
def test_the_small_demonstration_learned_something_from_every_network(small_run):
    _, report = small_run
    assert np.min(np.diag(report["r2"])) > 0.3  # an autoencoder that knows nothing scores 0
    assert report["r2_other_model"] > 0.1
    assert report["universal"] > 0


@pytest.mark.slow
def test_the_demonstrations_model_can_be_used(small_run):
    folder, report = small_run
    sae = usae.load(folder / "model")
    assert dict(sae.n_features_in_) == report["models"]
    pictures = photographs.load()
    crops = photographs.varied_crops(pictures, "held_out", demonstration.SMALL.held_out_crops, seed=3)
    acts = networks.activations(networks.load_networks(), crops.images)
    assert sae.evaluate(acts).r2.tolist() == pytest.approx(np.array(report["r2"]), abs=1e-6)


@pytest.mark.slow
def test_the_demonstration_makes_images_for_its_first_concepts(small_run):
    _, report = small_run
    made = report["maximization"]
    assert [found["concept"] for found in made] == [shown["concept"] for shown in report["concepts"]][: len(made)]
    assert len(made) == demonstration.SMALL.maximized_concepts
    assert all(found["started"] == [True] * 3 and len(found["dataset_peak"]) == 3 for found in made)


def test_models_for_maximization_have_the_tokens_of_the_activations():
    images = photographs.crops(photographs.load(), "held_out", 3, seed=2).images
    expected = networks.activations(networks.load_networks(), images)
    for name, model in networks.load_models().items():
        assert model.grid == (networks.GRID, networks.GRID)
        np.testing.assert_allclose(model(model.preprocess(images)), expected[name], rtol=1e-4, atol=1e-5)  # other batches


def test_sizes_are_what_a_reader_of_the_readme_expects():
    assert demonstration.FULL.shown_concepts == 12
    assert all(
        small <= full
        for small, full in zip(dataclasses.astuple(demonstration.SMALL), dataclasses.astuple(demonstration.FULL), strict=True)
    )


def test_a_figure_that_fails_is_told_and_costs_nothing_else(tmp_path):
    from usae.demo import results

    def fails(path):
        raise KeyError("x")

    with pytest.warns(UserWarning, match="a.png"):
        results.drawn(tmp_path / "a.png", fails)
