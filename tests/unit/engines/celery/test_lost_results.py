# SPDX-License-Identifier: Apache-2.0
"""Which tasks are given up waiting for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.celery.lost_results import CHUNK, GRACE, INTERVAL, LostResults


class Database:
    """Knows which tasks are queued or running."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.asked: list[list[int]] = []
        self.fails = False

    def __call__(self, ids: Any) -> set[int]:
        if self.fails:
            raise ConnectionError
        self.asked.append(list(ids))
        return self.open & set(ids)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def lost(database: Database) -> LostResults:
    return LostResults(database)


def looks(lost: LostResults, waiting: dict[str, int], start: float, seconds: float) -> list[str]:
    """All that is found in so many seconds."""
    found = []
    for number in range(int(seconds / INTERVAL) + 1):
        found += lost.find(start + number * INTERVAL, lambda: waiting)
    return found


def test_what_runs_is_waited_for(lost, database):
    """However long."""
    database.open = {1}
    assert looks(lost, {"a": 1}, 0, 10 * GRACE) == []


def test_what_has_ended_has_time_for_its_result(lost, database):
    """Then it is found, once."""
    waiting = {"a": 1, "b": 2}
    database.open = {2}
    assert looks(lost, waiting, 0, GRACE - INTERVAL) == []
    assert looks(lost, waiting, GRACE, 0) == ["a"]
    del waiting["a"]
    assert looks(lost, waiting, 2 * GRACE, GRACE) == []


def test_a_task_that_runs_again_is_waited_for_again(lost, database):
    """It was deferred, and came back."""
    looks(lost, {"a": 1}, 0, GRACE - INTERVAL)
    database.open = {1}
    looks(lost, {"a": 1}, GRACE, 0)
    database.open = set()
    assert looks(lost, {"a": 1}, GRACE + INTERVAL, GRACE - INTERVAL) == []


def test_no_look_before_its_time(lost, database):
    """A heartbeat between two looks costs nothing."""
    lost.find(0, lambda: {"a": 1})
    lost.find(INTERVAL - 0.1, lambda: pytest.fail("not due"))
    assert len(database.asked) == 1


def test_a_look_is_bounded_and_all_have_their_turn(lost, database):
    """Whatever comes and goes meanwhile."""
    waiting = {str(number): number for number in range(2 * CHUNK)}
    database.open = set(waiting.values())
    lost.find(0, lambda: waiting)
    del waiting[str(CHUNK)]
    waiting["new"] = -1
    for number in range(1, 4):
        lost.find(number * INTERVAL, lambda: waiting)
    assert [len(part) for part in database.asked] == [CHUNK, CHUNK - 1, CHUNK, CHUNK]
    assert {ti_id for part in database.asked[:2] for ti_id in part} == set(range(2 * CHUNK)) - {CHUNK}


def test_a_database_that_is_away_harms_nobody(lost, database, caplog):
    """The next look may succeed."""
    database.fails = True
    assert lost.find(0, lambda: {"a": 1}) == []
    assert "Cannot look up" in caplog.text
    database.fails = False
    assert looks(lost, {"a": 1}, INTERVAL, GRACE) == ["a"]


def test_nothing_in_flight_asks_nothing(lost, database):
    assert looks(lost, {}, 0, GRACE) == []
    assert database.asked == []
