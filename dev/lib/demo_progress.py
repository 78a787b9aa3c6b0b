# SPDX-License-Identifier: Apache-2.0
"""One line that shows how far something is: rewritten in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

_PLAIN_INTERVAL = 5.0  # seconds between two lines where they cannot be rewritten


class Progress:
    """Used as a context manager, so that the line is gone before anything else is printed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next_plain = self._began

    def show(self, text: str) -> None:
        now = time.monotonic()
        line = f"   {text} ({now - self._began:.0f} s)"
        if self._terminal:
            self._write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
        elif now >= self._next_plain:
            self._next_plain = now + _PLAIN_INTERVAL
            self._write(line + "\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._write("\r\033[K")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
