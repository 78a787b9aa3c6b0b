# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from literal.printed import is_printed, without_escapes


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("one\ntwo\n", "one\n\ntwo\n", True),
        ("a | b", "a     |   b  \n", True),
        ("one\n", "one\ntwo\n", False),
        ("one\ntwo\n", "one\n", False),
        ("one\n...\n", "one\ntwo\nthree\n", True),
        ("one\n...\n", "one\n", True),
        ("...\nlast\n", "first\nlast\n", True),
        ("...\nlast\n", "first\nlast\nmore\n", False),
        ("ran at <time>\n", "ran at 10:00 today\n", True),
        ("ran at <time>\n", "ran at\n", False),
        ("ran at <time>, well\n", "ran at 10:00, badly\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_what_is_printed_is_what_the_page_says(expected: str, printed: str, matches: bool) -> None:
    assert is_printed(expected, printed) is matches


def test_colours_do_not_count() -> None:
    assert without_escapes("\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07next") == "red\nnext"
