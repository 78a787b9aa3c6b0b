# SPDX-License-Identifier: Apache-2.0
"""The documents of several schedulers, as one answer."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.bridge import schedulers
from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import OrderRow, TablesMissing
from airflow_dispatch_provider.lifecycle.events import CORDONED
from airflow_dispatch_provider.operate.documents import FRESH
from airflow_dispatch_provider.operate.model import BackendState
from airflow_dispatch_provider.operate.status import read_status, status_of

from .documents import NOW, backend, document, reading


def test_sums_over_schedulers():
    """Slots, jobs and paces of one backend add up; the oldest wait of all counts."""
    one = document("1", backends=[backend("a", slots=4, used=3, held=2, oldest=NOW - 10, dags={"x": 3})])
    two = document("2", backends=[backend("a", slots=4, used=1, held=1, oldest=NOW - 60, dags={"y": 5})])
    (found,) = status_of(reading(one, two)).backends
    assert (found.slots, found.used, found.held) == (8, 4, 3)
    assert found.oldest is not None
    assert found.oldest.timestamp() == NOW - 60
    assert found.dags == {"y": 5, "x": 3}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["open", "open"], "open"),
        (["open", "cordoned"], "cordoned"),
        (["removed", "open"], "removed"),
        # Worse than an order: something is broken that nobody has asked for.
        (["cordoned", "failing"], "failing"),
    ],
)
def test_the_worst_state_counts(states, expected):
    """Whichever scheduler sees it."""
    documents = [document(str(n), backends=[backend("a", state=state)]) for n, state in enumerate(states)]
    assert status_of(reading(*documents)).backends[0].state.value == expected


def test_since_when_it_is_so():
    """Since the first of the schedulers that see it so."""
    one = document("1", backends=[backend("a", state="failing", since=NOW - 30)])
    two = document("2", backends=[backend("a", state="failing", since=NOW - 90)])
    three = document("3", backends=[backend("a", state="open", since=NOW - 900)])
    assert status_of(reading(one, two, three)).backends[0].since.timestamp() == NOW - 90


def test_a_dead_scheduler_is_shown_and_not_counted():
    """One that is not among the living, and one that has not written for a while."""
    dead = document("1", backends=[backend("a", used=3)])
    silent = document("2", written=NOW - FRESH - 1, backends=[backend("a", used=3)])
    lives = document("3", backends=[backend("a", used=1)])
    found = status_of(reading(dead, silent, lives, living={"2", "3"}))
    assert [(each.id, each.lives) for each in found.schedulers] == [("1", False), ("2", False), ("3", True)]
    assert [each.used for each in found.backends] == [1]


def test_an_order_is_shown_with_its_backend():
    """With who, why and until when; one that drains is draining, and its order is no trouble."""
    order = OrderRow("", "a", "drain", "ann", "new nodes", NOW - 5, NOW + 60)
    both = document("1", backends=[backend("a", state="cordoned", used=1, trouble=CORDONED), backend("b")])
    found = status_of(reading(both, orders=[order])).backends
    assert [each.state for each in found] == [BackendState.DRAINING, BackendState.OPEN]
    assert found[0].order is not None
    assert (found[0].order.by, found[0].order.reason) == ("ann", "new nodes")
    assert found[0].trouble is None
    assert found[1].order is None


DRAIN = OrderRow("", "a", "drain", "ann", "new nodes", NOW - 5, None)
EMPTY = backend("a", state="cordoned", trouble=CORDONED)


@pytest.mark.parametrize(
    ("rows", "orders", "state"),
    [
        ([document("1", backends=[EMPTY])], [DRAIN], "drained"),
        ([document("1", backends=[EMPTY], returning={"a": 1})], [DRAIN], "draining"),
        ([document("1", backends=[EMPTY]), document("2", backends=[backend("a")])], [DRAIN], "draining"),
        ([document("1", backends=[EMPTY])], [DRAIN._replace(command="cordon")], "cordoned"),
        ([document("1", backends=[EMPTY])], [], "cordoned"),
    ],
)
def test_a_backend_is_drained_when_nothing_is_left_there(rows, orders, state):
    """By order, in every scheduler; one that is only cordoned stays so, whatever it has."""
    (found,) = status_of(reading(*rows, orders=orders)).backends
    assert found.state.value == state
    assert found.trouble == (None if orders else CORDONED)


def test_an_order_about_a_backend_that_no_scheduler_has():
    """Taken out of the file, or of one that has died: it would be in force again with the backend."""
    orders = [OrderRow(team, "gone", "drain", "ann", "disks", NOW - 5, None) for team in ("", "red")]
    dead = document("2", backends=[backend("gone")], written=NOW - 900)
    found = status_of(
        reading(document("1", backends=[backend("a")]), dead, orders=[*orders, DRAIN._replace(backend="a")])
    )
    assert [(each.backend, each.team) for each in found.other_orders] == [("gone", None), ("gone", "red")]


def test_backends_of_two_teams_are_two():
    """Though they have one name."""
    documents = [
        document("1", team="red", backends=[backend("a")]),
        document("1", team="blue", backends=[backend("a")]),
    ]
    assert [each.team for each in status_of(reading(*documents)).backends] == ["red", "blue"]


def test_minutes_add_up():
    """By minute, over all schedulers."""
    one = document("1", backends=[backend("a", minutes=[[0, 1, 0], [60, 2, 1]])])
    two = document("2", backends=[backend("a", minutes=[[60, 3, 3]])])
    (found,) = status_of(reading(one, two)).backends
    assert [(each.submitted, each.ended) for each in found.minutes] == [(1, 0), (5, 4)]


def test_a_document_of_another_version_is_not_counted():
    """After an upgrade, until the scheduler is restarted: the answer names it and its version, as a problem where
    nothing else is known."""
    other = document("1", version=99, package="9.1", backends=[{"an": "other form"}])
    alone = status_of(reading(other))
    assert "Scheduler 1 on host1 runs version 9.1" in str(alone.problem)
    beside = status_of(reading(other, document("2", backends=[backend("a", used=2)])))
    assert (beside.problem, [each.used for each in beside.backends]) == (None, [2])
    assert {each.id: each.other_version for each in beside.schedulers} == {"2": None, "1": "9.1"}


def test_a_dead_scheduler_of_another_version_is_no_problem():
    """It is only shown."""
    found = status_of(reading(document("1", version=99), living=set()))
    assert "runs version" not in str(found.problem)
    assert [each.lives for each in found.schedulers] == [False]


@pytest.mark.parametrize("text", ["{", "[]", "null", '"text"'])
def test_a_row_that_cannot_be_read_is_left_out(text):
    """The others are shown."""
    bad, good = document("1")._replace(document=text), document("2", backends=[backend("a")])
    assert [each.id for each in status_of(reading(bad, good)).schedulers] == ["2"]


def test_nobody_has_written():
    """The answer says where to look."""
    assert "scheduler's log" in str(status_of(reading()).problem)


def test_without_tables(monkeypatch):
    """The answer says what to run."""

    def missing(since: float) -> Any:
        raise TablesMissing

    monkeypatch.setattr(tables, "read_statuses", missing)
    monkeypatch.setattr(schedulers, "living", set)
    assert "airflow db migrate" in str(read_status().problem)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"used": 4, "not_begun": 4, "not_begun_since": NOW - 480}, "Is a worker there?"),
        (
            {"used": 4, "not_begun": 4, "not_begun_since": NOW - 480, "hint": ""},
            "See the story of one of them.",
        ),
        # One of them has begun.
        ({"used": 4, "not_begun": 3, "not_begun_since": NOW - 480}, None),
        # Not for long.
        ({"used": 4, "not_begun": 4, "not_begun_since": NOW - 60}, None),
        # Given ahead of a free slot, which all are in use.
        ({"used": 4, "ahead": 2, "not_begun": 2}, None),
        ({}, None),
    ],
)
def test_what_to_look_at_where_nothing_begins(values, expected):
    """Where all that a backend has has not begun for minutes."""
    row = document("1", backends=[backend("a", **{"hint": "Is a worker there?", **values})])
    assert status_of(reading(row)).backends[0].hint == expected


def test_what_has_not_begun_adds_up():
    """Over all schedulers, since the oldest; what was given ahead of a free slot waits for that."""
    one = document("1", backends=[backend("a", not_begun=3, ahead=1, not_begun_since=NOW - 9)])
    two = document("2", backends=[backend("a", not_begun=1, not_begun_since=NOW - 90)])
    found = status_of(reading(one, two)).backends[0]
    assert found.not_begun_since is not None
    assert (found.not_begun, found.not_begun_since.timestamp()) == (3, NOW - 90)
