"""A real browser without a window, driven by Chrome's DevTools protocol over a pipe.

The protocol is JSON messages that end in a zero byte: commands go to the browser's file descriptor
3, answers and events come from its descriptor 4. No network and no other package is needed.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)
SECONDS = 60.0  # that an answer may take


def installed():
    """The browser's program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a browser. What its console says and what fails to load is kept in `troubles`."""

    def __init__(self, program, profile):
        to_browser, commands = os.pipe()
        answers, from_browser = os.pipe()

        def place():  # the browser looks for these two numbers
            high = [os.dup2(fd, fd + 100) for fd in (to_browser, from_browser)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._commands, self._answers, self._held = commands, answers, b""
        self._number, self._session, self.troubles, self._events = 0, None, [], []
        targets = self("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Sends a command and gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        wanted = self._number
        while (found := self._next()).get("id") != wanted:
            self._note(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        return found["result"]

    def close(self):
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self("Browser.close")
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def open(self, path):
        """Opens a file and waits until it is loaded."""
        self._events.clear()
        self("Page.navigate", url=Path(path).resolve().as_uri())
        end = time.monotonic() + SECONDS
        while "Page.loadEventFired" not in self._events:
            assert time.monotonic() < end, f"{path} did not load"
            self._note(self._next())

    def screen(self, width, height, dark=False):
        """Sets the size of the window in CSS pixels, and the colour scheme that people prefer."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", media="", features=[scheme])

    def run(self, script):
        """The value of an expression of JavaScript; of a promise, what it gives."""
        found = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def press(self, key):
        """Presses a key once."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"text": "\r" if key == "Enter" else key} if key != "Tab" else {}
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                **(text if kind == "keyDown" else {}),
            )

    def picture(self, path, full=False):
        """Writes what is seen as PNG; all of the page if it is `full`."""
        found = self("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def _next(self):
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._answers], [], [], SECONDS)
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._held += part
        message, _, self._held = self._held.partition(b"\0")
        return json.loads(message)

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.troubles.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.troubles.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(params["entry"]["text"])
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.troubles.append(params["errorText"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "about:", "data:", "blob:")):
                self.troubles.append(f"asks the network for {url}")


@contextlib.contextmanager
def opened():
    """A browser with a profile of its own, which is removed in the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(installed(), profile)
        try:
            yield browser
        finally:
            browser.close()
