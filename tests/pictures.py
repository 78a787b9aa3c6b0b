# SPDX-License-Identifier: Apache-2.0
"""The pictures of the page in docs/pictures, and whether they are of the present page."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
STAMP = "taken_of.json"
"""Tells of which page and data they were taken."""

MOST_BYTES = 60_000

_SOURCES = (
    "ui/src/**/*",
    "tests/picture_answers.py",
    "tests/integration/operate/test_pictures.py",
)


def digest(root: Path = ROOT) -> str:
    """Changes with the page, with the deployment that is shown, and with what is done to show it."""
    files = sorted(path for pattern in _SOURCES for path in root.glob(pattern) if path.is_file())
    found = sha256()
    for path in files:
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def stamp(pictures: Path) -> None:
    """Note what these were taken of."""
    (pictures / STAMP).write_text(json.dumps({"sources": digest()}) + "\n")


def taken_of(pictures: Path = PICTURES) -> str:
    """The digest of what they were taken of."""
    found: str = json.loads((pictures / STAMP).read_text())["sources"]
    return found
