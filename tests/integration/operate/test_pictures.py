# SPDX-License-Identifier: Apache-2.0
"""The pictures of the page for the documentation: ``DISPATCH_PICTURES=docs/pictures ./dev/test
tests/integration/operate/test_pictures.py`` writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from picture_answers import AT, PASTED, RUN
from pictures import MOST_BYTES, ROOT, stamp

from .chromium import Page, browsing_the_page
from .conftest import Server, serving

pytestmark = [pytest.mark.integration("sqlite"), pytest.mark.recent]

FROZEN = f"""
const Real = Date;
window.Date = class extends Real {{
    constructor(...given) {{ given.length ? super(...given) : super({AT.timestamp() * 1000:.0f}); }}
    static now() {{ return {AT.timestamp() * 1000:.0f}; }}
}};
"""
"""Run in the page before its own scripts: it is always the same moment."""

WIDTH, QUALITY = 1180, 75


def button(name: str, page: Page) -> None:
    page.evaluate(f"document.querySelector('.dsp [aria-label=\"{name}\"]').click()")


def paste(page: Page) -> None:
    page.evaluate("document.querySelector('.dsp textarea').select()")
    page.type(PASTED)
    page.evaluate("document.querySelector('.dsp textarea').form.requestSubmit()")
    page.until_text("of the first")
    page.evaluate("document.activeElement.blur()")


class Picture(NamedTuple):
    """One picture, and how to come to it."""

    name: str
    view: str
    height: int
    words: tuple[str, ...]
    """On it in the end."""

    do: Callable[[Page], None] = lambda page: None
    is_dark: bool = False


TRAIN = f"task&dag_id=churn_model&run_id={RUN.replace('+', '%2B')}&task_id=train&map_index=4"
BACKENDS = ("spot.example.com", "new disks", "scheduler-2.example.com", "is now 30")

SHOWN = [
    Picture("backends", "backends", 900, BACKENDS),
    Picture("backends-dark", "backends", 900, BACKENDS, is_dark=True),
    Picture("drain", "backends", 900, ("38 tasks wait for it",), partial(button, "Drain gpu")),
    Picture("waiting", "waiting", 860, ("42 tasks wait", "churn_model")),
    Picture("task", TRAIN, 600, ("Place 4 for gpu",)),
    Picture("try", "try", 980, ("routes[0]",), paste),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing_the_page(tmp_path_factory.mktemp("profile")) as page:
        page.time_zone("UTC")
        page.before_scripts(FROZEN)
        yield page


@pytest.fixture(scope="module")
def shown(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shown")
    database = Path(shutil.copy(database_url.removeprefix("sqlite:///"), folder))
    env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}"}
    with serving(folder, env, held="pictures") as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures are to be."""
    wanted = os.environ.get("DISPATCH_PICTURES")
    found = ROOT / wanted if wanted else tmp_path_factory.mktemp("pictures")
    found.mkdir(exist_ok=True)
    return found


@pytest.mark.parametrize("picture", SHOWN, ids=[each.name for each in SHOWN])
def test_every_picture_can_be_taken(tab: Page, shown: Server, folder: Path, picture: Picture) -> None:
    """It shows what it is there for, and is small enough for git."""
    tab.errors.clear()
    tab.size(WIDTH, picture.height)
    tab.dark(picture.is_dark)
    tab.cookie(shown.url, "_token", shown.token("operator"))
    tab.goto(f"{shown.url}/plugin/dispatch?view={picture.view}")
    tab.until_text("Dispatch", "Pause updates", "As of 9:30:00")
    tab.until("!document.querySelector('.dsp').innerText.includes('Loading')")
    tab.until("document.querySelector('.dsp').children.length > 2")
    tab.until("document.readyState === 'complete'")
    picture.do(tab)
    tab.until_text(*picture.words)
    taken = tab.picture(QUALITY)
    assert len(taken) <= MOST_BYTES
    assert tab.errors == []
    (folder / f"{picture.name}.webp").write_bytes(taken)


def test_it_is_noted_what_they_were_taken_of(folder: Path) -> None:
    """Once all of them are there."""
    assert {path.stem for path in folder.glob("*.webp")} == {picture.name for picture in SHOWN}
    stamp(folder)
