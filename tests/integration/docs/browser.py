# SPDX-License-Identifier: Apache-2.0
"""The built site in a real browser: a page that looks at all others posts what it sees to the server it came from."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, Literal

CHECK = Path(__file__).with_name("check.html")
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
)
Scheme = Literal["default", "slate"]
"""Light and dark, as the theme calls them."""

# What --blink-settings calls them.
_PREFERRED = {"slate": 0, "default": 1}


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Site(ThreadingHTTPServer):
    """Serves the pages, and waits for what the browser has to say of them."""

    def __init__(self, folder: Path, widths: tuple[int, ...]) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        pages = sorted(page.parent.relative_to(folder).as_posix() for page in folder.rglob("index.html"))
        self.paths = ["/" if page == "." else f"/{page}/" for page in pages]
        self.plan = {"paths": self.paths, "widths": widths}
        self.files = {f"/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*")}
        self.found: Queue[Any] = Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if self.path == "/plan.json":
            self._answer(json.dumps(self.server.plan).encode(), "application/json")
        elif self.path == "/check.html":
            self._answer(CHECK.read_bytes(), "text/html")
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"", "text/plain")
        self.server.found.put(json.loads(body))

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, widths: tuple[int, ...]) -> Any:
    with Site(folder, widths) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        yield site
        site.shutdown()


def look(browser: str, site: Site, scheme: Scheme, profile: Path) -> list[dict[str, Any]]:
    """Findings of a browser with this preference on every page at every width.

    :param profile: a new folder
    """
    command = [browser, *FLAGS, f"--user-data-dir={profile}"]
    command += [f"--blink-settings=preferredColorScheme={_PREFERRED[scheme]}", f"{site.url}/check.html"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = site.found.get(timeout=180)
    finally:
        process.kill()
        process.wait()
    assert isinstance(found, list), found
    return found
