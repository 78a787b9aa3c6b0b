# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven through its debugging pipe: no driver and no port."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import require

from airflow_dispatch_provider.operate.bundle import version_of_bundle

from ..docs.browser import FLAGS, find_browser

PATIENCE = 60.0
"""Seconds for the answer to one call."""

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}
_TEXTS = {"Enter": "\r", "Space": " "}


class PageError(AssertionError):
    """The page has not become what was waited for, or a script of it has failed."""


class Page:
    """One tab."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self._process, self._reading, self._writing = process, reading, writing
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self._first: str | None = None
        self.errors: list[str] = []
        """Exceptions that no script has caught, and what scripts have called errors."""

        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Accessibility"):
            self._call(f"{domain}.enable")

    def goto(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def cookie(self, url: str, name: str, value: str) -> None:
        self._call("Network.setCookie", url=url, name=name, value=value)

    def dark(self, is_dark: bool) -> None:
        """Set the preference of the reader."""
        value = "dark" if is_dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def size(self, width: int, height: int) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def before_scripts(self, script: str | None) -> None:
        """Run in every document before its own scripts, from the next one on; None: nothing."""
        if self._first is not None:
            self._call("Page.removeScriptToEvaluateOnNewDocument", identifier=self._first)
        self._first = None
        if script is not None:
            found = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
            self._first = found["identifier"]

    def visible(self, is_visible: bool) -> None:
        """As if the tab were in front, or behind others."""
        hidden = "false" if is_visible else "true"
        self.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    def evaluate(self, script: str) -> Any:
        """The value of an expression; what it promises is awaited."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise PageError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 30.0) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.evaluate(f"!!({script})"):
                    return
            except PageError:
                pass  # between two documents
            time.sleep(0.05)
        text = self.evaluate("document.body?.innerText")
        raise PageError(f"not within {seconds:g} s: {script}\n{text}\n{self.errors}")

    def text(self) -> str:
        return str(self.evaluate("document.querySelector('.dsp').innerText"))

    def until_text(self, *words: str, seconds: float = 30.0) -> None:
        """Until our part of the page has all of these words."""
        self.until(
            f"{json.dumps(words)}.every((w) => document.querySelector('.dsp')?.innerText.includes(w))",
            seconds,
        )

    def press(self, key: str, times: int = 1) -> None:
        """One of ``KEYS``, as a keyboard sends it."""
        for _ in range(times):
            common = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            down = {"text": _TEXTS[key]} if key in _TEXTS else {}
            self._call("Input.dispatchKeyEvent", type="keyDown" if down else "rawKeyDown", **common, **down)
            self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self._call("Input.insertText", text=text)

    def focused(self) -> str:
        """The accessible name of what has the focus, as far as it is in the document."""
        script = "((e) => e.getAttribute('aria-label') ?? e.innerText ?? '')(document.activeElement)"
        return str(self.evaluate(script))

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader is told."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        ]

    def time_zone(self, name: str) -> None:
        self._call("Emulation.setTimezoneOverride", timezoneId=name)

    def picture(self, quality: int) -> bytes:
        """The visible part as WebP.

        :param quality: from 0 to 100
        """
        found = self._call("Page.captureScreenshot", format="webp", quality=quality)
        return base64.b64decode(found["data"])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details)))
        elif event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
            arguments = event["params"]["args"]
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in arguments))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._reading], [], [], PATIENCE)[0]:
                raise PageError("The browser does not answer.")
            received = os.read(self._reading, 1 << 20)
            if not received:
                raise PageError("The browser has ended.")
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browsing_the_page(profile: Path) -> Iterator[Page]:
    """See ``browsing``; needs a browser, and the page to be built."""
    browser = find_browser()
    require(browser is not None, "needs a browser: apt-get install chromium")
    require(version_of_bundle() is not None, "needs the page: ./dev/page")
    assert browser is not None
    with browsing(browser, profile) as page:
        yield page


@contextmanager
def browsing(browser: str, profile: Path) -> Iterator[Page]:
    """
    :param profile: a new folder
    """
    to_browser, writing = os.pipe()
    reading, from_browser = os.pipe()

    def connect() -> None:
        """Chromium reads from 3 and writes to 4."""
        source, sink = os.dup(to_browser), os.dup(from_browser)
        os.dup2(source, 3)
        os.dup2(sink, 4)

    command = [browser, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=connect,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(process, reading, writing)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
