"""A real browser that a test drives: keys, clicks, scripts, screenshots; Chromium's own protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.browser import CHROMIUM, QUIET

KEYS = {
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "Escape": 27,
    "Enter": 13,
}
SHIFT = 8


class Browser:
    """One Chromium with any number of pages."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.waiting, self.number = to, os.fdopen(back, "rb", buffering=0), b"", 0

    def page(self, url: str, width: int = 1200, height: int = 800) -> Page:
        """A new page at an address, whose script has begun."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.call("Page.enable")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        page.go(url)
        return page

    def call(self, method: str, session: str = "", **values: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.waiting:
                part = self.back.read(2**20)
                assert part, "the browser ended"
                self.waiting += part
            content, _, self.waiting = self.waiting.partition(b"\0")
            answer = json.loads(content)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **values)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState == 'complete'")

    def value(self, script: str) -> Any:
        """What an expression is in the page; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 30) -> None:
        """Wait for an expression that holds."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < end, (
                f"{script}: not in {seconds} s; {self.value('document.body.innerText')[:500]}"
            )
            time.sleep(0.05)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Keys as a person presses them, one after another."""
        for key in keys:
            code = KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
            values = {"key": key, "windowsVirtualKeyCode": code, "modifiers": SHIFT if shift else 0}
            text = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **values, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self, out: Path, dark: bool = False) -> Path:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return out


@contextlib.contextmanager
def driven_browser() -> Iterator[Browser]:
    """Ends with the block."""
    assert CHROMIUM
    theirs, ours = os.pipe()
    back, answers = os.pipe()
    quiet = [word for word in QUIET if "virtual-time" not in word]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [CHROMIUM, *quiet, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        script = f'exec "$@" 3<&{theirs} 4>&{answers}'
        started = subprocess.Popen(
            ["bash", "-c", script, "bash", *words], pass_fds=(theirs, answers), stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(answers)
        browser = Browser(ours, back)
        try:
            yield browser
        finally:
            with contextlib.suppress(OSError, AssertionError):
                browser.call("Browser.close")
            started.terminate()
            started.wait(20)
            os.close(ours)
            browser.back.close()
