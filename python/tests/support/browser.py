"""A page in a real browser without a network, Debian's Chromium or Firefox, and what is to be said of it."""

import contextlib
import importlib.resources
import pathlib
import shutil

import pytest

BROWSERS = ("chromium", "firefox")


def driver_or_skip(name="chromium", width=1400, height=900):
    """Return a `Chromium` or a `Firefox`; skip the test where it is missing."""
    if name == "firefox":
        from support.firefox import FIREFOX, Firefox

        if not FIREFOX:
            pytest.skip("there is no Firefox: apt-get install firefox-esr")
        return Firefox(width, height)
    pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("there is no chromium with chromedriver: apt-get install chromium chromium-driver")
    from support.chromium import Chromium

    return Chromium(width, height)


class Page:
    """A page in a browser. `js` runs a function body in it and returns its value."""

    def __init__(self, driver):
        self.driver = driver
        self.click, self.drag, self.logs = driver.click, driver.drag, driver.logs

    def open(self, page, address=""):
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(f"{page if '://' in str(page) else pathlib.Path(page).as_uri()}{address}")
        return self

    def js(self, body, *arguments):
        return self.driver.execute_script(body, *arguments)

    def until(self, body, *arguments, seconds=30):
        """Wait until the function body returns something true, and return that."""
        self.driver.set_script_timeout(seconds + 10)
        found = self.driver.execute_async_script(  # without eval, which the page forbids
            f"const test = function () {{ {body} }}; const [given, seconds, done] = arguments;"
            "const from = performance.now(); const attempt = () => { try { return test(...given); } catch { return null; } };"
            "const look = () => { const value = attempt(); if (value) done([value instanceof Node ? true : value]);"
            " else if (performance.now() - from > 1000 * seconds) done(null); else setTimeout(look, 20); }; look();",
            list(arguments),
            seconds,
        )
        if found is None:
            raise AssertionError(f"never true: {body}\n{self.text()[:500]}\n{self.logs()[0]}")
        return found[0]

    def text(self, selector="body"):
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def count(self, selector):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].filter((x) => x.checkVisibility()).length", selector
        )

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        for key in keys:
            self.driver.press(key)

    @contextlib.contextmanager
    def shown_as(self, width, height=800, zoom=1):
        """Show pages as in a window of this size, enlarged by `zoom`."""
        self.driver.show_as(width, height, zoom)
        try:
            yield
        finally:
            self.driver.show_as_it_is()

    def violations(self):
        """What axe finds against WCAG 2.2 AA: [rule, element] pairs."""
        axe = pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed")
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(importlib.resources.as_file(importlib.resources.files(axe)))
            source = next(pathlib.Path(folder).rglob("axe.min.js")).read_text(encoding="utf-8")
        self.js(source)
        self.driver.set_script_timeout(60)
        found = self.driver.execute_async_script(
            "const done = arguments[0]; const known = new Set(axe.getRules().flatMap((rule) => rule.tags));"
            "const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'].filter((tag) => known.has(tag));"
            "axe.run({runOnly: {type: 'tag', values: tags}}).then(done, (error) => done({error: String(error)}));"
        )
        assert "violations" in found, found
        return [[one["id"], node["html"][:200]] for one in found["violations"] for node in one["nodes"]]
