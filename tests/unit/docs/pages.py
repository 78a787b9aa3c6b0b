# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation, and what they quote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_QUOTE = re.compile(r"`([^`]+)`\s+at\s+(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


class Quote(NamedTuple):
    """A log line as a page quotes it: `text` at LEVEL."""

    text: str
    level: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def quotes(text: str) -> Iterator[Quote]:
    for line, level in _QUOTE.findall(text):
        yield Quote(" ".join(line.split()), level)


def sections(text: str) -> dict[str, str]:
    """The text under each heading of the second or third level, by heading."""
    parts = re.split(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
