"""Firefox, driven through Marionette, which is in it: Debian has no geckodriver, with which Selenium would do it.

A message is JSON with its length before it: [0, number, command, arguments], answered by [1, number, error, result]. Commands
are those of WebDriver. In the context "chrome" a script runs in the browser itself, and not in the page.
"""

import base64
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
SHIFT = "\ue008"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PREFERENCES = {
    "marionette.port": 0,  # a free one
    "network.proxy.type": 1,  # nothing is to be had from a network
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1, localhost",
    "ui.prefersReducedMotion": 1,
    "browser.download.folderList": 2,
    "browser.download.useDownloadDir": True,
    "browser.download.alwaysOpenPanel": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "remote.prefs.recommended": True,
}
WATCH = """
globalThis.requestsOfPages = [];
Services.obs.addObserver({observe(subject) {
  const channel = subject.QueryInterface(Ci.nsIHttpChannel);
  if (channel.loadInfo.browsingContextID || channel.loadInfo.workerAssociatedBrowsingContextID)
    globalThis.requestsOfPages.push(channel.URI.spec);
}}, "http-on-opening-request");
"""
TAKE = """
const lines = Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError && !(one.flags &
  Ci.nsIScriptError.warningFlag) && /^(content|CSP|Content Security Policy)/i.test(one.category)).map((one) => one.message);
Services.console.reset();
return [lines, globalThis.requestsOfPages.splice(0)];
"""


class Failure(Exception):
    """What the browser says of a command."""


class Firefox:
    """Does what `Chromium` does, by the same names."""

    def __init__(self, width, height):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="usae-firefox-"))
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
        (self._folder / "user.js").write_text("\n".join(lines))
        command = [
            FIREFOX,
            "--headless",
            "--no-remote",
            "--marionette",
            "--remote-allow-system-access",
            "--profile",
            str(self._folder),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._number = 0
        try:
            self._stream = self._connected().makefile("rwb")
            self._read()  # what it is
            self._do("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": False}})
            self.set_window_size(width, height)
            self._in_browser(WATCH)
        except BaseException:
            self.quit()
            raise

    def _connected(self, seconds=60):
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, ValueError):
                port = int((self._folder / "MarionetteActivePort").read_text())
                connection = socket.create_connection(("127.0.0.1", port), timeout=seconds)
                connection.settimeout(180)
                return connection
            if time.monotonic() > until or self._process.poll() is not None:
                raise Failure("Firefox does not start")
            time.sleep(0.1)

    def _read(self):
        length = b""
        while (one := self._stream.read(1)) != b":":
            if not one:
                raise Failure("Firefox has ended")
            length += one
        return json.loads(self._stream.read(int(length)))

    def _do(self, command, **arguments):
        self._number += 1
        message = json.dumps([0, self._number, command, arguments]).encode()
        self._stream.write(str(len(message)).encode() + b":" + message)
        self._stream.flush()
        _, _, error, result = self._read()
        if error:
            raise Failure(f"{command}: {error['error']}: {error['message']}")
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def _in_browser(self, script, *arguments):
        self._do("Marionette:SetContext", value="chrome")
        try:
            return self._do("WebDriver:ExecuteScript", script=script, args=list(arguments), sandbox="system", newSandbox=False)
        finally:
            self._do("Marionette:SetContext", value="content")

    def get(self, address):
        self._do("WebDriver:Navigate", url=address)

    def back(self):
        self._do("WebDriver:Back")

    def execute_script(self, script, *arguments):
        return self._do("WebDriver:ExecuteScript", script=script, args=list(arguments))

    def execute_async_script(self, script, *arguments):
        return self._do("WebDriver:ExecuteAsyncScript", script=script, args=list(arguments))

    def set_script_timeout(self, seconds):
        self._do("WebDriver:SetTimeouts", script=int(seconds * 1000))

    def set_window_size(self, width, height):
        self._do("WebDriver:SetWindowRect", width=width, height=height)

    def save_screenshot(self, path):
        pathlib.Path(path).write_bytes(base64.b64decode(self._do("WebDriver:TakeScreenshot", full=False)))

    def click(self, selector):
        self._do("WebDriver:ElementClick", id=self._element(selector))

    def choose_file(self, selector, file):
        self._do("WebDriver:ElementSendKeys", id=self._element(selector), text=str(file))

    def _element(self, selector):
        return self._do("WebDriver:FindElement", using="css selector", value=selector)[ELEMENT]

    def press(self, keys):
        """Press keys one after the other, wherever the focus is; all of them with Shift if that is the first."""
        shift, keys = keys[: keys.startswith(SHIFT)], keys.removeprefix(SHIFT)
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        if shift:
            strokes = [{"type": "keyDown", "value": SHIFT}, *strokes, {"type": "keyUp", "value": SHIFT}]
        self._do("WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": strokes}])
        self._do("WebDriver:ReleaseActions")

    def drag(self, selector, start, end):
        """Press the mouse at one place of an element, move it to another, and let it go. Places are shares of its size."""
        box = self.execute_script(
            "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return [r.left, r.top, r.width, r.height]",
            selector,
        )
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(box[0] + x * box[2]), "y": round(box[1] + y * box[3])}
            for x, y in (start, end)
        ]
        strokes = [moves[0], {"type": "pointerDown", "button": 0}, moves[1], {"type": "pointerUp", "button": 0}]
        self._do("WebDriver:PerformActions", actions=[{"type": "pointer", "id": "mouse", "actions": strokes}])
        self._do("WebDriver:ReleaseActions")

    def show_as(self, width, height, zoom=1):
        """Show the page as in a window of this size in its own pixels, each of which is `zoom` of the screen's."""
        self._in_browser("Services.prefs.setStringPref('layout.css.devPixelsPerPx', arguments[0])", f"{zoom:.1f}")
        self.set_window_size(max(700, width + 100), height + 200)
        self._limit(f"{width}px", f"{height}px")

    def show_as_it_is(self):
        self._in_browser("Services.prefs.clearUserPref('layout.css.devPixelsPerPx')")
        self._limit("", "")

    def _limit(self, width, height):
        """No window is as narrow as a page can be."""
        style = "Object.assign(gBrowser.selectedBrowser.style, {maxWidth: arguments[0], maxHeight: arguments[1]})"
        self._in_browser(style, width, height)

    def keep_downloads_in(self, folder):
        self._in_browser("Services.prefs.setStringPref('browser.download.dir', arguments[0])", str(folder))

    def logs(self):
        """(console errors, addresses of requests to a network) of pages since the last call."""
        return tuple(self._in_browser(TAKE))

    def quit(self):
        with contextlib.suppress(Exception):
            self._do("Marionette:Quit", flags=["eForceQuit"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
