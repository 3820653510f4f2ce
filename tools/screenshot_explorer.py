"""Takes README's picture of the explorer: python tools/screenshot_explorer.py demo-output/explorer.html explorer.png.

Needs Debian's chromium and chromium-driver (tools/install_browser.sh) and selenium.
"""

import pathlib
import sys
import time

from selenium import webdriver

page, picture = map(pathlib.Path, sys.argv[1:])
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,1000", "--hide-scrollbars"):
    options.add_argument(flag)
browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
try:
    browser.get(page.resolve().as_uri())
    time.sleep(4)  # until the pictures of the first rows are drawn
    browser.save_screenshot(str(picture))
finally:
    browser.quit()
