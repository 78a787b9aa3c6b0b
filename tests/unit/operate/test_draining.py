# SPDX-License-Identifier: Apache-2.0
"""A backend is empty when every scheduler has the order, and nothing of any is out."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_dispatch_provider.bridge.database.tables import OrderRow
from airflow_dispatch_provider.operate import draining
from airflow_dispatch_provider.operate.draining import NotDrained, NotRecalled, left, to_come_back

from .documents import NOW, backend, document, reading

DRAIN = OrderRow("", "a", "drain", "ann", "", NOW - 5, None)
GIVEN = NOW - 3.2
RECALL = OrderRow("", "a", "recall", "ann", "", GIVEN, NOW + 9)
DONE, EARLIER = {"a": GIVEN}, {"a": GIVEN - 60}
CLOSED = backend("a", state="cordoned")


class Asked:
    """In place of Airflow's database: so many tasks of each scheduler were last given to the backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **there: int) -> None:
        self.since: list[dict[str, float | None]] = []
        self._there = {job.removeprefix("of_"): number for job, number in there.items()}
        monkeypatch.setattr(draining.orphans, "given_to", self._given_to)

    def _given_to(self, name: str, since: dict[str, float | None]) -> Counter[str]:
        assert name == "a"
        self.since.append(since)
        return Counter({job: number for job, number in self._there.items() if job in since})


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    Asked(monkeypatch)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([document("1", backends=[CLOSED]), document("2", backends=[CLOSED])], None),
        # Recalled: nothing is out, and may yet begin.
        ([document("1", backends=[CLOSED], returning={"a": 3})], "3 are being set back to scheduled"),
        ([document("1", backends=[CLOSED], returning={"b": 3})], None),
        # Taken out of the file, and forgotten.
        ([document("1")], None),
        ([document("1", backends=[backend("a", used=2, ahead=1)])], "3 run there."),
        (
            [document("1", backends=[backend("a", used=4, not_begun=3)])],
            "1 runs there, and 3 have not begun, which recall takes back.",
        ),
        ([document("1", backends=[CLOSED]), document("2", backends=[backend("a")])], "not every scheduler"),
        # Full, or failing: nothing is free, and yet the order has not come.
        ([document("1", backends=[backend("a", state="failing", free=0)])], "not every scheduler"),
        ([document("1", backends=[CLOSED], written=NOW - 300)], "no scheduler that lives"),
        ([document("1", backends=[CLOSED]), document("2", version=99)], "not known what every scheduler has"),
        (
            [document("1", team="blue", backends=[backend("a", used=4)]), document("2", backends=[CLOSED])],
            None,
        ),
    ],
)
def test_empty_or_not(rows, why):
    """And why it is not known to be."""
    found = left(reading(*rows, orders=[DRAIN]), "a", None)
    assert found is None if why is None else found is not None and why in found


WRITES = document("1", backends=[CLOSED])
DEAD = document("2", backends=[backend("a", used=4)], written=NOW - 300)


def after_a_crash(*more, **left):
    return reading(WRITES, DEAD, *more, orders=[DRAIN], living={"1"}, unfinished=left)


def test_the_database_says_what_became_of_the_tasks_of_a_dead_scheduler(monkeypatch):
    """All of those that nobody has taken over; and of a scheduler that lives what it has been given since it wrote."""
    asked = Asked(monkeypatch, of_2=3)
    assert left(after_a_crash(**{"2": 9}), "a", None) == (
        "3 are queued or run there for scheduler 2, which has ended or died, and nobody has taken them over yet."
    )
    assert asked.since == [{"1": NOW - 1, "2": None}]
    Asked(monkeypatch)
    assert left(after_a_crash(**{"2": 9}), "a", None) is None


def test_tasks_that_have_just_been_taken_over(monkeypatch):
    """No status has them yet; the one that has died has none any more."""
    asked = Asked(monkeypatch, of_1=4, of_2=7)
    assert left(after_a_crash(), "a", None) == (
        "4 are queued or run there for scheduler 1, and are not in its status."
    )
    assert asked.since == [{"1": NOW - 1}]


def test_what_runs_on_a_backend_that_nobody_knows_any_more(monkeypatch):
    """Taken out of the file before its scheduler died: Airflow watches these tasks, and they still run there."""
    asked = Asked(monkeypatch, of_1=1)
    assert left(reading(document("1"), orders=[DRAIN]), "a", None) == (
        "1 are queued or run there for scheduler 1, and are not in its status."
    )
    assert asked.since == [{"1": 0.0}]


def test_a_scheduler_that_lives_and_does_not_write(monkeypatch):
    """It may have tasks there for as long as it likes: nobody takes them over."""
    Asked(monkeypatch, of_2=4)
    silent = document("2", backends=[backend("a", used=4)], written=NOW - 3000)
    assert left(reading(WRITES, silent, orders=[DRAIN]), "a", None) == (
        "4 are queued or run there for scheduler 2, which has not written its status lately."
    )


def test_another_team_has_a_backend_of_this_name(monkeypatch):
    """Its tasks do not keep this one from being empty for long."""
    asked = Asked(monkeypatch, of_1=4)
    blue = document("1", team="blue", backends=[backend("a", used=4)])
    assert left(after_a_crash(blue), "a", None) is not None
    dead = document("2", written=NOW - 900)
    assert left(reading(WRITES, blue, dead, orders=[DRAIN], living={"1"}), "a", None) is None
    assert asked.since == [{"1": NOW - 1}, {}]


def test_a_drained_backend_is_not_empty_while_a_recall_is_to_be_done():
    """A task still in the slots of that scheduler is not in its status yet, or will begin."""
    rows = [document("1", backends=[CLOSED], recalls=DONE), document("2", backends=[CLOSED], recalls=EARLIER)]
    assert (
        left(reading(*rows, orders=[DRAIN, RECALL]), "a", None)
        == "recall is still to be done by scheduler 2."
    )
    assert left(reading(rows[0], orders=[DRAIN, RECALL]), "a", None) is None


BUSY = backend("a", used=4)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        # What runs goes on, and another recall is another one's.
        ([document("1", backends=[BUSY], recalls=DONE)], None),
        ([document("1", recalls={**DONE, "b": 1.0}), document("2", team="blue")], None),
        ([document("1", recalls=EARLIER), document("2"), document("3", recalls=DONE)], "by scheduler 1, 2."),
        ([document("1", recalls=DONE, returning={"a": 2, "b": 7})], "2 are being set back"),
        ([document("1", recalls=DONE), document("2", version=99)], "not known what every scheduler has"),
        ([document("1", recalls=DONE, written=NOW - 900)], "no scheduler that lives"),
        # A silent one, of which all has begun.
        ([document("1", recalls=DONE), document("2", backends=[BUSY], written=NOW - 300)], None),
    ],
)
def test_what_was_recalled_has_come_back_or_not(rows, why):
    """And who has not done it, or what is not known."""
    found = to_come_back(reading(*rows, orders=[RECALL]), "a", None)
    assert found is None if why is None else found is not None and why in found


SENT = {"backends": [backend("a", used=4, not_begun=1)]}


@pytest.mark.parametrize("dead", [SENT, {"recalls": DONE, "returning": {"a": 1}}])
@pytest.mark.parametrize(
    ("written", "unfinished"),
    [
        # Nobody has taken over its tasks; or somebody may have, after this order.
        (NOW - 300, {"2": 1}),
        (NOW - 2, {}),
    ],
)
def test_a_scheduler_that_died_before_all_was_back(dead, written, unfinished):
    """Another one takes its tasks over as they are: nobody waits for what will not come."""
    rows = [document("1", recalls=DONE), document("2", written=written, **dead)]
    with pytest.raises(NotRecalled, match="scheduler 2 has died"):
        to_come_back(reading(*rows, orders=[RECALL], living={"1"}, unfinished=unfinished), "a", None)


def test_tasks_that_were_taken_over_before_the_order():
    """Airflow's database says that the dead scheduler has none any more: whoever has them has recalled them."""
    rows = [document("1", recalls=DONE), document("2", written=NOW - 300, **SENT)]
    assert to_come_back(reading(*rows, orders=[RECALL], living={"1"}), "a", None) is None


def test_a_scheduler_that_lives_and_does_not_write_has_not_died():
    """It is waited for: it has the tasks."""
    rows = [document("1", recalls=DONE), document("2", written=NOW - 300, **SENT)]
    found = to_come_back(reading(*rows, orders=[RECALL], living={"1", "2"}), "a", None)
    assert found == "scheduler 2 lives, and has not written for 300 s what it has there."


def test_an_order_that_is_over():
    """Nobody waits for what will not come."""
    with pytest.raises(NotDrained, match="no longer in force"):
        left(reading(document("1", backends=[CLOSED])), "a", None)
