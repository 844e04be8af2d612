"""A headless Chromium over the WebDriver protocol, spoken with the standard library."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1400",
)


class Browser:
    """One browser window."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self._session = ""
        self._session = "/session/" + self._call("POST", "/session", {"capabilities": capabilities})["sessionId"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("POST", "/url", {"url": url})

    def text(self) -> str:
        """What a person reads on the page now."""
        return str(self.run("return document.body.innerText"))

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def wait_for(self, *words: str, seconds: float = 60.0) -> str:
        """The page's text once it holds all of the words.

        Raises:
            TimeoutError: with what the page shows instead.
        """
        deadline = time.monotonic() + seconds
        while not all(word in self.text() for word in words):
            if time.monotonic() > deadline:
                missing = [word for word in words if word not in self.text()]
                raise TimeoutError(f"the page never showed {missing}; it shows:\n{self.text()}")
            time.sleep(0.3)
        return self.text()

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, in CSS pixels."""
        self._call("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self, path: Path) -> None:
        """Save the window as PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        """End the browser."""
        self._call("DELETE", "")

    def _call(self, method: str, path: str, body: object | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, self._session + path, None if body is None else json.dumps(body))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value


@contextmanager
def browser(driver: str, profile: Path) -> Iterator[Browser]:
    """A browser that ends with the block.

    Args:
        driver: path of chromedriver.
        profile: an empty folder for its data.
    """
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port)
        window = Browser(port, profile)
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
