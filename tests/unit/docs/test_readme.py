# SPDX-License-Identifier: Apache-2.0
"""The README is read on an index and in the wheel's metadata, too, where relative links lead nowhere."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from literal.page import steps_of
from literal.project import project_url

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
PROJECT_URL = project_url()
OUTSIDE = ("http://localhost:8080",)
TARGETS = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"|<(https?:[^>]+)>", README)
LINKS = sorted({link for groups in TARGETS for link in groups if link} - {*OUTSIDE})
NUMBER = re.compile(r"[\d.,]*\d")
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
IN_CHECKOUT = re.compile(rf"{re.escape(PROJECT_URL)}/(?:blob|raw)/main/([^#]+)(?:#(.*))?")


def test_there_are_links() -> None:
    assert len(LINKS) > 5


@pytest.mark.parametrize("link", LINKS)
def test_every_link_is_absolute_and_leads_to_a_file_of_the_checkout(link: str) -> None:
    found = IN_CHECKOUT.fullmatch(link)
    assert found, f"not below {PROJECT_URL}"
    file = ROOT / found[1]
    assert file.is_file()
    if found[2]:
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        assert found[2] in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_what_is_cloned_is_the_project() -> None:
    for page in ("README.md", "docs/quickstart.md"):
        cloned = re.findall(r"git clone (.+)", (ROOT / page).read_text())
        # The folder is named: without that, a path in place of the address would name another one.
        assert cloned == [f"{PROJECT_URL} airflow-dispatch-provider"]


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_block_says_what_a_reader_does_with_it(page: str) -> None:
    verbs = [step.verb for step in steps_of(ROOT / page)]
    assert verbs.count("run") >= 5
    assert verbs.count("output") >= 2
    assert verbs.count("not run") <= 2


def test_figures_are_those_of_the_page_about_performance() -> None:
    """All three of a row stand in one row there."""
    table = README.partition("## Figures")[2].partition("\n\nThe last row")[0]
    rows = [line.split("|")[2:5] for line in table.splitlines() if re.match(r"\| \**\w", line)]
    assert len(rows) == 7
    there = [set(NUMBER.findall(line)) for line in PERFORMANCE.splitlines()]
    for row in rows:
        figures = set(NUMBER.findall("|".join(row)))
        assert any(figures <= figures_there for figures_there in there), row


def test_pictures_are_legible_in_light_and_dark() -> None:
    """Each is well-formed, has a title and a description, and a paper of its own in both."""
    names = [name for name in LINKS if name.endswith(".svg")]
    assert names
    for name in names:
        text = (ROOT / IN_CHECKOUT.fullmatch(name)[1]).read_text()  # type: ignore[index]
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
        assert {"title", "desc", "style"} <= tags
        light, _, dark = text.partition("prefers-color-scheme: dark")
        assert ".paper" in light
        assert ".paper" in dark
