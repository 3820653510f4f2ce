"""Effects of ablated concepts in an explorer: columns to sort by, and what the page of a concept says."""

import numpy as np
import pytest

import usae
from support.effects import made_up_effects
from support.explorers import GRID, MODELS, N_CONCEPTS, pictures_of, read_folder
from support.refusals import refuses


@pytest.fixture(scope="module")
def effects():
    return made_up_effects(MODELS, N_CONCEPTS, [4, 2, 7])


@pytest.fixture(scope="module")
def folder(sae, acts, effects, tmp_path_factory):
    path = tmp_path_factory.mktemp("effects") / "page"
    usae.explorer(sae, acts, pictures_of(), path, grid=GRID, effects=effects, progress=False)
    return path


def columns_of(folder):
    index = read_folder(folder)["index", 0]
    described = index["header"]["columns"]
    values = index["arrays"]["columns"].reshape(len(described), -1)
    return {one["key"]: row for one, row in zip(described, values, strict=True)}, index["header"]


def test_effects_are_columns_of_models_and_pairs(folder, effects):
    columns, header = columns_of(folder)
    for i in range(3):
        np.testing.assert_allclose(columns[f"effect:{i}"][[4, 2, 7]], effects.size[i], rtol=1e-3)
        np.testing.assert_allclose(columns[f"change:{i}"][[4, 2, 7]], effects.change[i], rtol=1e-3)
        assert np.isnan(columns[f"effect:{i}"]).sum() == N_CONCEPTS - 3
        np.testing.assert_allclose(columns[f"estimate:{i}"], effects.first_order[i], rtol=1e-3)
    np.testing.assert_allclose(columns["effects:0:2"][[4, 2, 7]], effects.agreement.value[0, 2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(columns["effectsNull:0:2"][[4, 2, 7]], effects.agreement.null[0, 2], rtol=1e-3, atol=1e-4)
    estimated = effects.first_order_agreement
    np.testing.assert_allclose(columns["estimates:1:2"], estimated.value[1, 2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(columns["estimatesNull:1:2"], estimated.null[1, 2], rtol=1e-3, atol=1e-4)
    lowest = effects.agreement.value[[0, 0, 1], [1, 2, 2]].min(0)
    np.testing.assert_allclose(columns["effects"][[4, 2, 7]], lowest, rtol=1e-3, atol=1e-4)
    assert header["effects"] == {"scores": list(effects.scores), "images": 40}
    assert "Same effect" in [preset["name"] for preset in header["presets"]]


def test_effects_may_be_of_some_models_in_another_order(sae, acts, tmp_path):
    effects = made_up_effects(("c", "a"), N_CONCEPTS, [5, 1])
    usae.explorer(sae, acts, None, tmp_path / "x", grid=GRID, effects=effects, progress=False)
    columns, header = columns_of(tmp_path / "x")
    np.testing.assert_allclose(columns["effect:2"][[5, 1]], effects.size[0], rtol=1e-3)
    np.testing.assert_allclose(columns["effect:0"][[5, 1]], effects.size[1], rtol=1e-3)
    np.testing.assert_allclose(columns["effects:0:2"][[5, 1]], effects.agreement.value[0, 1], rtol=1e-3, atol=1e-4)
    assert "effect:1" not in columns and header["effects"]["scores"] == [effects.scores[1], None, effects.scores[0]]
    alone = made_up_effects(("b",), N_CONCEPTS)
    usae.explorer(sae, acts, None, tmp_path / "y", grid=GRID, effects=alone, progress=False)
    columns, header = columns_of(tmp_path / "y")
    assert "effect:1" in columns and "effects" not in columns
    assert "Same effect" not in [preset["name"] for preset in header["presets"]]


def test_without_effects_nothing_is_said_of_them(page):
    columns, header = columns_of(page.path.parent)
    assert header["effects"] is None and not [key for key in columns if key.startswith(("effect", "estimate"))]


def test_effects_of_something_else_are_refused(sae, acts, tmp_path):
    for effects, got in ((3, "3"), (made_up_effects(MODELS, 30), "30"), (made_up_effects(("d",), N_CONCEPTS), N_CONCEPTS)):
        with refuses("effects", got):
            usae.explorer(sae, acts, None, tmp_path / "x", grid=GRID, effects=effects, progress=False)
    assert not list(tmp_path.iterdir())


BLOCK = "[...document.querySelectorAll('.side .block')].find((one) => one.textContent.includes('When it is ablated'))"


@pytest.mark.slow
def test_the_page_of_a_concept_says_what_its_ablation_does(browser, folder, effects):
    browser.open(folder / "index.html", "#c=4")
    browser.until(f"return {BLOCK}")
    text = browser.js(f"return {BLOCK}.innerText")
    assert "Agreement of effects" in text and "to first order" not in text and f"{effects.agreement.value[0, 1, 0]:.2f}" in text
    assert "logit of the predicted class" in text and "40 images" in text and "Null" in text
    side = browser.js("return document.querySelector('.side').innerText")
    assert "Change of the score" in side and "Effect" in side
    browser.open(folder / "index.html", "#c=5")
    browser.until(f"return {BLOCK}")
    text = browser.js(f"return {BLOCK}.innerText")
    assert "to first order" in text and f"{effects.first_order_agreement.value[0, 1, 5]:.2f}" in text


@pytest.mark.slow
def test_a_page_without_effects_has_no_block_of_them(browser, page):
    browser.open(page.path, "#c=4")
    browser.until("return document.querySelectorAll('.same canvas').length > 3")
    assert browser.js(f"return {BLOCK} === undefined")
