"""What benchmarks/transfer.py measures, and a quick run of it."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import usae  # noqa: E402
from usae.demo import networks  # noqa: E402

BENCHMARKS = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
MODELS, CONCEPTS, CROPS = 3, 4, 200


@pytest.fixture
def transfer(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from study import image_transfer

    yield image_transfer
    for name in [name for name in sys.modules if name.split(".")[0] == "study"]:
        del sys.modules[name]


@pytest.fixture
def natural():
    """Largest codes of held-out crops, and of as many more of the same kind."""
    return np.random.default_rng(0).exponential(size=(2, MODELS, CROPS, CONCEPTS))


def codes(of_their_own, of_another):
    """Images that fire their concept in every model alike, and every other concept alike."""
    per_image = np.full((CONCEPTS, CONCEPTS), of_another) + (of_their_own - of_another) * np.eye(CONCEPTS)
    return np.broadcast_to(per_image, (MODELS + 1, MODELS, CONCEPTS, CONCEPTS))


def test_images_that_all_models_agree_on_transfer_and_their_nulls_do_not(transfer, natural):
    found = transfer.compared(codes(20.0, 0.0), *natural)
    own, another = found["own concept"], found["another concept"]
    assert np.all(own["strong"] == 1) and np.all(own["of its own"] == 1)
    np.testing.assert_allclose(own["code"], np.broadcast_to(20 / natural[0].max(1), own["code"].shape))
    assert not another["strong"].any() and not another["code"].any()


def test_images_that_fire_every_concept_are_told_by_the_null(transfer, natural):
    found = transfer.compared(codes(20.0, 20.0), *natural)
    assert np.all(found["own concept"]["strong"] == 1) and np.all(found["another concept"]["strong"] == 1)


def test_more_held_out_crops_exceed_the_quantile_at_its_rate(transfer, natural):
    rate = transfer.compared(codes(1.0, 0.0), *natural)["natural"]["strong"]
    # Some 8 of 800 crops and concepts exceed it in each model, as the threshold's own draw allows: 8 ± 2 sqrt(2 * 8).
    assert rate.shape == (MODELS,) and np.all(rate < 16 / 800) and rate.mean() > 0.003


def test_an_image_of_one_model_alone_is_strong_nowhere_else(transfer, natural):
    own = np.zeros((MODELS + 1, MODELS, CONCEPTS, CONCEPTS))
    own[np.arange(MODELS), np.arange(MODELS)] = 20 * np.eye(CONCEPTS)
    strong = transfer.compared(own, *natural)["own concept"]["strong"].mean(-1)
    assert np.array_equal(strong, np.eye(MODELS + 1, MODELS))


def test_the_largest_code_of_an_image_is_that_of_its_strongest_token(transfer):
    values = np.array([[2.0, 1.0], [5.0, 3.0], [4.0, 0.0], [1.0, 0.5]], np.float32)
    indices = np.array([[0, 3], [3, 1], [0, -1], [2, 3]], np.int32)
    found = transfer.largest(usae.Codes(values, indices, 4), [3, 0], n_images=2)
    assert np.array_equal(found, [[5, 2], [0.5, 4]])


@pytest.mark.slow
def test_what_is_read_is_what_maximize_scores(transfer):
    models = networks.load_models(threads=1)
    sae = usae.UniversalSAE(16, 4, seed=0).initialize({name: net.width for name, net in networks.load_networks().items()})
    found = [usae.maximize(sae, concept, models, steps=2, views=2, progress=False) for concept in (3, 7)]
    nothing = np.full_like(found[0].images[0], np.nan)
    for i, _ in enumerate(models):
        for j, (name, model) in enumerate(models.items()):
            images = [found[0].images[i], nothing, found[1].images[i]]
            peaks = transfer.read(sae, name, model, images, [3, 7])
            assert np.array_equal(peaks[1], [0, 0])
            # A pass of several images sums in another order than one of a single image.
            np.testing.assert_allclose([peaks[0, 0], peaks[2, 1]], [each.whole.peak[i, j] for each in found], rtol=1e-4)


@pytest.mark.slow
def test_a_quick_run_writes_the_tables_for_every_recipe(tmp_path):
    command = [sys.executable, BENCHMARKS / "transfer.py", "small", "--quick", "--output", tmp_path, "--images", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "transfer-small-quick.json").read_text(encoding="utf-8"))
    assert [record["recipe"] for record in data["records"]] == ["before", "default", "agreeing"]
    for record in data["records"]:
        shape = (len(record["models"]) + 1, len(record["models"]), len(record["concepts"]))
        assert np.shape(record["compared"]["own concept"]["strong"]) == shape
        assert (tmp_path / f"transfer-small-{record['recipe']}-0-joint.png").exists()
    page = (tmp_path / "transfer-small-quick.md").read_text(encoding="utf-8")
    assert page == done.stdout.rstrip("\n") + "\n"
    assert all(f"| {name} |" in page for name in ("before", "default", "agreeing", "all at once", "natural images"))
