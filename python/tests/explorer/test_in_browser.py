"""The page in a real browser, from a folder on disk: every view by mouse and by keys, without a network."""

import base64
import json
import shutil

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.browser import BROWSERS, Page, driver_or_skip
from support.explorers import GRID, HOSTILE, MODELS, N_CONCEPTS, REPEATED, TITLE, made_up, pictures_of
from support.maximizations import found

pytestmark = pytest.mark.slow

ENTER, ESCAPE, ARROW_RIGHT, SHIFT, TAB = "\ue007", "\ue00c", "\ue014", "\ue008", "\ue004"
READY = "return document.querySelectorAll('.row').length > 0"
VIEWS = {
    "list": READY,
    "c=4": "return document.querySelectorAll('.same canvas').length > 3",
    "c=4&show=own": "return document.querySelectorAll('.column .tiles canvas').length > 3",
    "c=4&show=bands": "return document.querySelectorAll('.bands figure').length === 12",
    "c=4&show=apart": "return document.querySelectorAll('.same canvas').length > 3",
    "c=23": "return document.querySelector('.empty')",
    "images": "return document.querySelectorAll('.choices .tile').length > 9",
    "image=3": "return document.querySelectorAll('.active li').length > 3",
    "image=3&patch=5": "return document.querySelectorAll('.active li').length > 0",
    "map": "return document.querySelector('.map-frame canvas')?.width > 100",
    "overview": "return document.querySelectorAll('.card').length > 4",
}
HIDDEN_TITLE = "return document.title !== 'hacked'"


@pytest.fixture(scope="module", params=BROWSERS)
def driver(request):
    driver = driver_or_skip(request.param)
    yield driver
    driver.quit()


@pytest.fixture
def browser(browser):
    yield browser
    assert browser.js(HIDDEN_TITLE)


@pytest.fixture(scope="module")
def one_file(sae, acts, tmp_path_factory):
    return usae.explorer(
        sae, acts, pictures_of(), tmp_path_factory.mktemp("one") / "all", one_file=True, grid=GRID, progress=False
    )


@pytest.fixture(scope="module")
def rich(sae, acts, tmp_path_factory):
    """An explorer with all that can be given: controls, measures, names that embeddings propose, and images that were made."""
    peaks = np.stack([x.reshape(len(x), -1, N_CONCEPTS).max(1) for x in acts.values()]).mean(0)
    return usae.explorer(
        sae,
        acts,
        pictures_of(),
        tmp_path_factory.mktemp("rich") / "page",
        grid=GRID,
        controls=usae.controls(sae, acts, train=made_up(seed=1), include=("tokens", "agreement"), progress=False),
        measures={"<b>ablation": np.arange(N_CONCEPTS) / 7, "of each": np.arange(3 * N_CONCEPTS).reshape(3, -1)},
        embeddings=peaks,
        vocabulary={f"<i>word {i}": word for i, word in enumerate(np.eye(N_CONCEPTS))},
        maximizations=[found(4, MODELS, (True, True, False))],
        progress=False,
    )


def state(browser):
    return browser.js("return location.hash")


def concepts(browser):
    """Numbers of the rows in sight, in their order."""
    return browser.js(
        "return [...document.querySelectorAll('.row')].map((x) => [Number(x.ariaRowIndex ?? x.getAttribute('aria-rowindex')),"
        " Number(x.querySelector('[data-star]').dataset.star)]).sort((a, b) => a[0] - b[0]).map((x) => x[1])"
    )


@pytest.mark.parametrize("address", VIEWS)
def test_every_view_opens_at_its_address_and_can_be_read_by_all(browser, page, address):
    browser.open(page.path, f"#{address}").until(VIEWS[address])
    assert browser.violations() == []
    browser.js("document.documentElement.dataset.theme = 'dark'")
    browser.until("return document.getAnimations().length === 0")
    assert [one for one in browser.violations() if one[0] == "color-contrast"] == []


@pytest.mark.parametrize("width", [360, 750, 1900])
def test_no_view_is_wider_than_the_window(browser, page, width):
    with browser.shown_as(width):
        for address, ready in VIEWS.items():
            browser.open(page.path, f"#{address}").until(ready)
            assert_fits(browser, width, address)


@pytest.mark.parametrize("zoom", [2, 4])
def test_every_view_can_be_used_when_it_is_enlarged(browser, page, zoom):
    width = 1280 // zoom  # of the page's pixels, in a window of 1280 x 1024
    with browser.shown_as(width, 1024 // zoom, zoom):
        for address, ready in VIEWS.items():
            browser.open(page.path, f"#{address}").until(ready)
            assert browser.js("return [innerWidth, devicePixelRatio]") == [width, zoom]
            assert_fits(browser, width, address)
            if zoom == 2:
                assert browser.violations() == []
        browser.open(page.path).until(READY)
        assert browser.js(CUT, ".row .title, .row .sub, .row .strip", ".row") == 0
        browser.press("f")
        browser.until("return document.activeElement.closest('.panel')")
        browser.press(ESCAPE)
        browser.until("return !document.activeElement.closest('.panel')")


def assert_fits(browser, width, address):
    assert browser.js("return document.documentElement.scrollWidth") <= width, address
    if browser.js("return innerHeight > 560"):  # else the page scrolls
        assert browser.js("return document.documentElement.scrollHeight - innerHeight") <= 0, address
    wide = browser.js(
        "return [...document.querySelectorAll('.view:not([hidden])')].filter((x) => x.scrollWidth > x.clientWidth + 1)"
        ".map((x) => x.className)"
    )
    assert wide == [], address


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """An explorer of a dozen models with long names."""
    names = tuple(f"a long name of model {i}, as people give, with a slash/and more" for i in range(12))
    sae = identity_sae(N_CONCEPTS, names, k=3)
    folder = tmp_path_factory.mktemp("crowded") / "page"
    return usae.explorer(sae, made_up(models=names), pictures_of(), folder, grid=GRID, progress=False)


CUT = """return [...document.querySelectorAll(arguments[0])].filter((x) => x.checkVisibility()).filter((x) => {
  const [own, row] = [x.getBoundingClientRect(), x.closest(arguments[1]).getBoundingClientRect()];
  return own.left < row.left - 1 || own.right > row.right + 1 || own.bottom > row.bottom + 1;
}).length"""


@pytest.mark.parametrize("width", [360, 1100, 1500])
def test_a_dozen_models_with_long_names_fit(browser, crowded, width):
    with browser.shown_as(width):
        browser.open(crowded.path, "").until(READY)
        assert browser.count(".row .strip canvas") >= 12
        assert browser.js(CUT, ".row .strip canvas, .row .firing span:last-child", ".strip") == 0
        assert browser.js(CUT, ".row .strip", ".row") == 0
        browser.open(crowded.path, "#c=4").until(VIEWS["c=4"])
        widths = browser.js("return [...document.querySelectorAll('.same thead th')].map((x) => x.offsetWidth)")
        assert max(widths) < 200
        browser.open(crowded.path, "#c=4&show=own").until(VIEWS["c=4&show=own"])
        assert browser.js(CUT, ".column canvas", ".column") == 0
        browser.open(crowded.path, "#image=3&patch=5").until(VIEWS["image=3&patch=5"])
        assert browser.js(CUT, ".active li > *", "li") == 0
        browser.open(crowded.path, "#overview").until(VIEWS["overview"])
        table = "document.querySelector('.cards section:nth-child(3) .scrolls')"
        assert browser.js(f"return {table}.scrollWidth - {table}.clientWidth") <= (80 if width == 360 else 0)


BROKEN = """const lines = ({ firstChild: text }, word) => {
  const range = document.createRange();
  range.setStart(text, word.index);
  range.setEnd(text, word.index + word[0].length);
  return range.getClientRects().length;
};
return [...document.querySelectorAll('.head .words')].flatMap((words) => [...words.textContent.matchAll(/\\S+/g)].filter(
  (word) => lines(words, word) > 1).map(([word]) => word));"""


@pytest.mark.parametrize("width", [1100, 1400])
def test_no_word_of_a_head_is_broken(browser, tmp_path, width):
    names = ("efficientnet", "mobilenet", "dinov2_large")
    sae = identity_sae(N_CONCEPTS, names, k=3)
    page = usae.explorer(sae, made_up(models=names), pictures_of(), tmp_path / "page", grid=GRID, progress=False)
    with browser.shown_as(width):
        for sort in ("energy:0", "max:2", "entropy"):
            browser.open(page.path, f"#list&sort={sort}&columns=max:0,energy:2").until(READY)
            assert browser.js(BROKEN) == []


GREY = """const canvas = document.querySelector('.map-frame canvas');
const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
let n = 0;
for (let i = 0; i < data.length; i += 4) {
  const [red, green, blue, alpha] = data.slice(i, i + 4);
  n += alpha > 128 && red > 96 && red < 160 && Math.abs(red - green) + Math.abs(red - blue) < 24;
}
return n;"""


def test_points_of_the_map_have_an_edge_on_any_ground(browser, page):
    browser.open(page.path, "#map").until(VIEWS["map"])
    assert browser.js(GREY) > 10 * N_CONCEPTS


def test_names_of_three_models_fit_where_there_is_room(browser, page):
    with browser.shown_as(1100):
        browser.open(page.path, "").until(READY)
        assert browser.js("return document.querySelectorAll('.head > div')[1].clientWidth") >= 110


def test_hostile_titles_and_labels_stay_text(browser, page):
    browser.open(page.path).until(READY)
    assert browser.text("#brand") == TITLE
    for concept, label in HOSTILE.items():
        browser.js("location.hash = arguments[0]", f"#c={concept}")
        browser.until("return document.querySelector('#title')?.textContent === arguments[0]", label)
        assert browser.count("img[src='x']") == 0


def test_the_list_sorts_filters_and_searches(browser, page, sae, acts):
    evaluation = sae.evaluate(acts)
    browser.open(page.path, "#list&sort=energy:1").until(READY)
    expected = sorted(range(N_CONCEPTS), key=lambda c: -evaluation.energy[1, c])
    assert concepts(browser)[:5] == expected[:5]
    browser.click("#direction")
    assert concepts(browser)[:3] == expected[::-1][:3] and "sort=^energy:1" in state(browser)
    browser.open(page.path, "#list&iou=0.2..&sort=id").until(READY)
    chosen = [c for c in range(N_CONCEPTS) if evaluation.cofire_iou[c] >= 0.2]
    assert browser.text("#count").startswith(f"{len(chosen)} of") and concepts(browser)[0] == chosen[-1]
    browser.click("#clear")
    assert browser.text("#count").startswith(f"{N_CONCEPTS} of")
    browser.click("#search")
    browser.press("brown fur")
    browser.until("return document.querySelector('#count').textContent.startsWith('1 of')")
    assert concepts(browser) == [4]
    browser.press(" nothing")
    browser.until("return document.querySelector('.none .empty')")


def test_presets_and_sets_select(browser, page, sae, acts):
    browser.open(page.path).until(READY)
    universal = int(sae.evaluate(acts).universal().sum())
    browser.click(".panel .chip")
    assert browser.text("#count").startswith(f"{universal} of") and "universal=1.." in state(browser)
    browser.click(".panel .chip")
    assert browser.text("#count").startswith(f"{N_CONCEPTS} of")
    browser.click(".sets [data-set='alive']")
    assert browser.text("#count").startswith(f"{N_CONCEPTS - 1} of")  # all but the one that never fires
    browser.click(".sets [data-set='dead']")
    assert browser.text("#count").startswith("1 of") and "dead=0" in state(browser) and "alive" not in state(browser)
    browser.open(page.path, state(browser)).until(READY)
    assert concepts(browser) == [N_CONCEPTS - 1] and browser.js("return document.querySelector('[data-set=dead]').checked")


def test_every_preset_of_the_page_selects_what_it_says(browser, page, sae, acts):
    evaluation = sae.evaluate(acts)
    share = evaluation.firing_counts / np.maximum(evaluation.firing_counts.sum(0), 1)
    correlation = np.stack([evaluation.correlation[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]).min(0)
    expected = {f"Private to {name}": (share[i] >= 0.9).sum() for i, name in enumerate(MODELS)} | {
        "Universal": evaluation.universal().sum(),
        "Co-fires, uncorrelated": ((evaluation.cofire_iou >= 0.15) & (correlation <= 0.4)).sum(),
    }
    browser.open(page.path).until(READY)
    names = browser.js("return [...document.querySelectorAll('.panel .chips')[0].children].map((x) => x.textContent)")
    assert {*expected, "Above its null", "Models disagree"} <= set(names)
    for name, number in expected.items():
        browser.js(
            "[...document.querySelectorAll('.panel .chip')].find((x) => x.textContent === arguments[0]).click()",
            name,
        )
        assert browser.text("#count").startswith(f"{number} of"), name


@pytest.mark.parametrize("width", [360, 1400])
def test_any_measure_is_a_column_a_filter_and_an_order(browser, page, sae, acts, width):
    evaluation = sae.evaluate(acts)
    with browser.shown_as(width):
        browser.open(page.path).until(READY)
        keys = browser.js("return [...document.querySelectorAll('#sort option')].map((x) => x.value).slice(2)")
        assert len(keys) > 25
        for select in ("Add a column", "Add a filter"):
            offered = "return [...document.querySelectorAll(`select[aria-label='${arguments[0]}'] option`)].map((x) => x.value)"
            assert browser.js(offered, select)[1:] == keys
        for key in keys:
            browser.js("location.hash = `#list&columns=${arguments[0]}&sort=${arguments[0]}`", key)
            browser.until("return document.querySelector('#sort').value === arguments[0]", key)
            browser.js("location.hash = `#list&${arguments[0]}=-1e9..1e9`", key)
            browser.until("return document.querySelector(`.range[data-key='${arguments[0]}']`)", key)
        browser.open(page.path, "#list&sort=^id&columns=cofires,max:1,area:2").until(READY)
        text = browser.text(".row")
        assert all(f"{value:,}" in text.replace("\n", " ") for value in (evaluation.cofire_counts[0],))
        assert f"{evaluation.max_activation[1, 0]:.2f}" in text
        browser.click("#show-columns summary")
        browser.click("#show-columns .chip")
        browser.until("return location.hash.includes('columns=max:1,area:2')")


def test_everything_can_be_done_by_keys_alone(browser, page):
    browser.open(page.path, "#list&sort=^id").until(READY)
    browser.press("j", "j", "s")
    assert browser.js("return document.querySelector('.row [data-star=\"2\"]').ariaPressed") == "true"
    browser.press(ENTER)
    browser.until("return document.querySelector('.same')")
    assert state(browser).startswith("#c=2")
    browser.press("l", "seen by keys", ENTER)
    assert browser.text("#title") == "seen by keys"
    browser.press("v")
    browser.until("return location.hash.includes('show=bands') && document.activeElement.id === 'title'")
    browser.press("j")
    browser.until("return location.hash.startsWith('#c=3')")
    browser.press(ESCAPE)
    browser.until("return location.hash.startsWith('#list')")
    browser.press("2")
    assert "hidden=1" in state(browser) and browser.count(".head .model") == len(MODELS) - 1
    browser.press("2", "/", "seen by", ENTER, ENTER)
    browser.until("return location.hash.startsWith('#c=2')")
    browser.press("m")
    browser.until("return location.hash.startsWith('#map')")
    browser.js("document.querySelector('.map-frame canvas').focus()")
    browser.press(ARROW_RIGHT, ENTER)
    browser.until("return location.hash.startsWith('#c=')")
    browser.press("i")
    browser.until("return document.querySelector('.choices .tile')")
    browser.press("o")
    browser.until("return document.querySelector('.facts')")
    browser.press("?")
    assert browser.js("return document.querySelector('#help').open")
    browser.press(ESCAPE)
    assert not browser.js("return document.querySelector('#help').open")
    browser.js("localStorage.clear()")


def test_selections_are_made_and_looked_through_by_keys(browser, page):
    browser.open(page.path).until(READY)
    browser.press("f", ENTER)
    browser.until("return location.hash.includes('universal=1..')")
    chosen = concepts(browser)
    browser.press(ESCAPE)
    assert browser.js("return document.activeElement.matches('.row')")
    browser.press("j", ENTER)
    browser.until("return location.hash.startsWith(arguments[0])", f"#c={chosen[1]}")
    browser.press("j")
    browser.until("return location.hash.startsWith(arguments[0])", f"#c={chosen[2]}")
    browser.press(ESCAPE)
    browser.until("return location.hash.startsWith('#list') && location.hash.includes('universal')")
    browser.press("f", TAB, ENTER)
    browser.until("return location.hash.includes('share:0=0.9..')")
    browser.press(ESCAPE, "f")
    browser.js("document.querySelector('[data-set=dead]').focus()")
    browser.press(" ")
    browser.until("return location.hash.includes('dead=0')")


def test_back_goes_where_one_came_from_and_the_address_restores_it(browser, page):
    browser.open(page.path, "#list&sort=iou&entropy=0.5..").until(READY)
    first = concepts(browser)[0]
    browser.click(".row .title")
    browser.until("return location.hash.startsWith('#c=')")
    kept = state(browser)
    browser.click(".same a.tile")
    browser.until("return location.hash.startsWith('#image=')")
    browser.driver.back()
    browser.until("return location.hash === arguments[0]", kept)
    browser.driver.back()
    browser.until("return location.hash.startsWith('#list')")
    assert "sort=iou" in state(browser) and concepts(browser)[0] == first
    browser.open(page.path, kept).until("return document.querySelector('.same')")
    browser.click("#back")
    assert "entropy=0.5.." in state(browser)


def test_a_box_on_the_map_lists_its_concepts_by_mouse_and_by_keys(browser, page):
    browser.open(page.path, "#map").until(VIEWS["map"])
    browser.drag(".map-frame canvas", (0.01, 0.01), (0.99, 0.99))
    browser.until("return location.hash.startsWith('#list&only=')")
    assert browser.text("#count").startswith(f"{N_CONCEPTS} of")
    browser.open(page.path, "#map").until(VIEWS["map"])
    browser.js("document.querySelector('.map-frame canvas').focus()")
    browser.press(ARROW_RIGHT)
    for _ in range(4):
        browser.driver.press(SHIFT + ARROW_RIGHT)
    browser.press(ENTER)
    browser.until("return location.hash.startsWith('#list&only=')")
    assert 2 <= len(concepts(browser)) < N_CONCEPTS
    browser.open(page.path, "#map").until(VIEWS["map"])
    browser.js("document.querySelector('.map-frame canvas').focus()")
    browser.press(ARROW_RIGHT, SHIFT + ARROW_RIGHT, ESCAPE, ENTER)
    browser.until("return location.hash.startsWith('#c=')")


def test_an_image_and_a_patch_are_chosen_by_keys(browser, page):
    browser.open(page.path, "#images").until(VIEWS["images"])
    browser.press(ARROW_RIGHT, ARROW_RIGHT, ARROW_RIGHT, ENTER)
    browser.until("return location.hash.startsWith('#image=2')")
    browser.until("return document.activeElement.id === 'title'")
    browser.press(TAB)
    assert browser.js("return document.activeElement.className") == "big"
    browser.press(ARROW_RIGHT, ARROW_RIGHT)
    browser.until("return location.hash.includes('patch=1')")
    browser.press(TAB)
    for _ in range(12):  # past the switches of heat maps
        if browser.js("return document.activeElement.matches('.active a')"):
            break
        browser.press(TAB)
    browser.press(ENTER)
    browser.until("return location.hash.startsWith('#c=')")


def test_an_image_and_a_patch_are_chosen_by_mouse(browser, page):
    browser.open(page.path).until(READY)
    browser.click("#tabs [data-view='images']")
    browser.until(VIEWS["images"])
    browser.click(".choices .tile:nth-child(4)")
    browser.until("return document.querySelector('.big')")
    browser.click(".big")
    browser.until("return location.hash.includes('patch=')")
    browser.click(".active a")
    browser.until("return document.querySelector('.same')")
    browser.click(".segmented [data-value='apart']")
    browser.until("return location.hash.includes('show=apart') && document.activeElement.dataset.value === 'apart'")
    browser.click(".neighbours a")
    browser.until("return !location.hash.includes('show=apart') || document.querySelector('.same')")
    browser.click("#tabs [data-view='map']")
    browser.until(VIEWS["map"])
    browser.click("#tabs [data-view='overview']")
    browser.until(VIEWS["overview"])


def test_patches_of_an_image_list_their_concepts(browser, page, sae, acts):
    browser.open(page.path, "#image=3&patch=5").until(VIEWS["image=3&patch=5"])
    codes = sae.encode(acts["a"].reshape(-1, N_CONCEPTS)[3 * 12 + 5][None], "a")
    strongest = int(codes.indices[0, 0])
    assert browser.js("return document.querySelector('.column .active a').textContent") == HOSTILE.get(
        strongest, f"Concept {strongest}"
    )


def test_images_that_were_made_are_shown(browser, rich):
    browser.open(rich.path, "#c=4&show=made").until("return document.querySelectorAll('.made img').length === 2")
    browser.until("return [...document.querySelectorAll('.made img')].every((x) => x.complete && x.naturalWidth === 24)")
    assert "0.50 times the largest code" in browser.text(".made")
    assert browser.count(".column .empty") == 1 and browser.violations() == []
    browser.open(rich.path, "#c=5&show=made").until(VIEWS["c=4"])  # which has none
    assert browser.count("[data-value='made']") == 0


def test_names_that_embeddings_propose_are_marked_searched_and_taken_by_a_click(browser, rich):
    browser.open(rich.path, "#list&sort=^id").until(READY)
    proposed = browser.text(".row .sub").removeprefix("perhaps ")
    assert proposed.startswith("<i>word ")
    browser.click("#search")
    browser.press(proposed)
    browser.until("return !document.querySelector('#count').textContent.startsWith('24 of')")
    browser.open(rich.path, "#c=0").until(VIEWS["c=4"])
    assert browser.text("#title") == "Concept 0"  # a proposal is no label
    chip = browser.text(".label-form .chip")
    assert chip.startswith(proposed) and float(chip.split()[-1].replace("\N{MINUS SIGN}", "-")) <= 1
    browser.click(".label-form .chip")
    browser.until("return document.querySelector('#title').textContent === arguments[0]", proposed)
    browser.js("localStorage.clear()")


def test_agreement_stands_beside_its_ceiling_and_nulls(browser, rich):
    browser.open(rich.path, "#overview").until(VIEWS["overview"])
    text = browser.text(".cards")
    assert "Its ceiling" in text and "tokens permuted" in text and browser.count(".matrix") == 3
    assert len(browser.js("return document.querySelector('.pairs').innerText.match(/[0-9a-f]{64}/)[0]")) == 64
    assert browser.violations() == []
    browser.open(rich.path, "#list&columns=ofCeiling,z,given:0&sort=given:0").until(READY)
    head = browser.text(".head")
    assert "<b>ablation" in head and "Agreement / ceiling" in head.replace("\n", " ")
    assert concepts(browser)[0] == N_CONCEPTS - 1
    browser.js("[...document.querySelectorAll('.panel .chip')].find((x) => x.textContent === 'Above its null').click()")
    assert "z=3.." in state(browser)


def test_labels_survive_reload_export_and_import(browser, page, tmp_path):
    browser.driver.keep_downloads_in(tmp_path)
    browser.open(page.path, "#c=7").until(VIEWS["c=4"])
    text = 'a "quoted", <b>label</b>\N{SNAKE} =cmd()'
    browser.js("const x = document.querySelector('#label'); x.value = arguments[0]; x.dispatchEvent(new Event('change'))", text)
    browser.click(".heading .star")
    browser.open(page.path, "#c=7").until("return document.querySelector('#title')?.textContent === arguments[0]", text)
    browser.open(page.path).until(READY)
    for button, name in (("#export-json", "labels.json"), ("#export-csv", "labels.csv")):
        browser.click(button)
        file = tmp_path / name
        for _ in range(100):
            if file.exists() and file.stat().st_size:
                break
            browser.js("return new Promise((done) => setTimeout(done, 50))")
        labels = usae.read_labels(file)
        assert labels[7] == (text, True) and labels.starred == [7]
        assert {c: label.text for c, label in labels.items() if c != 7} == {c: x.strip() for c, x in HOSTILE.items()}
    browser.js("localStorage.clear()")
    for name in ("labels.json", "labels.csv"):
        browser.open(page.path, "#c=7").until(VIEWS["c=4"])
        assert browser.text("#title") == "Concept 7"
        browser.open(page.path).until(READY)
        browser.driver.choose_file("#importer", tmp_path / name)
        browser.until("return document.querySelector('#said').textContent.includes('imported')")
        browser.open(page.path, "#c=7").until("return document.querySelector('#title')?.textContent === arguments[0]", text)
        browser.js("localStorage.clear()")


def test_labels_of_another_autoencoder_and_no_labels_are_refused(browser, page, tmp_path):
    browser.open(page.path).until(READY)
    other = {
        "format": "usae-explorer-labels",
        "version": 1,
        "tensors": "0" * 64,
        "labels": {"1": {"text": "x", "starred": False}},
    }
    (tmp_path / "other.json").write_text(json.dumps(other))
    (tmp_path / "none.json").write_text("{}")
    for name in ("other.json", "none.json"):
        browser.driver.choose_file("#importer", tmp_path / name)
        browser.until("return document.querySelector('#notice').textContent.includes(arguments[0])", name)
    assert not browser.js("return Object.keys(localStorage).some((key) => key.match(/[0-9a-f]{64}/))")


@pytest.mark.parametrize("repeated", REPEATED)
def test_a_file_that_names_a_concept_twice_is_refused_whole(browser, page, tmp_path, repeated):
    browser.open(page.path).until(READY)
    (tmp_path / "twice.txt").write_text(repeated)
    browser.driver.choose_file("#importer", tmp_path / "twice.txt")
    browser.until("return document.querySelector('#notice').textContent.includes('twice.txt')")
    assert not browser.js("return Object.keys(localStorage).some((key) => key.match(/[0-9a-f]{64}/))")


def test_an_imported_label_replaces_ones_own(browser, page, tmp_path):
    browser.open(page.path, "#c=4").until(VIEWS["c=4"])
    browser.js("const x = document.querySelector('#label'); x.value = 'mine'; x.dispatchEvent(new Event('change'))")
    assert browser.text("#title") == "mine"
    text = f"\ufeffconcept,label,starred\r\n4,{HOSTILE[4]},0\r\n\r\n9,,1\r\n"  # the first one is what came with the page
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    browser.driver.choose_file("#importer", tmp_path / "labels.csv")
    browser.until("return document.querySelector('#title').textContent === arguments[0]", HOSTILE[4])
    browser.open(page.path, "#list&set=starred").until(READY)
    assert concepts(browser) == [9]
    browser.js("localStorage.clear()")


def test_long_labels_of_any_characters_survive_export_and_import(browser, sae, acts, tmp_path):
    longest = {1: "🦊" * 20_000, 2: "毛" * 20_000, 3: 'one\rtwo\r\nthree, "four",', 4: "="}
    page = usae.explorer(sae, acts, None, tmp_path / "page", grid=GRID, labels=longest, progress=False)
    browser.driver.keep_downloads_in(tmp_path)
    browser.open(page.path, "#c=7").until(VIEWS["c=4"])
    write = "const x = document.querySelector('#label'); x.value = arguments[0]; x.dispatchEvent(new Event('change'))"
    browser.js(write, "x" + "🦊" * 20_000)  # which is one too long
    expected = longest | {7: "x" + "🦊" * 19_999}
    browser.open(page.path).until(READY)
    for button, name in (("#export-json", "labels.json"), ("#export-csv", "labels.csv")):
        browser.click(button)
        for _ in range(100):
            if (tmp_path / name).exists() and (tmp_path / name).stat().st_size:
                break
            browser.js("return new Promise((done) => setTimeout(done, 50))")
        assert {c: label.text for c, label in usae.read_labels(tmp_path / name).items()} == expected
    for name in ("labels.json", "labels.csv"):
        browser.js("localStorage.clear()")
        browser.open(page.path).until(READY)
        browser.driver.choose_file("#importer", tmp_path / name)
        browser.until("return document.querySelector('#said').textContent.includes('5 labels imported')")
    browser.js("localStorage.clear()")


@pytest.mark.parametrize(
    "text", ["concept,label,starred\r7,x,1\r", "concept,label,starred\n7,x,1", "concept,label,starred\n7,x,"]
)
def test_the_page_and_python_take_the_same_lines_of_csv(browser, page, tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8", newline="")
    browser.open(page.path).until(READY)
    browser.driver.choose_file("#importer", file)
    try:
        assert usae.read_labels(file)[7] == ("x", True)
    except usae.CheckpointError:
        browser.until("return document.querySelector('#notice').textContent.includes('labels.csv')")
    else:
        browser.until("return document.querySelector('#said').textContent.includes('1 label imported')")
    browser.js("localStorage.clear()")


@pytest.mark.parametrize("address", ["list", "c=4", "image=3", "overview", "map"])
def test_one_file_shows_the_same(browser, one_file, address):
    browser.open(one_file.path, f"#{address}").until(VIEWS[address])


def test_the_page_works_in_the_frame_of_a_notebook(browser, one_file, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>n</title>{one_file.show(600, at='c=4')._repr_html_()}", encoding="utf-8")
    browser.open(notebook)
    inside = "const frame = document.querySelector('iframe').contentDocument;"
    browser.until(f"{inside} return frame.querySelectorAll('.same canvas').length > 3")
    browser.js(f"{inside} frame.querySelector('#back').click()")
    browser.until(f"{inside} return frame.querySelector('.row')?.checkVisibility()")


def test_the_server_serves_the_page_and_nothing_else(browser, page, capsys):
    import urllib.error
    import urllib.request

    (page.path.parent / "secret.txt").write_text("secret")
    with page.serve() as server:
        assert server.address in capsys.readouterr().out
        browser.driver.get(server.address)
        browser.until(READY)
        console, requests = browser.logs()
        assert console == [] and all(url.startswith(server.address) for url in requests)
        for path in ("secret.txt", "data/../secret.txt", "..%2f..", "data/"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(server.address + path)
    (page.path.parent / "secret.txt").unlink()


@pytest.mark.parametrize(
    ("file", "damage", "address"),
    [
        ("index.js", None, "list"),
        ("index.js", lambda text: text[: len(text) // 2], "list"),
        ("concepts-0000.js", None, "c=4"),
        ("concepts-0000.js", lambda text: text[: len(text) // 2], "c=4"),
        ("concepts-0000.js", lambda text: text.replace("H4sI", "AAAA"), "c=4"),
        ("concepts-0000.js", lambda text: flipped(text), "c=4"),
        ("concepts-0000.js", lambda text: text.replace(',0,"', ',0,"00', 1), "c=4"),
        ("images-0000.js", None, "image=3"),
        ("images-0000.js", lambda text: text.replace("UklGR", "AAAAA"), "list"),
        ("images-0000.js", lambda text: text.replace("UklGR", "*?*?*"), "image=3"),
        ("strip.js", None, "list"),
    ],
)
def test_damaged_files_are_told_in_the_page(driver, page, tmp_path, file, damage, address):
    browser = Page(driver)
    shutil.copytree(page.path.parent, tmp_path / "copy")
    place = tmp_path / "copy" / "data" / file
    if damage is None:
        place.unlink()
    else:
        place.write_text(damage(place.read_text()))
    browser.open(tmp_path / "copy" / "index.html", f"#{address}")
    browser.until("return document.querySelector('#notice').textContent.includes(arguments[0])", f"data/{file}")
    browser.logs()  # the browser's own line of a file that is missing


def flipped(text):
    """Text of a data file with one byte of its gzipped data changed."""
    start = text.index("H4sI")
    end = text.index('"', start)
    data = bytearray(base64.b64decode(text[start:end]))
    data[len(data) // 2] ^= 1
    return text[:start] + base64.b64encode(data).decode() + text[end:]


@pytest.mark.parametrize("kind", ["one model", "no grid", "no pictures", "one image", "never fires", "odd grid", "five models"])
def test_odd_explorers_open(browser, tmp_path, kind):
    from support.autoencoders import identity_sae

    models, grid, n = ("only",) if kind == "one model" else MODELS, GRID, 12
    if kind == "five models":
        models = ("a", "b", "c", "d", "a very long name of a model that goes on and on")
    n = 1 if kind == "one image" else n
    grid = (3, 5) if kind == "odd grid" else (1, 1) if kind == "no grid" else grid
    acts = made_up(n, 9, models, grid)
    if kind == "never fires":
        acts = {name: -abs(x) - 1 for name, x in acts.items()}
    if kind == "no grid":
        acts, grid = {name: x[:, 0] for name, x in acts.items()}, None
    pictures = None if kind == "no pictures" else pictures_of(n)
    page = usae.explorer(identity_sae(9, models, k=3), acts, pictures, tmp_path / "page", grid=grid, progress=False)
    ready = {
        "list": READY,
        "c=4": "return document.querySelector('.concept-body .side')",
        "c=4&show=own": "return document.querySelector('.concept-body .side')",
        "image=0": "return document.querySelector('.image-concepts .active, .image-concepts .empty')",
        "images": "return document.querySelector('.choices .tile')",
        "map": VIEWS["map"],
        "overview": VIEWS["overview"],
    }
    for address, there in ready.items():
        browser.open(page.path, f"#{address}").until(there)
        assert not browser.count("#notice")
