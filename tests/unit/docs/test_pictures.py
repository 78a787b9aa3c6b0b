# SPDX-License-Identifier: Apache-2.0
"""The pictures of the page in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pictures import MOST_BYTES, PICTURES, ROOT, digest, taken_of

SHOWN_IN = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
_IMAGE = re.compile(
    r"!\[([^]]*)\]\(([^)]*pictures/[^)]+)\)" r"|<img\s+alt=\"([^\"]*)\"[^>]*src=\"([^\"]*pictures/[^\"]+)\""
)


def images() -> list[tuple[str, str]]:
    """Alternative text and file name of every picture that a page shows."""
    found = [groups for page in SHOWN_IN for groups in _IMAGE.findall(page.read_text())]
    return [
        (groups[0] or groups[2], Path((groups[1] or groups[3]).partition("#")[0].strip()).name)
        for groups in found
    ]


def test_they_are_of_the_present_page() -> None:
    """Whoever changes the page takes them anew."""
    assert taken_of() == digest(), (
        "ui/ has changed: DISPATCH_PICTURES=docs/pictures ./dev/test tests/integration/operate/test_pictures.py"
    )


def test_another_page_has_another_digest(tmp_path: Path) -> None:
    """With other words in a source."""
    source = tmp_path / "ui" / "src" / "main.tsx"
    source.parent.mkdir(parents=True)
    found = set()
    for words in ("one", "other"):
        source.write_text(words)
        found.add(digest(tmp_path))
    assert len(found) == 2


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.webp")), ids=lambda path: path.stem)
def test_every_picture_is_small_and_shown(picture: Path) -> None:
    """On a page, with words for those who do not see it."""
    assert picture.stat().st_size <= MOST_BYTES
    texts = [text for text, name in images() if name == picture.name]
    assert texts
    assert all(len(text) > 20 for text in texts)
