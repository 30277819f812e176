"""A headless Chromium that a test drives over its debugging pipe, which needs no driver and no library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S = 60.0


class Browser:
    """One page of a browser.

    Attributes:
        errors: what the console said as an error, and exceptions that nobody caught, since the page was last left.
    """

    def __init__(self, write: int, read: int) -> None:
        self.errors: list[str] = []
        self._write, self._read = write, read
        self._rest = b""
        self._number = 0
        self._loaded = False
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session: str | None = None
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", {})

    def cookie(self, url: str, name: str, value: str) -> None:
        """Set a cookie."""
        self._call("Network.setCookie", {"url": url, "name": name, "value": value})

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the window's size in CSS pixels, and whether the system is dark."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self._call(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )

    def open(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self.errors.clear()
        self._loaded = False
        self._call("Page.navigate", {"url": url})
        self.until(lambda: self._loaded, f"{url} is loaded")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self._call(
            "Runtime.evaluate",
            {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True},
        )
        if "exceptionDetails" in found:
            raise AssertionError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression when it has become true."""
        return self.until(lambda: self.run(script), script)

    def until(self, asked: Any, what: str) -> Any:
        """What is asked, when it has become true."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = asked()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}; the console said {self.errors}")
            time.sleep(0.05)
            self._call(
                "Runtime.evaluate", {"expression": "1"}
            )  # takes what the browser has to tell meanwhile

    def click(self, selector: str) -> None:
        """Click on the first element of a selector, as a person does: it must be there and have a size."""
        at = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width * r.height]; })()"
        )
        assert at, f"there is no {selector}"
        assert at[2] > 0, f"{selector} has no size"
        for kind in ("mousePressed", "mouseReleased"):
            self._call(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1},
            )

    def type(self, selector: str, text: str) -> None:
        """Type a text into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", {"text": text})

    def press(self, key: str) -> None:
        """Press a key, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                {
                    "type": kind,
                    "key": key,
                    "code": key,
                    "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}[key],
                },
            )

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Write what is to be seen as a PNG: the whole page, or what fits the window."""
        content = self._call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content["data"]))

    def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", None):
            asked["sessionId"] = self._session
        os.write(self._write, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                if "error" in told:
                    raise AssertionError(f"{method}: {told['error']}")
                return dict(told["result"])
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise AssertionError("the browser has ended")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(
                str(params["exceptionDetails"].get("exception", params["exceptionDetails"]))[:500]
            )
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(
                " ".join(str(a.get("value", a.get("description"))) for a in params["args"])[:500]
            )
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}"[:500])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in a folder; ended at the end."""
    assert PROGRAM is not None
    there, here = os.pipe(), os.pipe()

    def pipes() -> None:
        # Over numbers that cannot be 3 or 4 by chance.
        first, second = os.dup(there[0]), os.dup(here[1])
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [
            PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
            "--hide-scrollbars", "--no-proxy-server", "--remote-debugging-pipe", f"--user-data-dir={folder}",
        ],
        preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(there[0])
    os.close(here[1])
    try:
        yield Browser(there[1], here[0])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(there[1])
        os.close(here[0])
