"""An explorer in a folder, which tests do not change, and a browser."""

import pytest

import usae
from support.autoencoders import identity_sae
from support.browser import Page, driver_or_skip
from support.explorers import GRID, HOSTILE, MODELS, N_CONCEPTS, TITLE, made_up, pictures_of


@pytest.fixture(scope="session")
def sae():
    return identity_sae(N_CONCEPTS, MODELS, k=3)


@pytest.fixture(scope="session")
def acts():
    return made_up()


@pytest.fixture(scope="session")
def page(sae, acts, tmp_path_factory):
    """An explorer in a folder, with hostile labels."""
    folder = tmp_path_factory.mktemp("explorer") / "page"
    return usae.explorer(sae, acts, pictures_of(), folder, grid=GRID, labels=HOSTILE, title=TITLE, progress=False)


@pytest.fixture(scope="module")
def driver():
    driver = driver_or_skip()
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver):
    """A browser whose pages log no error and ask for nothing from a network."""
    driver.set_window_size(1400, 900)
    browser = Page(driver)
    yield browser
    assert browser.logs() == ([], [])
