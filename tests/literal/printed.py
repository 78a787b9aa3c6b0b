# SPDX-License-Identifier: Apache-2.0
"""Whether a command has printed what the page says it prints.

In the page a line ``...`` stands for any number of lines, and ``<something>`` within a line for any text, such as a
time or an id. How many blanks separate two words does not matter; every other character does.
"""

from __future__ import annotations

import re
from itertools import groupby

PLACEHOLDER = re.compile(r"<[\w -]+>")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


def is_printed(expected: str, printed: str) -> bool:
    """Whether the page's block describes the whole of what was printed."""
    pattern = "".join(_pattern(is_rest, list(lines)) for is_rest, lines in _parts(expected))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def without_escapes(printed: str) -> str:
    """A terminal's text without colours, and with line ends as in a file."""
    return ESCAPE.sub("", printed).replace("\r\n", "\n")


def _parts(expected: str) -> groupby[bool, str]:
    return groupby(_lines(expected), key=lambda line: line == "...")


def _pattern(is_rest: bool, lines: list[str]) -> str:
    return r"(?:.*\n)*" if is_rest else "".join(f"{_line_pattern(line)}\n" for line in lines)


def _line_pattern(line: str) -> str:
    return ".+".join(re.escape(part) for part in PLACEHOLDER.split(line))


def _lines(text: str) -> list[str]:
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if line]
