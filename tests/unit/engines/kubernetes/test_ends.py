# SPDX-License-Identifier: Apache-2.0
"""How the end of a pod gets what the database has of the task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes import ends, overdue
from airflow_dispatch_provider.engines.kubernetes.ends import Ends
from airflow_dispatch_provider.engines.kubernetes.model import End, Ended, Over, PutBack

from .fakes import named, until

ROW = Stored("running", 7)


class Database:
    """Answers as it is told; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []
        self.away = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.answered = 0
        self.scheduled: list[Any] = []
        self.waited_for: list[Any] = []

    def look_up(self, keys: Sequence[Any]) -> dict[Any, Stored]:
        assert threading.current_thread() is not threading.main_thread()
        self.asked.append(list(keys))
        self.may_answer.wait(30)
        self.answered += 1
        if self.away:
            self.away -= 1
            raise ConnectionError("the database is away")
        return {key: ROW for key in keys if key != "unknown"}

    def put_back(self, keys: Sequence[Any]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if self.away:
            self.away -= 1
            raise ConnectionError("the database is away")
        self.scheduled += keys

    @property
    def calls(self) -> ends.Database:
        return ends.Database(lambda: self.waited_for, self.look_up, self.put_back)


def ended(key: Any) -> Ended:
    return Ended(key, named(str(key)), End.SUCCEEDED)


def running(test: Callable[[Ends, Database], Awaitable[None]]) -> tuple[list[Ended], Database]:
    """Run it beside a test, in one event loop, until nothing is open; returns what was reported."""

    async def both() -> tuple[list[Ended], Database]:
        reports: list[Ended] = []
        database = Database()
        tested = Ends(database.calls, reports.append, lambda key: False)
        task = asyncio.create_task(tested.run())
        await asyncio.wait_for(test(tested, database), 30)
        await asyncio.wait_for(until(lambda: not tested.open), 30)
        task.cancel()
        return reports, database

    return asyncio.run(both())


def test_an_end_is_reported_with_the_row_of_its_task() -> None:
    """A task that the database does not know has none."""

    async def test(tested: Ends, database: Database) -> None:
        for key in ("a", "unknown"):
            tested.put(ended(key))

    reports, _ = running(test)
    assert [(report.key, report.row) for report in reports] == [("a", ROW), ("unknown", None)]


def test_what_ends_while_the_database_is_asked_is_looked_up_together() -> None:
    """A thousand ends are not a thousand queries; and nobody waits in the event loop meanwhile."""

    async def test(tested: Ends, database: Database) -> None:
        database.may_answer.clear()
        tested.put(ended("a"))
        await until(lambda: database.asked)
        for key in ("b", "c"):
            tested.put(ended(key))
        database.may_answer.set()

    reports, database = running(test)
    assert [report.key for report in reports] == ["a", "b", "c"]
    assert database.asked == [["a"], ["b", "c"]]


def test_a_database_that_is_away_loses_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again."""
    monkeypatch.setattr(ends, "PAUSE", 0.01)

    async def test(tested: Ends, database: Database) -> None:
        database.away = 2
        tested.put(ended("a"))

    reports, database = running(test)
    assert [report.row for report in reports] == [ROW]
    assert database.asked == [["a"]] * 3


def test_a_query_that_hangs_keeps_nothing_from_ending() -> None:
    """The thread of the API calls has connections to close."""
    database = Database()
    database.may_answer.clear()

    async def cancelled() -> None:
        tested = Ends(database.calls, lambda ended: None, lambda key: False)
        task = asyncio.create_task(tested.run())
        tested.put(ended("a"))
        await until(lambda: database.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert database.answered == 0

    try:
        asyncio.run(asyncio.wait_for(cancelled(), 10))
    finally:
        database.may_answer.set()


def test_what_is_put_back_is_reported_when_the_database_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before: Airflow would fail a task that ends while it is queued."""
    monkeypatch.setattr(ends, "PAUSE", 0.01)

    async def test(tested: Ends, database: Database) -> None:
        database.away = 2
        tested.put_back("a")
        tested.put_back("b")

    reports, database = running(test)
    assert reports == [PutBack("a"), PutBack("b")]
    assert database.scheduled == ["a", "b"]


def test_an_end_that_is_put_again_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A while later: Airflow may not have stored yet whose task it is."""
    monkeypatch.setattr(ends, "PAUSE", 0.01)

    async def test(tested: Ends, database: Database) -> None:
        tested.put_again(ended("a"))
        await until(lambda: database.asked)

    assert [report.key for report in running(test)[0]] == ["a"]


def test_tasks_that_are_over_in_airflow_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod's own end is one witness only."""
    monkeypatch.setattr(ends, "LOOK", 0.01)
    monkeypatch.setattr(overdue, "PATIENCE", 0.0)

    async def found() -> list[Any]:
        reports: list[Any] = []
        database = Database()
        database.waited_for = ["a", "unknown"]
        tested = Ends(database.calls, reports.append, lambda key: False)
        tasks = [asyncio.create_task(run()) for run in (tested.run, tested.look_now_and_then)]
        await asyncio.wait_for(until(lambda: reports), 30)
        for task in tasks:
            task.cancel()
        return reports

    assert asyncio.run(found())[0] == Over("unknown", None)
