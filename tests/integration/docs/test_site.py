# SPDX-License-Identifier: Apache-2.0
"""The documentation as a reader sees it: every page, on a phone and on a screen, light and dark."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from support import require

from devkit.docs import build_site

from .browser import Scheme, Site, find_browser, look, serving

ROOT = Path(__file__).parents[3]
PHONE, SCREEN = 390, 1400
SCHEMES: tuple[Scheme, ...] = ("default", "slate")

Seen = list[dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    assert build_site(ROOT, "--site-dir", str(folder)) == 0
    with serving(folder, (PHONE, SCREEN)) as site:
        yield site


@pytest.fixture(scope="module", params=SCHEMES)
def seen(request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    browser = find_browser()
    require(browser is not None, "needs a browser: apt-get install chromium")
    assert browser is not None
    return look(browser, site, request.param, tmp_path_factory.mktemp("profile"))


@pytest.mark.parametrize("added", ["[gone](gone.md)", "[gone](routing.md#gone)"])
def test_a_dead_link_fails_the_build(added: str, tmp_path: Path) -> None:
    """To a page that is not there, and to a heading that is not there."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(
        ROOT / "dev" / "devkit", tmp_path / "dev" / "devkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    assert build_site(tmp_path) == 0
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n{added}\n")
    assert build_site(tmp_path) != 0


def test_every_page_is_looked_at_on_a_phone_and_on_a_screen(site: Site, seen: Seen) -> None:
    assert len(site.paths) > 15
    looked_at = {(view["path"], view["width"]) for view in seen}
    assert looked_at == {(path, width) for path in site.paths for width in (PHONE, SCREEN)}


def test_nothing_is_wider_than_the_screen(seen: Seen) -> None:
    found = [f"{view['path']} at {view['width']}: {what}" for view in seen for what in view["too_wide"]]
    assert not found, "\n".join(found)


def test_no_word_is_cut(seen: Seen) -> None:
    """In a narrow column, a name breaks between its parts and a word not at all."""
    found = [f"{view['path']} at {view['width']}: {word}" for view in seen for word in view["cut"]]
    assert not found, "\n".join(found)


def test_no_link_is_dead(site: Site, seen: Seen) -> None:
    ids = {view["path"]: {*view["ids"]} for view in seen}
    links = {(view["path"], link) for view in seen for link in view["links"] if link.startswith(site.url)}
    assert links
    dead = [f"{page}: {link}" for page, link in sorted(links) if not _leads_somewhere(link, ids, site)]
    assert not dead, "\n".join(dead)


def _leads_somewhere(link: str, ids: dict[str, set[str]], site: Site) -> bool:
    parts = urlsplit(link)
    if parts.path not in ids:
        return parts.path in site.files
    return not parts.fragment or unquote(parts.fragment) in ids[parts.path]


def test_every_image_loads(seen: Seen) -> None:
    assert not [image for view in seen for image in view["broken_images"]]


def test_nothing_is_loaded_from_elsewhere(seen: Seen) -> None:
    assert not [url for view in seen for url in view["elsewhere"]]


def test_every_block_of_code_can_be_copied(seen: Seen) -> None:
    assert any(view["blocks"] for view in seen)
    assert not [view["path"] for view in seen if view["copy_buttons"] != view["blocks"]]


def test_pages_are_dark_where_the_reader_prefers_that(seen: Seen, request: pytest.FixtureRequest) -> None:
    (scheme,) = {view["scheme"] for view in seen}
    (background,) = {view["background"] for view in seen}
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness < 64) == (scheme == "slate")
    assert scheme == request.node.callspec.params["seen"]
