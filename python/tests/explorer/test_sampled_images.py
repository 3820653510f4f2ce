"""An explorer of every n-th image: its images have the numbers that they have in the activations, as in Python."""

import numpy as np
import pytest

import usae
from support.explorers import GRID, MODELS, N_CONCEPTS, N_IMAGES, pictures_of, read_folder

pytestmark = pytest.mark.slow

STEP = 4


@pytest.fixture(scope="module")
def sampled(sae, acts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampled") / "page"
    return usae.explorer(sae, acts, pictures_of(), folder, grid=GRID, images=N_IMAGES // STEP, progress=False)


def test_the_files_say_which_images_there_are(sampled):
    files = read_folder(sampled.path.parent)
    assert files["index", 0]["header"]["imageStep"] == STEP
    assert sorted(files["images", 0]["numbers"]) == list(range(0, N_IMAGES, STEP))


def test_the_number_that_python_finds_is_the_images_in_the_page(browser, sampled, sae, acts):
    found = sampled.find({name: x[20].reshape(-1, N_CONCEPTS) for name, x in acts.items()}, n=1)
    number = found.images[0][0]
    assert number == 20
    browser.open(sampled.path, f"#image={number}").until("return document.querySelectorAll('.active li').length > 3")
    assert browser.text("#title") == f"image {number}" and f"Image {number} " in browser.js("return document.title")
    peaks = np.zeros(N_CONCEPTS)
    codes = sae.encode(acts["a"][number].reshape(-1, N_CONCEPTS), "a")
    np.maximum.at(peaks, codes.indices, codes.values)
    assert browser.text(".column .active a") == f"Concept {peaks.argmax()}"


def test_images_are_chosen_by_their_numbers(browser, sampled):
    browser.open(sampled.path, "#images").until("return document.querySelectorAll('.choices .tile').length === 10")
    shown = browser.js("return [...document.querySelectorAll('.choices .value')].map((x) => parseInt(x.textContent))")
    assert sorted(shown) == list(range(0, N_IMAGES, STEP))
    browser.click(".choices .tile:nth-child(3)")
    browser.until("return location.hash.startsWith('#image=8') && document.querySelector('#title').textContent === 'image 8'")
    kept = browser.js("return location.hash")
    browser.open(sampled.path, kept).until("return document.querySelector('#title')?.textContent === 'image 8'")
    browser.open(sampled.path, "#image=9").until("return document.querySelector('.choices .tile')")  # which is not there


@pytest.mark.parametrize("number", ["9", "40", "-4", "x", "1e1"])
def test_the_number_of_an_image_that_is_not_there_is_told(browser, sampled, number):
    browser.open(sampled.path, "#images").until("return document.querySelector('.choices .tile')")
    field = "document.querySelector('.images input')"
    write = f"{field}.value = arguments[0]; {field}.dispatchEvent(new Event('change')); return {field}.validationMessage"
    assert "0 to 36" in browser.js(write, number)
    assert browser.js("return location.hash").startswith("#images")
    assert browser.js(f"{field}.dispatchEvent(new Event('input')); return {field}.validationMessage") == ""
    browser.js(write, " ")
    assert browser.js("return location.hash").startswith("#images")
    browser.js(write, "12")
    browser.until("return location.hash.startsWith('#image=12')")


def test_a_concepts_page_names_images_by_their_numbers(browser, sampled):
    browser.open(sampled.path, "#c=4").until("return document.querySelectorAll('.same canvas').length > 3")
    words = browser.js("return [...document.querySelectorAll('.same td:first-child .value')].map((x) => x.textContent)")
    assert words and all(int(one.removeprefix("image ")) % STEP == 0 for one in words)
    assert any(int(one.removeprefix("image ")) >= N_IMAGES // STEP for one in words)
    numbers = browser.js("return [...document.querySelectorAll('.same a.tile')].map((x) => x.hash.match(/image=(\\d+)/)[1])")
    assert {int(one) for one in numbers} == {int(one.removeprefix("image ")) for one in words}
    assert len(MODELS) + 1 == browser.js("return document.querySelector('.same tbody tr').children.length")
