"""What a newcomer finds by mouse: boxes above the list at any width, models, the map's colour; and addresses with them."""

import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, MODELS, N_CONCEPTS, made_up, pictures_of

pytestmark = pytest.mark.slow

READY = "return document.querySelectorAll('.row').length > 0"


@pytest.mark.parametrize("width", [320, 360, 750, 1400])
def test_boxes_above_the_list_open_in_the_window(browser, page, width):
    with browser.shown_as(width):
        browser.open(page.path).until(READY)
        for i in range(3):
            browser.js("document.querySelectorAll('.looks-box summary')[arguments[0]].click()", i)
            assert browser.count(".looks-box .looks") == 1  # the one before is closed
            left, right = browser.js(
                "const { left, right } = document.querySelectorAll('.looks-box .looks')[arguments[0]].getBoundingClientRect();"
                "return [left, right]",
                i,
            )
            assert 0 <= left < right <= width


def test_models_are_hidden_and_shown_by_mouse(browser, page):
    browser.open(page.path).until(READY)
    browser.click("#show-models summary")
    browser.click("#show-models .chip:nth-child(2)")
    assert "hidden=1" in browser.js("return location.hash") and browser.count(".head .model") == 2
    assert browser.text("#show-models summary") == "2 of 3 models" and browser.violations() == []
    kept = browser.js("return location.hash")
    browser.click("#show-models .chip:nth-child(1)")
    browser.click("#show-models .chip:nth-child(3)")  # one stays
    assert browser.count(".head .model") == 1
    pressed = "return [...document.querySelectorAll('#show-models .chip')].map((x) => [x.ariaPressed, x.ariaDisabled])"
    assert browser.js(pressed) == [["false", "false"], ["false", "false"], ["true", "true"]]
    browser.open(page.path, kept).until(READY)
    assert browser.count(".head .model") == 2
    browser.click("#show-models summary")
    browser.click("#show-models .chip:nth-child(2)")
    assert "hidden" not in browser.js("return location.hash") and browser.count(".head .model") == 3


def test_the_tenth_model_is_hidden_too(browser, tmp_path):
    names = tuple(f"model {i}" for i in range(12))
    sae = identity_sae(9, names, k=3)
    page = usae.explorer(sae, made_up(12, 9, names), pictures_of(12), tmp_path / "page", grid=GRID, progress=False)
    browser.open(page.path).until(READY)
    browser.click("#show-models summary")
    browser.click("#show-models .chip:nth-child(11)")
    assert "hidden=10" in browser.js("return location.hash")
    browser.open(page.path, "#c=4&hidden=10").until("return document.querySelector('.same')")
    assert browser.js("return document.querySelectorAll('.same thead th').length") == 12  # with that of the picture


def test_one_model_cannot_be_hidden(browser, tmp_path):
    sae = identity_sae(9, ("only",), k=3)
    page = usae.explorer(sae, made_up(12, 9, ("only",)), None, tmp_path / "page", grid=GRID, progress=False)
    browser.open(page.path).until(READY)
    assert browser.count("#show-models") == 0


def test_the_address_keeps_the_colour_of_the_map(browser, page):
    ready = "return document.querySelector('.map-frame canvas')?.width > 100"
    browser.open(page.path, "#map").until(ready)
    box = "document.querySelector('.map select')"
    browser.js(f"{box}.value = 'max:1'; {box}.dispatchEvent(new Event('change'))")
    kept = browser.js("return location.hash")
    browser.open(page.path, kept).until(ready)
    assert browser.js(f"return {box}.value") == "max:1"
    browser.open(page.path, "#map&colour=nothing").until(ready)
    assert browser.js(f"return {box}.value") == "entropy"


def test_a_concept_that_an_address_names_twice_is_listed_once(browser, page):
    browser.open(page.path, f"#list&only=5,3,5,3,{N_CONCEPTS},3").until(READY)
    assert browser.text("#count").startswith("2 of") and browser.count(".row") == 2


def test_the_overview_breaks_no_names_where_there_is_room(browser, tmp_path):
    names = ("efficientnet", "mobilenet", "text detector")
    sae = identity_sae(N_CONCEPTS, names, k=3)
    page = usae.explorer(sae, made_up(models=names), None, tmp_path / "page", grid=GRID, progress=False)
    browser.open(page.path, "#overview").until("return document.querySelectorAll('.card').length > 4")
    lines = browser.js(
        "return [...document.querySelectorAll('.card .matrix .model span')].map((x) => {"
        " const range = document.createRange(); range.selectNodeContents(x);"
        " return [x.textContent, new Set([...range.getClientRects()].map((one) => one.top)).size,"
        "  x.scrollWidth > x.clientWidth];"
        "})"
    )
    assert len(lines) == 4 * len(MODELS)
    assert [name for name, n, cut in lines if cut or n > len(name.split())] == []
