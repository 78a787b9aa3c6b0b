# SPDX-License-Identifier: Apache-2.0
"""Log lines, reasons and events in the documentation are those that the code writes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dispatch_provider.bridge import event_log
from airflow_dispatch_provider.bridge.backend_conf import unread_options
from airflow_dispatch_provider.dispatch.clerk import API, DATABASE
from airflow_dispatch_provider.lifecycle.events import WAITS_START
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.routing.reasons import Reason

from .log_lines import LogLine, assigned, log_lines, told_by_the_life_cycle
from .pages import DOCS, PAGES, Quote, name_of, prose, quotes, sections

TROUBLESHOOTING = DOCS / "troubleshooting.md"
LINES = [line for line in log_lines() if not line.passes_on]
PASSED_ON = {
    "engines/celery/result_watcher.py": assigned("engines/celery/results_redis.py", "note"),
    "dispatch/loop.py": told_by_the_life_cycle(),
    "engines/outage.py": [
        LogLine("dispatch/clerk.py", f"{what}: %s", frozenset({"ERROR"})) for what in (DATABASE, API)
    ],
    "executors/dispatch_executor.py": [],  # see test_a_section_that_is_not_read_has_an_entry
}
"""Where a text that was made elsewhere is logged, and which texts these are."""

EVENTS = [
    event_log.DISPATCHED,
    Reason.WAITS_BLOCKED.value,
    Reason.WAITS_FULL.value,
    Reason.WAITS_OVERFLOW.value,
    Reason.UNSUPPORTED.value,
    *(each.value for each in Waits),
    WAITS_START,
]


def entries() -> list[Quote]:
    return list(quotes(prose(TROUBLESHOOTING)))


def has_entry(line: LogLine, levels: frozenset[str]) -> bool:
    return any(line.may_read(entry.text) and entry.level in levels for entry in entries())


def warnings() -> list[Any]:
    return [pytest.param(line, id=line.template[:60]) for line in LINES if line.warns]


@pytest.mark.parametrize("line", warnings())
def test_every_line_that_warns_is_in_troubleshooting(line: LogLine) -> None:
    assert has_entry(line, line.levels), f"{line.place}: {line.template!r} has no entry in troubleshooting.md"


def test_every_text_that_is_made_elsewhere_and_logged_is_known_here() -> None:
    places = {line.place.partition(":")[0] for line in log_lines() if line.passes_on and line.warns}
    assert places == set(PASSED_ON)


@pytest.mark.parametrize(
    "line", [line for lines in PASSED_ON.values() for line in lines if line.warns or not line.levels]
)
def test_every_text_that_is_made_elsewhere_is_in_troubleshooting(line: LogLine) -> None:
    assert has_entry(line, line.levels or frozenset({"WARNING"})), line


def test_a_section_that_is_not_read_has_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__KUBERNETES__NAMESPACE", "airflow")
    settings: Any = SimpleNamespace(executors={"KubernetesExecutor": ["kubernetes"]})
    texts = [Quote(str(problem), "WARNING") for problem in unread_options(settings)]
    assert texts
    assert {*texts} <= {*entries()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_quoted_lines_are_written_at_the_level_that_the_page_names(page: Path) -> None:
    known = [*LINES, *(line for lines in PASSED_ON.values() for line in lines)]
    for quote in quotes(prose(page)):
        if quote.text.startswith("[kubernetes]: "):
            continue
        levels = {
            level for line in known if line.may_read(quote.text) for level in line.levels or {"WARNING"}
        }
        assert quote.level in levels, f"{quote.text!r} is written at {sorted(levels) or 'no level at all'}"


def test_every_entry_has_a_cause_and_a_remedy() -> None:
    for heading, text in sections(TROUBLESHOOTING.read_text()).items():
        if list(quotes(text)):
            assert "**Cause**: " in text, heading
            assert "**Remedy**: " in text, heading


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_cause_in_troubleshooting(reason: Reason) -> None:
    rows = sections(TROUBLESHOOTING.read_text())["Reasons"]
    assert re.search(rf"^\| `{reason.value}` \| \w", rows, re.MULTILINE)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_listed_in_its_own_words(reason: Reason) -> None:
    page = (DOCS / "reference" / "reasons.md").read_text()
    assert f"| `{reason.value}` | {reason.words} |" in page


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_listed(event: str) -> None:
    assert f"\n| `{event}` |" in (DOCS / "reference" / "reasons.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_quoted_events_use_the_words_of_their_reason(page: Path) -> None:
    for name, words in re.findall(r'"reason": "(\w+)",\s+"detail": "([^"]+)"', page.read_text()):
        assert Reason(name).words == words


@pytest.mark.parametrize(
    ("quote", "may"),
    [
        ("Worker <name> failed: <error>", True),
        ("Worker <name> failed: ...", True),
        ("Worker <name> failed: because of the weather", False),
        ("Worker seven failed: <error>", False),
        ("Worker <name> died: <error>", False),
    ],
)
def test_a_quote_writes_each_value_as_one(quote: str, may: bool) -> None:
    """Words of a page in the place of a value would pass for whatever the code says."""
    assert LogLine("f:1", "Worker %s failed: %s%s", frozenset({"ERROR"})).may_read(quote) == may
