"""Debian's Chromium with Selenium, without a network, and what it says of a page."""

import contextlib
import importlib.resources
import json
import pathlib
import shutil

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def driver_or_skip(width=1400, height=900):
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("there is no chromium with chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root cannot use
        "--force-prefers-reduced-motion",  # so that no colour is measured while it changes
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


class Page:
    """A page in a browser. `js` runs a function body in it and returns its value."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, address=""):
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(f"{page if '://' in str(page) else pathlib.Path(page).as_uri()}{address}")
        return self

    def js(self, body, *arguments):
        return self.driver.execute_script(body, *arguments)

    def until(self, body, *arguments, seconds=20):
        """Wait until the function body returns something true, and return that."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: self.js(body, *arguments))
        except TimeoutException:
            raise AssertionError(f"never true: {body}\n{self.text()[:500]}\n{self.logs()[0]}") from None

    def text(self, selector="body"):
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def count(self, selector):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].filter((x) => x.checkVisibility()).length", selector
        )

    def click(self, selector):
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def logs(self):
        """(console errors, addresses of requests beyond files, data and blobs) since the last call."""
        console = [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        requests = []
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requests.append(message["params"]["request"]["url"])
        outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:", "chrome"))]
        return console, outside

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
