"""A headless Chromium, driven over a pipe with the DevTools protocol; needs no driver and no library."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import pytest

WAIT_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
)

# Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
_LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page. ``complaints`` holds its exceptions, errors and warnings; ``requests`` the URLs that it fetched."""

    def __init__(self, to_browser: IO[bytes], from_browser: BufferedReader) -> None:
        self._to = to_browser
        self._from = from_browser
        self._unread = bytearray()
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; complaints and requests that arrive meanwhile are recorded."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._to.write(json.dumps(command).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != self._number:
            self._record(answer.get("method"), answer.get("params", {}))
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, *, width: int = 1000, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of so many CSS pixels, in the light or dark colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints, self.requests = [], []
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; fail after WAIT_S seconds."""
        deadline = time.monotonic() + WAIT_S
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, self.evaluate("document.body.innerText")
            time.sleep(0.05)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Select files in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def print(self) -> bytes:
        """Print the page on A4 and return the PDF."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True, "printBackground": True}
        return base64.b64decode(self.call("Page.printToPDF", **paper)["data"])

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _record(self, event: str | None, parameters: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(
                " ".join(str(one.get("value", one.get("description"))) for one in parameters["args"])
            )
        elif event == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def _read(self) -> dict[str, Any]:
        """Return the next message, each of which ends with a zero byte."""
        while (end := self._unread.find(b"\0")) < 0:
            more = self._from.read1(1 << 20)
            assert more, "the browser closed the pipe"
            self._unread += more
        message = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return json.loads(message)


def find_browser() -> str:
    """Path of the browser. Without one the test is skipped, and fails where ``CI=true``."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = f"no browser on this machine: none of {', '.join(NAMES)} is on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Run a browser with its own profile folder; it is killed on exit."""
    program = find_browser()
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    command = [sys.executable, "-c", _LAUNCHER, str(in_read), str(out_write), program, *ARGUMENTS]
    command.append(f"--user-data-dir={profile}")
    process = subprocess.Popen(
        command, pass_fds=(in_read, out_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(in_read)
    os.close(out_write)
    try:
        with os.fdopen(in_write, "wb") as to_browser, os.fdopen(out_read, "rb") as from_browser:
            yield Browser(to_browser, from_browser)
    finally:
        process.kill()
        process.wait()
