# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from literal.page import PageError, Step, steps_of


def page(folder: Path, text: str) -> Path:
    file = folder / "page.md"
    file.write_text(text)
    return file


def test_a_block_without_a_comment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"page.md:3: no comment"):
        steps_of(page(tmp_path, "Text\n\n```\nls\n```\n"))


def test_a_comment_counts_for_one_block_only(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"page.md:5: no comment"):
        steps_of(page(tmp_path, "<!-- run -->\n```\nls\n```\n```\nls\n```\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- run -->\nText\n```\nls\n```\n", "page.md:2: no block follows <!-- run -->"),
        ("<!-- run -->\n", "page.md:1: no block follows"),
        ("<!-- not run -->\n```\nls\n```\n", "page.md:2: <!-- not run --> needs a colon and more"),
        ("<!-- file: -->\n```\nls\n```\n", "<!-- file --> needs a colon"),
        ("<!-- run: later -->\n```\nls\n```\n", "says neither `terminal N` nor `until TEXT`"),
        ("<!-- run -->\n```\nls\n", "page.md:2: the block is never closed"),
    ],
)
def test_a_comment_that_cannot_be_followed_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        steps_of(page(tmp_path, text))


def test_steps_come_in_order_with_their_lines(tmp_path: Path) -> None:
    text = (
        "<!-- run: terminal 2; until it is ready -->\n```sh\nairflow standalone\n```\n"
        "<!-- wait: test -e x -->\n\n1. In a list:\n\n   <!-- output -->\n   ```\n   a\n     b\n   ```\n"
        "<!-- other comments -->\n<!-- not run: a fragment -->\n\n````\n```\n````\n"
    )
    run, wait, output, fragment = steps_of(page(tmp_path, text))
    assert (run.verb, run.terminal, run.until) == ("run", 2, "it is ready")
    assert wait == Step("page.md:5", "wait", "test -e x", "test -e x")
    assert output == Step("page.md:10", "output", "a\n  b\n")
    assert fragment == Step("page.md:17", "not run", "```\n", "a fragment")
