"""Debian's Chromium, driven by Selenium."""

import json
import shutil

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Chromium(webdriver.Chrome):
    """Does what `Firefox` does, by the same names."""

    def __init__(self, width, height):
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
        super().__init__(options=options, service=webdriver.ChromeService(DRIVER))

    def click(self, selector):
        self.find_element(By.CSS_SELECTOR, selector).click()

    def choose_file(self, selector, file):
        self.find_element(By.CSS_SELECTOR, selector).send_keys(str(file))

    def press(self, keys):
        """Press keys one after the other, wherever the focus is; all of them with Shift if that is the first."""
        chain = ActionChains(self)
        if keys.startswith(Keys.SHIFT):
            chain = chain.key_down(Keys.SHIFT).send_keys(keys[1:]).key_up(Keys.SHIFT)
        else:
            chain = chain.send_keys(keys)
        chain.perform()

    def drag(self, selector, start, end):
        """Press the mouse at one place of an element, move it to another, and let it go. Places are shares of its size."""
        element = self.find_element(By.CSS_SELECTOR, selector)
        size = element.size
        (x, y), (to_x, to_y) = [((a - 0.5) * size["width"], (b - 0.5) * size["height"]) for a, b in (start, end)]
        chain = ActionChains(self).move_to_element_with_offset(element, round(x), round(y)).click_and_hold()
        chain.move_by_offset(round(to_x - x), round(to_y - y)).release().perform()

    def show_as(self, width, height, zoom=1):
        """Show the page as in a window of this size in its own pixels, each of which is `zoom` of the screen's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": zoom, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def show_as_it_is(self):
        self.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def keep_downloads_in(self, folder):
        self.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})

    def logs(self):
        """(console errors, addresses of requests beyond files, data and blobs) since the last call."""
        console = [line["message"] for line in self.get_log("browser") if line["level"] == "SEVERE"]
        messages = [json.loads(line["message"])["message"] for line in self.get_log("performance")]
        requests = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:", "chrome"))]
        return console, outside
