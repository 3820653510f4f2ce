"""Images and grids that are found, and examples from weak to strong, without the concept, and where models disagree."""

import dataclasses

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, MODELS, N_CONCEPTS, N_IMAGES, made_up, read_folder
from support.refusals import refuses
from usae._explorer.maps import NONE

PLACES = GRID[0] * GRID[1]
DEAD = N_CONCEPTS - 1
N = 3


@pytest.fixture(scope="module")
def sae():
    return identity_sae(N_CONCEPTS, MODELS, k=3)


@pytest.fixture(scope="module")
def acts():
    return made_up()


@pytest.fixture(scope="module")
def codes(sae, acts):
    """Codes of every model, [M, images, places, m]."""
    return np.stack([sae.encode(x, name).to_dense().reshape(N_IMAGES, PLACES, N_CONCEPTS) for name, x in acts.items()])


@pytest.fixture(scope="module")
def top(sae, acts):
    return usae.top_examples(sae, acts, N, grid=GRID, one_per_image=True, bands=4, disagreements=2, negatives=5)


def flat(acts):
    return {name: x.reshape(-1, x.shape[-1]) for name, x in acts.items()}


def stacked(acts, tokens=PLACES):
    return {name: x.reshape(-1, tokens, x.shape[-1]) for name, x in acts.items()}


# --- Images and grid -------------------------------------------------------------------------------------------------


def store_of(acts, path, grid):
    with usae.ActivationStore.create(path, dtype="float32", grid=grid) as store:
        store.append(acts)
    return usae.ActivationStore(path)


@pytest.mark.parametrize("way", ["store", "arrays of a store", "masked store"])
def test_the_grid_of_a_store_is_found(sae, acts, top, tmp_path, way):
    store = store_of(stacked(acts), tmp_path / "acts", GRID)
    given = {
        "store": store,
        "arrays of a store": dict(store),
        "masked store": usae.MaskedActivations(store, np.ones((N_IMAGES, 1), bool)),
    }[way]
    found = usae.top_examples(sae, given, N, one_per_image=True)
    assert found.grid == GRID and np.array_equal(found.tokens, top.tokens)
    for name in ("images", "rows", "columns"):
        assert np.array_equal(getattr(found, name), getattr(top, name))


def test_a_square_is_found_in_arrays_and_class_tokens_leave_the_images(sae, acts):
    square = usae.top_examples(sae, {name: x[:, :9] for name, x in stacked(acts).items()}, N)
    assert square.grid == (3, 3) and square.columns.max() == 2
    odd = usae.top_examples(sae, {name: x[:, :10] for name, x in stacked(acts).items()}, N)
    assert odd.grid is None and odd.images.max() == N_IMAGES - 1
    with refuses("grid", "None for 10 tokens", "drop class"):
        odd.rows  # noqa: B018
    with refuses("grid", "None", "[images, tokens, width]"):
        usae.top_examples(sae, flat(acts), N).images  # noqa: B018


def test_models_that_differ_in_the_tokens_of_an_image_have_no_images(sae, acts):
    mixed = {name: x.reshape(-1, tokens, x.shape[-1]) for (name, x), tokens in zip(acts.items(), (6, 12, 12), strict=True)}
    found = usae.top_examples(sae, mixed, N)
    assert found.tokens_per_image is None and np.array_equal(found.tokens, usae.top_examples(sae, flat(acts), N).tokens)


def test_texts_lie_in_no_grid(sae, acts):
    numbers = np.arange(N_IMAGES * PLACES)
    rows = usae.TextRows(["abcd"] * (len(numbers) // 4), numbers // 4, [(i, i + 1) for i in numbers % 4])
    assert usae.top_examples(sae, stacked(acts, 4), N, text_rows=rows).grid is None
    top = usae.top_examples(sae, flat(acts), N, text_rows=rows, bands=2)
    assert top.bands[0].report(0).count("concept 0 in") == len(MODELS)


# --- From weak to strong, without the concept, and where models disagree ---------------------------------------------


def test_bands_are_drawn_from_images_whose_largest_code_is_in_the_band(top, codes):
    peaks, scale = codes.max(2), codes.max((1, 2))
    assert len(top.bands) == 4
    for number, band in enumerate(top.bands):
        for model in range(len(MODELS)):
            for concept in range(N_CONCEPTS):
                images = band.images[model, concept]
                images = images[images >= 0]
                share = peaks[model, :, concept] / max(scale[model, concept], 1e-9) * 4
                there = np.flatnonzero((share > number) & (share <= number + 1))
                assert len(set(images)) == len(images) == min(N, len(there)) and set(images) <= set(there)
                assert list(band.values[model, concept][: len(images)]) == sorted(peaks[model, images, concept], reverse=True)
    assert (top.bands[0].tokens[:, DEAD] == -1).all()


def test_a_token_of_a_band_is_the_strongest_of_its_image(top, codes):
    for example in (*top.bands, top.disagreements):
        model, concept, slot = np.nonzero(example.tokens >= 0)
        tokens = example.tokens[model, concept, slot]
        flat = codes.reshape(len(MODELS), -1, N_CONCEPTS)
        assert np.array_equal(flat[model, tokens, concept], example.values[model, concept, slot])
        assert np.array_equal(codes.max(2)[model, tokens // PLACES, concept], example.values[model, concept, slot])


def test_disagreements_are_where_a_model_exceeds_the_others_most(top, codes):
    relative = codes.max(2) / np.maximum(codes.max((1, 2)), 1e-9)[:, None]
    for model in range(len(MODELS)):
        others = relative[[i for i in range(len(MODELS)) if i != model]].mean(0)
        score = np.where(relative[model] > 0, relative[model] - others, -1)
        for concept in range(N_CONCEPTS - 1):
            found = score[top.disagreements.images[model, concept], concept]
            assert list(found) == pytest.approx(list(np.sort(score[:, concept])[::-1][:2]), abs=1e-6)


def test_negatives_fire_the_concept_in_no_model(top, codes):
    fires = codes.any((0, 2))  # [images, m]
    assert top.negatives.shape == (N_CONCEPTS, 5) and top.negatives.dtype == np.int64
    for concept, images in enumerate(top.negatives):
        images = images[images >= 0]
        assert len(set(images)) == len(images) and not fires[images, concept].any()
    assert (top.negatives[DEAD] >= 0).all()  # at random where no concept is near


def arrays_of_explorer(sae, acts, folder):
    page = usae.explorer(sae, acts, None, folder, grid=GRID, bands=4, progress=False)
    return read_folder(page.path.parent)["concepts", 0]["arrays"]


def check_negatives(negatives, silent):
    for concept, images in enumerate(silent):
        known = [int(image) for image in images if image != 0xFFFF]
        assert negatives[concept, : len(known)].tolist() == known[: negatives.shape[1]]


def test_concepts_are_near_by_direction_however_long_their_rows_are(sae, acts, tmp_path):
    rng = np.random.default_rng(0)
    near = identity_sae(N_CONCEPTS, MODELS, k=3)
    for name in MODELS:
        rows = rng.standard_normal((N_CONCEPTS, N_CONCEPTS))
        lengths = rng.uniform(0.01, 1, (N_CONCEPTS, 1))
        near.set_parameters(name, {"dictionary": lengths * rows / np.linalg.norm(rows, axis=1, keepdims=True)})
    top = usae.top_examples(near, acts, N, grid=GRID, one_per_image=True, negatives=5)
    check_negatives(top.negatives, arrays_of_explorer(near, acts, tmp_path / "page")["silent"])


def test_the_explorer_shows_the_same_samples(sae, acts, top, tmp_path):
    arrays = arrays_of_explorer(sae, acts, tmp_path / "page")
    first = usae.top_examples(sae, acts, 1, grid=GRID, one_per_image=True, bands=4)
    for concept in range(N_CONCEPTS):
        images = arrays["images"][slice(*arrays["starts"][concept : concept + 2])]

        def shown(pairs, images=images):
            return [[int(images[pair]) if pair != NONE else -1 for pair in row] for row in pairs]

        assert shown(arrays["apart"][concept]) == top.disagreements.images[:, concept].tolist()
        assert shown(arrays["bands"][concept]) == np.stack([band.images[:, concept, 0] for band in first.bands], 1).tolist()
    check_negatives(top.negatives, arrays["silent"])


def test_some_rows_and_models_and_a_store(sae, acts, tmp_path):
    mask = np.random.default_rng(2).random((N_IMAGES, PLACES)) < 0.5
    mask[7] = False
    options = {"n": 2, "models": ["c", "a"], "bands": 2, "disagreements": 1, "negatives": 3, "seed": 4}
    store = store_of(stacked(acts), tmp_path / "acts", GRID)
    one = usae.top_examples(sae, flat(acts), grid=GRID, mask=mask.reshape(-1), **options)
    other = usae.top_examples(sae, store, mask=mask, **options)
    for a, b in zip((one, *one.bands, one.disagreements), (other, *other.bands, other.disagreements), strict=True):
        assert np.array_equal(a.tokens, b.tokens) and np.array_equal(a.values, b.values)
        assert mask.reshape(-1)[a.tokens[a.tokens >= 0]].all()
    assert np.array_equal(one.negatives, other.negatives) and not (one.negatives == 7).any()
    again = usae.top_examples(sae, flat(acts), grid=GRID, mask=mask.reshape(-1), **options | {"seed": 5})
    assert not np.array_equal(again.bands[0].tokens, one.bands[0].tokens)


def test_samples_do_not_depend_on_how_many_images_are_encoded_at_once(sae, acts, top, monkeypatch):
    monkeypatch.setattr("usae.analysis.image_codes.TOKENS_AT_ONCE", 5 * PLACES)
    again = usae.top_examples(sae, acts, N, grid=GRID, one_per_image=True, bands=4, disagreements=2, negatives=5)
    for a, b in zip((top, *top.bands, top.disagreements), (again, *again.bands, again.disagreements), strict=True):
        assert np.array_equal(a.tokens, b.tokens) and np.array_equal(a.values, b.values)
    assert np.array_equal(top.negatives, again.negatives)
    plain = usae.top_examples(sae, acts, N, grid=GRID, one_per_image=True)
    assert np.array_equal(plain.tokens, top.tokens) and plain.bands == () and plain.disagreements is plain.negatives is None


def test_without_images_rows_stand_for_them(sae, acts):
    top = usae.top_examples(sae, flat(acts), N, bands=2, negatives=2)
    dense = np.stack([sae.encode(x, name).to_dense() for name, x in flat(acts).items()])
    for concept, rows in enumerate(top.negatives):
        assert not dense[:, rows[rows >= 0], concept].any()
    share = top.bands[1].values / np.maximum(dense.max(1)[..., None], 1e-9)
    assert ((share > 0.5) | (top.bands[1].tokens < 0)).all()


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"bands": -1}, "bands", "-1"),
        ({"bands": 17}, "bands", "17"),
        ({"disagreements": True}, "disagreements", "True"),
        ({"negatives": 1.5}, "negatives", "1.5"),
        ({"seed": -1}, "seed", "-1"),
        ({"models": ["a"], "disagreements": 1}, "disagreements", "1"),
    ],
)
def test_mistakes_are_refused(sae, acts, arguments, argument, got):
    with refuses(argument, got):
        usae.top_examples(sae, acts, N, **arguments)


def test_examples_are_a_frame_and_a_table(top):
    frame = top.to_frame()
    assert len(frame) == (top.tokens >= 0).sum()
    row = frame[(frame.model == "b") & (frame.concept == 4)].iloc[1]
    assert (row["rank"], row.token, row.image) == (1, top.tokens[1, 4, 1], top.images[1, 4, 1])
    assert (row.row, row.column, row.value) == (top.rows[1, 4, 1], top.columns[1, 4, 1], top.values[1, 4, 1])
    assert f"<td>{int((top.tokens[0] >= 0).all(1).sum())}</td>" in top._repr_html_()
    assert "image" not in dataclasses.replace(top, grid=None, tokens_per_image=None).to_frame()
