# SPDX-License-Identifier: Apache-2.0
"""One line that shows how far something is: rewritten in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time

from devkit.environment import say

_PLAIN_INTERVAL = 5.0  # seconds between two lines where they cannot be rewritten
_TERMINAL_INTERVAL = 0.5


class Progress:
    """Used as a context manager, so that the line is gone before anything else is printed.

    A thread of its own draws, so that the seconds go on where nothing new is known.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._text = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def show(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._terminal:
            say("\r\033[K", end="")

    def _draw(self) -> None:
        while not self._done.wait(_TERMINAL_INTERVAL if self._terminal else _PLAIN_INTERVAL):
            line = f"   {self._text} ({time.monotonic() - self._began:.0f} s)"
            if self._terminal:
                say("\r\033[K" + line[: shutil.get_terminal_size().columns - 1], end="")
            else:
                say(line)
