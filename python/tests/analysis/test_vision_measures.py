"""Measures of concepts in images: held to codes with a number for every token and concept, and to scikit-learn."""

import itertools

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, MODELS, N_CONCEPTS, N_IMAGES, made_up
from support.refusals import refuses
from usae.analysis import label_scores, vision_measures
from usae.analysis.given_labels import Truth
from usae.analysis.label_scores import Entries, score
from usae.analysis.spatial import firing_maps

metrics = pytest.importorskip("sklearn.metrics")

PLACES = GRID[0] * GRID[1]
DEAD = N_CONCEPTS - 1
SHAPE = len(MODELS), N_IMAGES, PLACES, N_CONCEPTS


@pytest.fixture(scope="module")
def sae():
    return identity_sae(N_CONCEPTS, MODELS, k=3)


@pytest.fixture(scope="module")
def acts():
    return {name: np.round(x, 1) for name, x in made_up().items()}  # so that many codes are equal


@pytest.fixture(scope="module")
def codes(sae, acts):
    return np.stack([sae.encode(x, name).to_dense() for name, x in acts.items()]).reshape(SHAPE)


@pytest.fixture(scope="module")
def classes():
    """Of images, from 0 to 3; some have none."""
    return np.random.default_rng(5).integers(-1, 4, N_IMAGES)


@pytest.fixture(scope="module")
def masks():
    """Of tokens, for two labels that overlap."""
    rng = np.random.default_rng(6)
    return {"sky": rng.random((N_IMAGES, PLACES)) < 0.3, "sea": rng.random((N_IMAGES, *GRID)) < 0.1}


def by_sklearn(truth, scores):
    """Best F1 at thresholds above 0, and AUROC, of every label [rows, L] and concept [rows, m]; [m, L]."""
    shape = scores.shape[1], truth.shape[1]
    f1, auroc = np.zeros(shape), np.full(shape, np.nan)
    for concept, label in np.ndindex(shape):
        x, y = scores[:, concept], truth[:, label]
        if not y.any():
            f1[concept, label] = np.nan
            continue
        precision, recall, thresholds = metrics.precision_recall_curve(y, x)
        with np.errstate(invalid="ignore"):
            values = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1][thresholds > 0]
        f1[concept, label] = values.max(initial=0)
        if not y.all():
            auroc[concept, label] = metrics.roc_auc_score(y, x)
    return f1, auroc


def check(labels, model, f1, auroc):
    np.testing.assert_allclose(labels.f1[model], f1, rtol=1e-6)
    np.testing.assert_allclose(labels.auroc[model], auroc, rtol=1e-6)


# --- Labels ----------------------------------------------------------------------------------------------------------


def test_classes_of_images_are_scored_as_by_scikit_learn(sae, acts, codes, classes):
    found = sae.evaluate(acts, grid=GRID, labels=classes).vision.labels
    assert (found.names, found.of_images, found.n_rows) == (("0", "1", "2", "3"), True, N_IMAGES)
    truth = classes[:, None] == np.arange(4)
    assert list(found.positives) == list(truth.sum(0))
    for model in range(len(MODELS)):
        check(found, model, *by_sklearn(truth, codes.max(2)[model]))
    assert (found.f1[:, DEAD] == 0).all() and (found.auroc[:, DEAD] == 0.5).all()


@pytest.mark.parametrize("threshold", [0.0, 0.7])
@pytest.mark.parametrize("masked", [False, True])
def test_masks_of_tokens_are_scored_as_by_scikit_learn(sae, acts, codes, masks, masked, threshold):
    counts = np.random.default_rng(7).random((N_IMAGES, PLACES)) < 0.7 if masked else np.ones((N_IMAGES, PLACES), bool)
    found = sae.evaluate(acts, grid=GRID, labels=masks, mask=counts, threshold=threshold).vision.labels
    truth = np.stack([mask.reshape(-1) for mask in masks.values()], 1)[counts.reshape(-1)]
    assert (found.names, found.of_images, found.n_rows) == (("sky", "sea"), False, counts.sum())
    for model in range(len(MODELS)):
        scores = codes[model].reshape(-1, N_CONCEPTS)[counts.reshape(-1)]
        check(found, model, *by_sklearn(truth, np.where(scores > threshold, scores, 0)))


def test_images_without_a_token_that_counts_are_not_scored(sae, acts, codes, classes):
    mask = np.random.default_rng(8).random((N_IMAGES, PLACES)) < 0.5
    mask[:9] = False
    found = sae.evaluate(acts, grid=GRID, labels=classes, mask=mask).vision
    assert (found.n_images, found.labels.n_rows) == (N_IMAGES - 9, N_IMAGES - 9)
    peaks = (codes * mask[None, ..., None]).max(2)[:, 9:]
    check(found.labels, 1, *by_sklearn(classes[9:, None] == np.arange(4), peaks[1]))


def test_how_many_codes_are_held_at_once_changes_nothing(sae, acts, masks, classes, monkeypatch):
    asked = {"masks": masks, "classes": classes}
    whole = {name: sae.evaluate(acts, grid=GRID, labels=labels).vision for name, labels in asked.items()}
    monkeypatch.setattr(vision_measures, "MOST_ENTRIES", 500)
    monkeypatch.setattr(label_scores, "AT_ONCE", 64)
    monkeypatch.setattr("usae.analysis.image_codes.TOKENS_AT_ONCE", 7 * PLACES)
    passes = []
    chunks = vision_measures.Pool.chunks
    monkeypatch.setattr(vision_measures.Pool, "chunks", lambda pool: passes.append(1) or chunks(pool))
    for name, labels in asked.items():
        part = sae.evaluate(acts, grid=GRID, labels=labels).vision
        assert part.to_dict()["labels"] == whole[name].to_dict()["labels"]
        np.testing.assert_allclose(part.coherence, whole[name].coherence, rtol=1e-12)
        np.testing.assert_allclose(part.area, whole[name].area, rtol=1e-12)
    assert len(passes) > 6


def test_a_store_and_rows_without_images(sae, acts, masks, tmp_path):
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32", grid=GRID) as store:
        store.append(acts)
    flat = {name: x.reshape(-1, x.shape[-1]) for name, x in acts.items()}
    rows = {name: mask.reshape(-1) for name, mask in masks.items()}
    found = [sae.evaluate(given, labels=rows).vision for given in (usae.ActivationStore(tmp_path / "acts"), flat)]
    assert found[0].labels.to_dict() == found[1].labels.to_dict()
    assert found[0].grid == GRID and found[1].grid is found[1].coherence is found[1].area is found[1].n_images is None


def test_pixels_have_the_class_that_most_of_a_token_has(sae, acts):
    rng = np.random.default_rng(9)
    pixels = rng.integers(-1, 3, (N_IMAGES, GRID[0] * 4, GRID[1] * 5))
    found = sae.evaluate(acts, grid=GRID, labels=pixels).vision.labels
    tokens = np.empty((N_IMAGES, *GRID), int)
    for image, row, column in np.ndindex(tokens.shape):
        patch = pixels[image, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        numbers, counts = np.unique(patch, return_counts=True)
        tokens[image, row, column] = numbers[counts.argmax()]
    expected = sae.evaluate(acts, grid=GRID, labels=tokens).vision.labels
    assert found.names == ("0", "1", "2") and found.to_dict() == expected.to_dict()
    half = np.zeros((N_IMAGES, GRID[0] * 2, GRID[1] * 2), bool)
    half[:, ::2] = True
    assert sae.evaluate(acts, grid=GRID, labels={"a": half}).vision.labels.positives == [N_IMAGES * PLACES]


def test_labels_that_all_rows_or_none_have(sae, acts):
    every = {"all": np.ones(N_IMAGES, bool), "none": np.zeros(N_IMAGES, bool)}
    found = sae.evaluate(acts, grid=GRID, labels=every).vision.labels
    assert np.isnan(found.auroc).all() and np.isnan(found.f1[..., 1]).all()
    assert not np.isnan(found.f1[..., 0]).any() and (found.best_auroc_label == -1).all() and np.isnan(found.best_auroc).all()
    assert (found.best_f1_label[:, DEAD] == -1).all() and (found.best_f1_label[:, :DEAD] == 0).all()


def test_scores_of_many_random_codes():
    rng = np.random.default_rng(10)
    for trial in range(20):
        n_rows, m, n_labels = rng.integers(2, 30), 4, 3
        dense = np.round(rng.random((n_rows, m)) * (rng.random((n_rows, m)) < 0.6), 1)
        truth = rng.random((n_rows, n_labels)) < rng.random(n_labels)
        rows, concepts = np.nonzero(dense)
        starts = np.concatenate([[0], np.cumsum(truth.sum(1))])
        given = Truth(("a", "b", "c"), False, starts, np.nonzero(truth)[1])
        order = rng.permutation(len(rows))
        entries = Entries(concepts[order], dense[rows, concepts][order].astype(np.float32), rows[order])
        f1, auroc = score(entries, m, given, n_rows, truth.sum(0))
        expected = by_sklearn(truth, dense)
        np.testing.assert_allclose(f1, expected[0], rtol=1e-6, err_msg=str(trial))
        np.testing.assert_allclose(auroc, expected[1], rtol=1e-6, err_msg=str(trial))


# --- Maps and embeddings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_coherence_and_area_are_means_over_the_images_in_which_a_concept_fires(sae, acts, codes, threshold):
    found = sae.evaluate(acts, vision=True, grid=GRID, threshold=threshold).vision
    for model, concept in itertools.product(range(len(MODELS)), range(N_CONCEPTS)):
        maps = np.where(codes > threshold, codes, 0)[model, ..., concept]
        fires = maps.any(1)
        alone = firing_maps(maps[..., None], np.zeros(maps.shape + (1,), int), 1, GRID)
        known = alone.coherence[~np.isnan(alone.coherence)]
        assert found.area[model, concept] == pytest.approx((maps[fires] > 0).mean() if fires.any() else np.nan, nan_ok=True)
        assert found.coherence[model, concept] == pytest.approx(known.mean() if len(known) else np.nan, nan_ok=True)
    assert np.isnan(found.area[:, DEAD]).all()


def test_example_coherence_is_the_mean_cosine_of_the_strongest_images(sae, acts):
    embeddings = np.random.default_rng(11).standard_normal((N_IMAGES, 6)) + 3
    found = sae.evaluate(acts, grid=GRID, embeddings=embeddings).vision
    top = usae.top_examples(sae, acts, 8, grid=GRID, one_per_image=True)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    units -= units.mean(0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    for model, concept in itertools.product(range(len(MODELS)), range(N_CONCEPTS)):
        images = top.images[model, concept]
        rows = units[images[images >= 0]]
        cosines = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
        expected = cosines.mean() if len(cosines) else np.nan
        assert found.example_coherence[model, concept] == pytest.approx(expected, nan_ok=True)
    alike = sae.evaluate(acts, grid=GRID, embeddings=np.repeat([[1.0, 2], [2, 1]], N_IMAGES // 2, 0)).vision
    assert np.nanmax(alike.example_coherence) <= 1 + 1e-12


# --- Where they are shown --------------------------------------------------------------------------------------------


def test_the_frame_of_an_evaluation_has_them(sae, acts, classes):
    evaluation = sae.evaluate(acts, grid=GRID, labels=classes, embeddings=np.eye(N_IMAGES), partners=True)
    frame, vision = evaluation.to_frame(), evaluation.vision
    for i, name in enumerate(MODELS):
        np.testing.assert_array_equal(frame[f"coherence[{name}]"], vision.coherence[i])
        np.testing.assert_array_equal(frame[f"area[{name}]"], vision.area[i])
        np.testing.assert_array_equal(frame[f"example_coherence[{name}]"], vision.example_coherence[i])
        np.testing.assert_array_equal(frame[f"best_f1[{name}]"], vision.labels.f1[i].max(1))
        best = vision.labels.auroc[i].argmax(1)
        assert list(frame[f"best_auroc_label[{name}]"][:DEAD]) == [str(label) for label in best[:DEAD]]
        assert frame[f"best_auroc_label[{name}]"].isna()[DEAD]
    whole = vision.labels.to_frame()
    assert whole.f1["b", 3, "2"] == vision.labels.f1[1, 3, 2] and len(whole) == vision.labels.f1.size
    assert evaluation.to_dict()["vision"]["labels"]["names"] == ["0", "1", "2", "3"]
    plain = sae.evaluate(acts)
    assert plain.vision is None and "vision" not in plain.to_dict()
    assert plain.to_dict() == {key: value for key, value in evaluation.to_dict().items() if key not in ("vision", "partners")}


def test_labels_are_shown_with_their_best_concepts_as_text(sae, acts):
    shown = sae.evaluate(acts, grid=GRID, labels={"<b>": np.arange(N_IMAGES) < 9}).vision.labels._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"vision": 2}, "vision", "2"),
        ({"grid": (5, 5)}, "grid", ""),
        ({"labels": np.zeros(N_IMAGES)}, "labels", "float64"),
        ({"labels": np.zeros(N_IMAGES, bool)}, "labels", "bool"),
        ({"labels": np.zeros((N_IMAGES, 7), int)}, "labels", f"int64 of shape [{N_IMAGES}, 7]"),
        ({"labels": np.zeros((N_IMAGES, 4, 4), int)}, "labels", f"int64 of shape [{N_IMAGES}, 4, 4]"),
        ({"labels": np.full(N_IMAGES, -1)}, "labels", "numbers below 0"),
        ({"labels": "cat"}, "labels", "'cat'"),
        ({"labels": {}}, "labels", "{}"),
        ({"labels": {1: np.zeros(N_IMAGES, bool)}}, "labels", ""),
        ({"labels": {"a": np.zeros(N_IMAGES)}}, "labels['a']", "float64"),
        ({"labels": {"a": np.zeros(N_IMAGES, bool), "b": np.zeros(N_IMAGES * PLACES, bool)}}, "labels", "both"),
        ({"embeddings": np.zeros((3, 2))}, "embeddings", "shape [3, 2]"),
        ({"embeddings": np.full((N_IMAGES, 2), np.nan)}, "embeddings", ""),
    ],
)
def test_mistakes_are_refused(sae, acts, arguments, argument, got):
    with refuses(argument, got):
        sae.evaluate(acts, **{"grid": GRID} | arguments)


def test_measures_of_images_need_images(sae, acts):
    flat = {name: x.reshape(-1, x.shape[-1]) for name, x in acts.items()}
    for asked in ({"vision": True}, {"embeddings": np.eye(N_IMAGES)}):
        with refuses("grid", "None", "[images, tokens, width]"):
            sae.evaluate(flat, **asked)
    with refuses("labels", f"int64 of shape [{N_IMAGES}]"):
        sae.evaluate(flat, labels=np.zeros(N_IMAGES, int))
