# SPDX-License-Identifier: Apache-2.0
"""Changes that people have made, as rows of Airflow's event log tell them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_dispatch_provider.operate import changes
from airflow_dispatch_provider.operate.changes import MOST, changes_of, read_changes

AT = datetime(2026, 1, 1, tzinfo=UTC)


def everybody(team):
    return True


@pytest.mark.parametrize(
    ("event", "facts", "words"),
    [
        (
            "dispatch_drain",
            {"backend": "a", "seconds": 7200.0, "reason": "nodes"},
            "drain a for 7200 s: nodes",
        ),
        ("dispatch_drain", {"backend": "a", "seconds": 1209600.0}, "drain a for 1209600 s"),
        ("dispatch_resume", {"backend": "a"}, "resume a"),
        (
            "dispatch_drain",
            {"backend": "a", "replaces": "cordon by bob with no end"},
            "drain a (replaces cordon by bob with no end)",
        ),
        ("config_file_changed", {"file": "/x", "detail": "slots 1 -> 2"}, "/x is in use: slots 1 -> 2"),
        ("config_file_changed", {"file": "/x", "detail": "one\ntwo"}, "/x is in use:\none\ntwo"),
        ("config_file_refused", {"file": "/x", "detail": "no"}, "/x is refused: no"),
    ],
)
def test_words(event, facts, words):
    """Who has ordered what, and what a file has changed."""
    (change,) = changes_of([(AT, event, "ann", json.dumps({**facts, "team": "red"}))], everybody, AT)
    assert (change.words, change.team, change.at) == (words, "red", AT)
    assert (change.by == "ann") is event.startswith("dispatch_")


def ordered(command, at, seconds=None, backend="a"):
    facts = {"backend": backend, "reason": "disks", **({"seconds": seconds} if seconds else {})}
    return AT + timedelta(seconds=at), f"dispatch_{command}", "ann", json.dumps(facts)


@pytest.mark.parametrize(
    ("rows", "ends"),
    [
        ([ordered("drain", 0, 30)], [30]),
        # Not over yet, or without an end.
        ([ordered("drain", 0, 3e9), ordered("cordon", 0, backend="b")], []),
        # Replaced or taken back before; a recall does neither.
        ([ordered("cordon", 0, 30), ordered("drain", 20)], []),
        ([ordered("cordon", 0, 30), ordered("resume", 20)], []),
        ([ordered("cordon", 0, 30), ordered("recall", 20)], [30]),
        # Another backend, or afterwards.
        ([ordered("cordon", 0, 30), ordered("drain", 20, backend="b")], [30]),
        ([ordered("cordon", 0, 30), ordered("resume", 40)], [30]),
        ([ordered("cordon", 0, 30), ordered("drain", 20, 30)], [50]),
        ([ordered("cordon", 0, 1e300)], []),
    ],
)
def test_orders_that_have_run_out(rows, ends, monkeypatch):
    """Told at that moment, in order with the others."""
    monkeypatch.setattr(changes, "rows_since", lambda events, since: reversed(rows))
    found = read_changes(AT, everybody)
    assert [(each.at - AT).total_seconds() for each in found if each.event == "dispatch_ran_out"] == ends
    words = {each.words for each in found if each.event == "dispatch_ran_out"}
    assert words <= {"drain a by ann has run out: disks", "cordon a by ann has run out: disks"}
    assert found == sorted(found, key=lambda each: each.at, reverse=True)


def test_an_older_order_that_has_run_out(monkeypatch):
    """Its end is told where it is among the changes asked for, and the order itself is not."""
    asked = []

    def rows(events, since):
        asked.append(since)
        return [ordered("drain", 0, 7200)]

    monkeypatch.setattr(changes, "rows_since", rows)
    found = read_changes(AT + timedelta(hours=1), everybody)
    assert [each.event for each in found] == ["dispatch_ran_out"]
    assert asked[0] < AT
    assert read_changes(datetime.min.replace(tzinfo=UTC), everybody)


@pytest.mark.parametrize("extra", ["", "no json", "[1]"])
def test_a_row_that_somebody_else_wrote(extra):
    """It ends nothing."""
    (change,) = changes_of([(AT, "dispatch_drain", "ann", extra)], everybody, AT)
    assert change.by == "ann"


def of_team(index):
    return (
        AT,
        "dispatch_drain",
        "ann",
        json.dumps({"backend": f"b{index}", "team": "red" if index % 2 else "blue"}),
    )


def test_what_is_of_others_takes_no_place(monkeypatch):
    """As many as one answer has are looked for until there are no more."""
    rows = [of_team(index) for index in range(4 * MOST)]
    monkeypatch.setattr(changes, "rows_since", lambda events, since: iter(rows))
    found = read_changes(AT, lambda team: team == "red")
    assert [change.backend for change in found] == [f"b{index}" for index in range(1, 2 * MOST, 2)]
