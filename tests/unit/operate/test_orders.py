# SPDX-License-Identifier: Apache-2.0
"""Orders that make no sense are refused, and the others reach table and event log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import LASTING, OrderRow
from airflow_dispatch_provider.operate import orders
from airflow_dispatch_provider.operate.orders import UnknownBackend, WrongOrder, give_order

from .documents import NOW, backend, document, reading


class Office:
    """Tables and event log in memory."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, str], Any] = {}
        self.once = list[Any]()
        self.before: OrderRow | None = None
        self.audited: list[tuple[str, str, dict[str, Any]]] = []

    def enter(self, new: Any, audit: Any) -> None:
        if new.command in LASTING:
            self.orders[new.team, new.backend] = new
        else:
            self.once.append(new)
        self._audit(audit)

    def take_back(self, team: str, name: str, now: float, audit: Any) -> OrderRow | None:
        self.orders[team, name] = None
        if self.before is not None:
            self._audit(audit)
        return self.before

    def _audit(self, audit: Any) -> None:
        self.audited.append((audit.event, audit.owner, json.loads(audit.extra)))


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    made = Office()
    known = [document("1", backends=[backend("a")]), document("1", team="blue", backends=[backend("b")])]
    monkeypatch.setattr(tables, "enter_order", made.enter)
    monkeypatch.setattr(tables, "take_back", made.take_back)
    gone = OrderRow("", "gone", "drain", "ann", "", NOW - 9, None)
    monkeypatch.setattr(orders, "read", lambda: reading(*known, orders=[gone]))
    return made


def test_a_cordon_is_in_force_and_in_the_event_log(office):
    """With who, why and for how long."""
    found = give_order("cordon", "a", None, "ann", "new nodes", 60)
    assert found is not None
    assert found.until is not None
    assert (found.until - found.since).total_seconds() == 60
    assert office.orders["", "a"].command == "cordon"
    assert office.audited == [
        ("dispatch_cordon", "ann", {"backend": "a", "reason": "new nodes", "seconds": 60})
    ]


@pytest.mark.parametrize("reason", ["x" * 1001, "a\0b", "\udcff"])
def test_a_reason_that_a_database_may_not_take_is_refused(office, reason):
    """Of the command, too: the text of MySQL ends, that of PostgreSQL has no NUL, and bytes may be no text."""
    with pytest.raises(WrongOrder, match="reason"):
        give_order("cordon", "a", None, "ann", reason)
    assert office.orders == {}


def test_a_long_name_of_a_user_is_cut(office):
    """The table has room for 250 characters."""
    found = give_order("cordon", "a", None, "ann" * 100)
    assert found is not None
    assert (len(found.by), len(office.orders["", "a"].given_by)) == (250, 250)


def test_resume_takes_back(office):
    """Nothing is in force any more, the event log has it, and the answer is what was in force, if anything was."""
    assert give_order("resume", "a", None, "ann") is None
    assert (office.orders["", "a"], office.audited) == (None, [])
    office.before = OrderRow("", "a", "drain", "bob", "", NOW - 9, None)
    found = give_order("resume", "a", None, "ann")
    assert found is not None
    assert (found.command, found.by) == ("drain", "bob")
    assert [row[0] for row in office.audited] == ["dispatch_resume"]


def known(monkeypatch, *rows, in_force=(), living=None):
    """The database has these documents and orders."""
    monkeypatch.setattr(orders, "read", lambda: reading(*rows, orders=in_force, living=living))


BEFORE = OrderRow("", "a", "cordon", "ann", "nodes", NOW - 9, None)


@pytest.mark.parametrize(
    ("until", "seconds", "ends_earlier"),
    [(None, 60, True), (None, None, False), (4e9, 60, True), (1.0, 60, False)],
)
def test_an_order_names_the_one_that_it_replaces(office, monkeypatch, until, seconds, ends_earlier):
    """There is one about a backend; the answer says where the backend takes work earlier than it would have."""
    known(monkeypatch, document("1", backends=[backend("a")]), in_force=[BEFORE._replace(until=until)])
    found = give_order("drain", "a", None, "bob", "disks", seconds)
    assert found is not None
    assert found.replaces is not None
    assert (found.replaces.command, found.replaces.by) == ("cordon", "ann")
    assert ("ends earlier" in (found.warning or "")) is ends_earlier
    ((_, _, facts),) = office.audited
    assert facts["replaces"].startswith("cordon by ann ")


@pytest.mark.parametrize(
    ("entry", "in_force", "warned"),
    [
        (backend("a"), [], True),
        (backend("a", state="failing"), [], True),
        (backend("a"), [BEFORE], False),
        (backend("a", state="cordoned"), [], False),
    ],
)
def test_a_recall_from_a_backend_that_takes_work(office, monkeypatch, entry, in_force, warned):
    """The answer says that it may get the tasks again; the order in force stays so."""
    known(monkeypatch, document("1", backends=[entry]), in_force=in_force)
    found = give_order("recall", "a", None, "bob")
    assert found is not None
    assert found.replaces is None
    assert ("cordon or drain it first" in (found.warning or "")) is warned


def test_an_order_that_nobody_hears(office, monkeypatch):
    """The answer says that no scheduler lives."""
    known(monkeypatch, document("1", backends=[backend("a")]), living=[])
    found = give_order("cordon", "a", None, "bob")
    assert found is not None
    assert found.warning == "No scheduler lives: the first that starts follows it."


def test_a_backend_that_only_a_dead_scheduler_has(office, monkeypatch):
    """Unknown where another scheduler lives and has it not, as long as all that live can be read."""
    dead = document("2", backends=[backend("gone"), backend("a")], written=NOW - 300)
    lives = document("1", backends=[backend("a")])
    known(monkeypatch, lives, dead)
    with pytest.raises(UnknownBackend, match=r"Only a scheduler that no longer lives had it\. Known: a\."):
        give_order("drain", "gone", None, "ann")
    known(monkeypatch, lives, dead, document("3", version=99))
    assert give_order("drain", "gone", None, "ann") is not None


def test_a_recall_stands_beside_what_is_in_force(office):
    """Long enough for a scheduler whose database is away for a while."""
    found = give_order("recall", "a", None, "ann", "no nodes")
    assert found is not None
    assert (found.until - found.since).total_seconds() == 3600
    assert [(row.command, row.backend) for row in office.once] == [("recall", "a")]
    assert (office.orders, [row[0] for row in office.audited]) == ({}, ["dispatch_recall"])


def test_a_backend_of_a_team(office):
    """Known to that team alone."""
    assert give_order("drain", "b", "blue", "ann") is not None
    with pytest.raises(UnknownBackend, match=r"no backend 'b'\. Known: a"):
        give_order("drain", "b", None, "ann")


def test_a_backend_that_nobody_has(office):
    """The error names those that there are, and nothing is ordered."""
    with pytest.raises(UnknownBackend, match="Known: a"):
        give_order("cordon", "A", None, "ann")
    assert (office.orders, office.audited) == ({}, [])


@pytest.mark.parametrize(
    ("command", "seconds"), [("stop", None), ("cordon", 0), ("cordon", -1), ("drain", 1e12)]
)
def test_what_makes_no_sense(office, command, seconds):
    """Refused before anything is asked."""
    with pytest.raises(WrongOrder):
        give_order(command, "a", None, "ann", "", seconds)
    assert office.orders == {}


def test_an_order_about_a_backend_that_is_gone_can_be_taken_back(office):
    """But no other can be given about it."""
    assert give_order("resume", "gone", None, "ann") is None
    with pytest.raises(UnknownBackend):
        give_order("drain", "gone", None, "ann")
