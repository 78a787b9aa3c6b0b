# SPDX-License-Identifier: Apache-2.0
"""Changes that people have made, as rows of Airflow's event log tell them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

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
        ("config_file_changed", {"file": "/x", "detail": "slots 1 -> 2"}, "/x is in use: slots 1 -> 2"),
        ("config_file_refused", {"file": "/x", "detail": "no"}, "/x is refused: no"),
    ],
)
def test_words(event, facts, words):
    """Who has ordered what, and what a file has changed."""
    (change,) = changes_of([(AT, event, "ann", json.dumps({**facts, "team": "red"}))], everybody)
    assert (change.words, change.team, change.at) == (words, "red", AT)
    assert (change.by == "ann") is event.startswith("dispatch_")


@pytest.mark.parametrize("extra", ["", "no json", "[1]"])
def test_a_row_that_somebody_else_wrote(extra):
    """It ends nothing."""
    (change,) = changes_of([(AT, "dispatch_drain", "ann", extra)], everybody)
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
