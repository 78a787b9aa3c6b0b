# SPDX-License-Identifier: Apache-2.0
"""The documentation says nothing that the code does not do, as far as that can be checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.options import OPTIONS
from airflow_dispatch_provider.settings.parse import ROUTING_KEYS
from airflow_dispatch_provider.settings.presets import CELERY_KUBERNETES, LOCAL_KUBERNETES
from airflow_dispatch_provider.settings.source import SettingsSource

from .pages import DOCS, PAGES, ROOT, name_of, prose

HYBRIDS = {"CeleryKubernetesExecutor": CELERY_KUBERNETES, "LocalKubernetesExecutor": LOCAL_KUBERNETES}
EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n+```(\w+)\n(.*?)```", re.DOTALL)
INI = re.compile(r"```ini\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


class Options:
    """``[dispatch]`` of an example."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options

    def get(self, section: str, key: str, *, fallback: Any = None) -> Any:
        return self._options.get(key, OPTIONS[key]["default"]) if section == "dispatch" else fallback


def examples() -> Iterator[Any]:
    for page in PAGES:
        for number, (kind, language, text) in enumerate(EXAMPLE.findall(page.read_text())):
            assert kind == language
            yield pytest.param(kind, text, id=f"{name_of(page)}-{number}")


def as_options(kind: str, text: str, folder: Path) -> Mapping[str, str]:
    if kind == "ini":
        return dict(_read_ini(text)["dispatch"])
    file = folder / f"dispatch.{kind}"
    file.write_text(text)
    return {"config_file": str(file)}


def _read_ini(text: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def settings_of(kind: str, text: str, folder: Path) -> Settings:
    options = as_options(kind, text, folder)
    executor = _read_ini(text).get("core", "executor", fallback="") if kind == "ini" else ""
    hybrid = next((hybrid for name, hybrid in HYBRIDS.items() if name in executor), None)
    return SettingsSource(Options(options), lambda: options, hybrid, lambda: 32).load()


@pytest.mark.parametrize(("kind", "text"), list(examples()))
def test_example_is_a_right_configuration(kind: str, text: str, tmp_path: Path) -> None:
    assert settings_of(kind, text, tmp_path).backends


@pytest.mark.parametrize(("kind", "text"), list(examples()))
def test_parallelism_of_an_example_is_enough_for_its_slots(kind: str, text: str, tmp_path: Path) -> None:
    parallelism = _read_ini(text).get("core", "parallelism", fallback=None) if kind == "ini" else None
    if parallelism is None:
        pytest.skip("says nothing of parallelism")
    assert settings_of(kind, text, tmp_path).slots_given <= int(parallelism)


def test_there_are_examples() -> None:
    assert len(list(examples())) >= 5


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_other_snippets_exist(page: Path) -> None:
    for text in INI.findall(page.read_text()):
        parser = _read_ini(text if text.startswith("[") else f"[dispatch]\n{text}")
        if parser.has_section("dispatch"):
            assert {*parser["dispatch"]} <= {*OPTIONS}


@pytest.mark.parametrize("option", [key for key in ROUTING_KEYS if OPTIONS[key]["example"]])
def test_examples_of_the_metadata_are_right(option: str) -> None:
    """Each in a configuration that has what it refers to."""
    local = {"executor": "LocalExecutor", "slots": 1}
    whole = {"backends": json.dumps({"gpu": local, "celery": local}), "default": "celery"}
    if option == "backends":
        whole["default"] = "local"
    options = {**whole, option: OPTIONS[option]["example"]}
    assert SettingsSource(Options(options), lambda: options).load()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor[1:] in _anchors(file), f"{target}{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=name_of)
def test_every_how_to_has_a_test_that_names_it(page: Path) -> None:
    tests = (ROOT / "tests").rglob("*.py")
    assert [test for test in tests if f'"{page.name}"' in test.read_text()]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_lines_of_the_source_are_short(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.startswith(("|", "<!--"))]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("diagram", sorted(DOCS.rglob("*.svg")), ids=name_of)
def test_a_diagram_is_used_and_told_in_words_and_has_dark_colours(diagram: Path) -> None:
    root = ElementTree.parse(diagram).getroot()
    assert {"title", "desc"} <= {child.tag.rpartition("}")[2] for child in root}
    assert "prefers-color-scheme: dark" in diagram.read_text()
    assert [page for page in PAGES if f"diagrams/{diagram.name}" in page.read_text()]
