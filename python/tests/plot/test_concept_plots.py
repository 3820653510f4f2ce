"""Figures of concepts and of training."""

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, MODELS, N_CONCEPTS, N_IMAGES, made_up, pictures_of
from support.refusals import refuses
from usae.plot import _heat

pytest.importorskip("matplotlib").use("Agg")

PLACES = GRID[0] * GRID[1]
DEAD = N_CONCEPTS - 1


@pytest.fixture(scope="module")
def sae():
    return identity_sae(N_CONCEPTS, MODELS, k=3)


@pytest.fixture(scope="module")
def given():
    return made_up()


@pytest.fixture(scope="module")
def top(sae, given):
    return usae.top_examples(sae, given, 2, grid=GRID, one_per_image=True, bands=3, disagreements=1, negatives=2)


def words_of(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def cells(figure):
    """Axes with pictures: rows of (images drawn in it, the text in it), by their place from the top and the left."""
    axes = sorted(
        (ax for ax in figure.axes if ax.images), key=lambda ax: (-round(ax.get_position().y0, 6), ax.get_position().x0)
    )
    return [([image.get_array() for image in ax.images], [text.get_text() for text in ax.texts]) for ax in axes]


def overlaps(figure):
    """Pairs of texts and axes that lie upon each other, and what lies outside of the figure."""
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts] + [ax.get_window_extent() for ax in figure.axes if ax.images]
    found = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.padded(-1).overlaps(b.padded(-1))]
    x, y = figure.bbox.max
    return found + [box for box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > x or box.y1 > y]


def test_a_concept_is_shown_in_the_same_images_for_every_model(sae, given, top):
    pictures, concept = pictures_of(), 5
    figure = usae.plot.concept(sae, concept, given, pictures, top=top, n=2)
    drawn = cells(figure)
    columns = 2 * len(MODELS)
    images = top.images[:, concept].ravel()
    assert [shown[0].shape[:2] for shown, _ in drawn[:columns]] == [drawn[0][0][0].shape[:2]] * columns
    codes = np.stack([sae.encode(x, name).to_dense().reshape(N_IMAGES, PLACES, N_CONCEPTS) for name, x in given.items()])
    scale = codes.max((1, 2))[:, concept]
    for model in range(len(MODELS)):
        for column, image in enumerate(images):
            (_, heat), told = drawn[columns * (1 + model) + column]
            share = codes[model, image, :, concept].reshape(GRID) / scale[model]
            from matplotlib import colormaps

            np.testing.assert_allclose(heat[..., :3], colormaps["viridis"](share)[..., :3])
            assert np.array_equal(heat[..., 3] > 0, share > 0)
            assert float(told[0]) == pytest.approx(codes[model, image, :, concept].max(), abs=0.051)
    shown = words_of(figure)
    assert all(
        title in shown for title in ("concept 5", "strongest in a", "weak to strong in a", "fires in no model", "picture")
    )
    assert "share of the model's largest code" in [ax.get_ylabel() for ax in figure.axes]


def test_without_examples_all_kinds_are_looked_for(sae, given):
    figure = usae.plot.concept(sae, 2, given, model="b", n=1, title="a <b> $x$ title", grid=GRID)
    shown = words_of(figure)
    assert "weak to strong in b" in shown and "fires in no model" in shown and r"a <b> \$x\$ title" in shown
    assert not overlaps(figure)


@pytest.mark.parametrize("n", [1, 3])
def test_nothing_overlaps_whatever_names_are(given, n):
    names = ("a network of a name that is long", "_b$", "c" * 60)
    sae = identity_sae(N_CONCEPTS, names, k=3)
    renamed = dict(zip(names, given.values(), strict=True))
    assert not overlaps(usae.plot.concept(sae, 4, renamed, pictures_of(), grid=GRID, n=n))
    assert not overlaps(usae.plot.concepts(sae, [4, 6], renamed, pictures_of(), grid=GRID, n=n, titles=["grass and sky", "x"]))


def test_a_dead_concept_has_a_figure_too(sae, given):
    only = usae.top_examples(sae, given, 2, grid=GRID, one_per_image=True)
    figure = usae.plot.concept(sae, DEAD, given, top=only)
    assert "fires in no image" in words_of(figure) and not cells(figure)
    assert cells(usae.plot.concepts(sae, [DEAD, 1], given, pictures_of(), top=only))


def test_one_model_and_no_grid(sae, given):
    one = identity_sae(N_CONCEPTS, MODELS[:1], k=3)
    odd = {"a": given["a"][:, :10]}  # ten tokens, which fill no grid
    figure = usae.plot.concept(one, 3, odd, pictures_of(), n=2)
    assert "others" not in words_of(figure) and all(len(images) == 1 for images, _ in cells(figure))
    with refuses("grid", "None"):
        usae.plot.concepts(one, [3], odd, pictures_of())
    with refuses("grid", "None"):
        usae.plot.concept(one, 3, {"a": given["a"].reshape(-1, N_CONCEPTS)}, top=usae.top_examples(one, odd))


def test_concepts_are_shown_in_each_models_strongest_images(sae, given, top):
    pictures = pictures_of()
    figure = usae.plot.concepts(sae, [7, 1], given, pictures, top=top, n=2, titles={1: "snow"})
    drawn = cells(figure)
    assert len(drawn) == 2 * 2 * len(MODELS) and not overlaps(figure)
    assert "7" in words_of(figure) and "1 snow" in words_of(figure)
    image = top.images[0, 7, 0]
    codes = sae.encode(given["a"], "a").to_dense().reshape(N_IMAGES, PLACES, N_CONCEPTS)[image, :, 7].reshape(GRID)
    shown = usae.plot.concepts(sae, [7], given, pictures, top=top, n=2)
    page = _heat.Shown(sae, given, pictures, top, False, None).pictures([image])[image]
    np.testing.assert_array_equal(cells(shown)[0][0][0], _heat.spotlight(page, codes / top.values[0, 7, 0]))


def test_pictures_of_a_store_and_those_that_cannot_be_read(sae, given, tmp_path):
    from PIL import Image

    for number, picture in enumerate(pictures_of()):
        Image.fromarray(picture).save(tmp_path / f"{number:02}.png")
    with usae.ActivationStore.create(tmp_path / "acts", dtype="float32", grid=GRID) as store:
        store.append(given, image_names=[f"{number:02}.png" for number in range(N_IMAGES)])
    found = usae.top_examples(sae, store, 1, one_per_image=True)
    (tmp_path / f"{found.images[0, 3, 0]:02}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="pictures"):
        figure = usae.plot.concept(sae, 3, store, tmp_path, top=found)
    assert (cells(figure)[0][0][0] == 160).all()


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"concept": N_CONCEPTS}, "concept", N_CONCEPTS),
        ({"n": 0}, "n", 0),
        ({"top": {}}, "top", "{}"),
        ({"model": "z"}, "model", ""),
        ({"title": 3}, "title", 3),
        ({"crop": "yes"}, "crop", "'yes'"),
        ({"pictures": np.zeros((3, 4, 4, 3), np.uint8)}, "pictures", "3"),
    ],
)
def test_mistakes_in_the_figure_of_a_concept_are_refused(sae, given, top, arguments, argument, got):
    with refuses(argument, got):
        usae.plot.concept(sae, **{"concept": 1, "acts": given, "top": top} | arguments)


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"concepts": []}, "concepts", "0"),
        ({"concepts": [1, -1]}, "concepts[1]", "-1"),
        ({"concepts": 5}, "concepts", "5"),
        ({"titles": ["a", "b"]}, "titles", "['a', 'b']"),
        ({"titles": {1: 2}}, "titles", "{1: 2}"),
    ],
)
def test_mistakes_in_the_figure_of_concepts_are_refused(sae, given, top, arguments, argument, got):
    with refuses(argument, got):
        usae.plot.concepts(sae, **{"concepts": [1], "acts": given, "pictures": pictures_of(), "top": top} | arguments)


def test_examples_of_another_autoencoder_are_refused(given, top):
    with refuses("top", str(N_CONCEPTS)):
        usae.plot.concept(identity_sae(3, MODELS, k=1), 1, {name: x[..., :3] for name, x in given.items()}, top=top)


def test_the_spotlight_leaves_what_fires_and_darkens_the_rest():
    image = np.full((64, 64, 3), (200, 100, 0), np.uint8)
    heat = np.zeros((8, 8))
    heat[:, :4] = 1.0
    shown = _heat.spotlight(image, heat)
    assert np.allclose(shown[:, :24], np.array([200, 100, 0]) / 255)
    assert np.allclose(shown[:, 40:], 0.3 * 100 / 255)
    middle = shown[:, 24:40, 0]
    assert (np.diff(middle, axis=1) <= 0).all()  # a gradual border
    # The centres of the cells on both sides of the border are 8 pixels apart; pixel 32 is half a pixel past their middle.
    assert shown[0, 32, 0] == pytest.approx((200 * 7 / 16 + 30 * 9 / 16) / 255)


# --- Training --------------------------------------------------------------------------------------------------------


def test_a_training_run_shows_losses_dead_concepts_and_held_out_r2(trained):
    figure = usae.plot.training(trained, window=1)
    losses, dead = figure.axes
    history = trained.history_
    assert np.array_equal(losses.lines[0].get_ydata(), [entry["loss"] for entry in history])
    vit = next(line for line in losses.lines if line.get_label() == "vit")
    assert np.array_equal(vit.get_ydata(), [entry["losses"]["vit"] for entry in history])
    assert np.array_equal(dead.lines[0].get_ydata(), [entry["dead"] for entry in history])
    r2 = [[0.5, 0.1], [0.3, 0.7]]
    entries = [
        {"step": step, "loss": 1.0 / step, "losses": {"a": 1.0, "b": 2.0}, "dead": 0, "validation": {"r2": r2}}
        for step in (1, 2)
    ]
    checked = usae.plot.training(entries).axes[2]
    assert [list(line.get_ydata()) for line in checked.lines] == [[0.6, 0.6], [0.2, 0.2]]
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
    assert len(usae.plot.training(history[:1]).axes) == 2


def test_what_is_no_training_run_is_refused():
    untrained = usae.UniversalSAE(8, 2).initialize({"a": 3})
    for run, got in ((untrained, ""), ([], ""), ([{"step": 1}], ""), ("run", "'run'"), (5, "5")):
        with refuses("run", got):
            usae.plot.training(run)
