# SPDX-License-Identifier: Apache-2.0
"""Status is written and orders are read, beside the scheduler's thread."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from unit.lifecycle.builders import machine, queued, route, tick

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import OrderRow, TablesMissing
from airflow_dispatch_provider.dispatch import desk
from airflow_dispatch_provider.dispatch.desk import ORDERS_EVERY, SHARE, STATUS_EVERY, Desk
from airflow_dispatch_provider.dispatch.report import Facts
from airflow_dispatch_provider.lifecycle.events import Command, Order


class House:
    """A desk over tables in memory, whose worker works when it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, team: str = "") -> None:
        self.now, self.orders, self.written = 1000.0, list[OrderRow](), list[Any]()
        self.error: Exception | None = None
        self.works_at_once = False
        self.tasks: list[tuple[str, Callable[[], None]]] = []
        self.machine = machine(route("q", "a"))
        monkeypatch.setattr(tables, "read_orders", self._read)
        monkeypatch.setattr(tables, "write_status", self._write)
        monkeypatch.setattr(tables, "forget", lambda before: None)
        facts = Facts("host", "DispatchExecutor", team, dict, lambda: (None, None))
        self.desk = Desk(self.machine, self, "7 DispatchExecutor", facts, lambda: self.now, lambda: self.now)

    def _read(self, now: float) -> list[OrderRow]:
        if self.error is not None:
            raise self.error
        return self.orders

    def _write(self, row: Any) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(row)

    def do(self, kind: str, call: Callable[[], None]) -> None:
        self.tasks.append((kind, call))
        if self.works_at_once:
            self.work()

    def open(self) -> list[Order]:
        """With a database that answers, or fails, at once."""
        self.works_at_once = True
        news = self.desk.open()
        self.works_at_once = False
        return news

    def work(self) -> list[str]:
        """Do what was asked; names of it. An error of it ends nothing, as with the clerk."""
        tasks, self.tasks = self.tasks, []
        for _, call in tasks:
            with suppress(OSError):
                call()
        return [kind for kind, _ in tasks]

    def beat(self, passed: float = 0.0) -> list[Order]:
        self.now += passed
        return self.desk.beat(self.now)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def order(backend: str = "a", command: str = "cordon", team: str = "") -> OrderRow:
    return OrderRow(team, backend, command, "me", "", 0.0, None)


def test_orders_in_force_count_before_the_first_decision(house):
    """They are read at the start; what has not changed since is no news."""
    house.orders = [order()]
    assert house.open() == [Order(Command.CORDON, "a")]
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat() == []


def test_an_order_comes_and_is_taken_back(house):
    """Within one reading each; a heartbeat never reads by itself."""
    assert house.beat() == []
    house.orders = [order()]
    house.work()
    assert house.beat() == [Order(Command.CORDON, "a")]
    house.orders = [order(command="drain")]
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat() == [Order(Command.DRAIN, "a")]
    house.orders = []
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat() == [Order(Command.RESUME, "a")]


def test_all_that_is_in_force_is_told_again(house):
    """A backend that has been replaced is cordoned as the one before was."""
    house.orders = [order(), order("b", "drain")]
    house.open()
    assert house.desk.again() == [Order(Command.CORDON, "a"), Order(Command.DRAIN, "b")]


def test_what_cannot_be_read_changes_nothing(house):
    """Orders stay in force while the database is away."""
    house.orders = [order()]
    house.open()
    house.error = OSError("away")
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat(ORDERS_EVERY) == []
    house.error = None
    house.work()
    assert house.beat() == []


def test_one_question_of_a_kind_at_a_time(house):
    """While the database is slow, nothing piles up."""
    for _ in range(20):
        house.beat(10)
    assert house.work() == ["status", "orders"]


def test_how_often(house):
    """Less than one statement a second: a status every five seconds, orders every two."""
    kinds: list[str] = []
    for _ in range(60):
        house.beat(1)
        kinds += house.work()
    assert (kinds.count("status"), kinds.count("orders")) == (60 // STATUS_EVERY, 60 // ORDERS_EVERY)


def test_a_status_that_takes_long_is_made_seldom(house, monkeypatch):
    """It never takes more than a hundredth of a core."""
    overview = house.machine.overview

    def slow() -> Any:
        house.now += 0.2
        return overview()

    monkeypatch.setattr(house.machine, "overview", slow)
    house.beat(ORDERS_EVERY)
    house.work()
    house.beat(SHARE * 0.2 - 1)
    assert "status" not in house.work()
    house.beat(2)
    assert "status" in house.work()


def test_the_document_is_that_of_the_machine(house):
    """Under an id of its own, with what waits."""
    house.machine.handle(1, queued(1), tick(a=0, b=0))
    house.beat(ORDERS_EVERY)
    house.work()
    (row,) = house.written
    assert (row.scheduler_id, row.team) == ("7 DispatchExecutor", "")
    assert json.loads(row.document)["held"] == 1


def test_missing_tables_are_said_once(house, caplog):
    """With what to run; the scheduler works on, and they are looked for again in a while."""
    house.error = TablesMissing()
    assert house.open() == []
    for _ in range(3):
        house.beat(1)
        house.work()
    found = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(found) == 1
    assert "airflow db migrate" in found[0]
    assert house.work() == []
    house.beat(300)
    house.error = None
    house.work()
    assert len(house.written) == 1


def test_an_order_of_another_team_is_not_ours(monkeypatch):
    """Backends of two teams may have one name."""
    house = House(monkeypatch, team="blue")
    house.orders = [order(team="red"), order("b", team="blue")]
    assert house.open() == [Order(Command.CORDON, "b")]


def test_the_log_says_each_order_once(house, caplog):
    """When it comes, and when it is taken back."""
    caplog.set_level("INFO")
    house.orders = [order(command="drain")]
    house.open()
    for rows in (house.orders, [], []):
        house.orders = rows
        house.beat(ORDERS_EVERY)
        house.work()
    house.beat()
    assert [message for message in caplog.messages if message.startswith("Order of an operator")] == [
        "Order of an operator: drain backend 'a'.",
        "Order of an operator: resume backend 'a'.",
    ]


def recall(house: House, backend: str = "a") -> None:
    """Order it now, in place of the last one."""
    row = order(backend, "recall")._replace(since=house.now, until=house.now + 1)
    house.orders = [*(each for each in house.orders if each.command != "recall"), row]


def read(house: House) -> list[Order]:
    """The news of the next reading."""
    house.beat(ORDERS_EVERY)
    house.work()
    return house.beat()


def recalls(house: House) -> dict[str, float]:
    """Those that the next status says were done."""
    house.beat(STATUS_EVERY)
    house.work()
    found: dict[str, float] = json.loads(house.written[-1].document)["recalls"]
    return found


RECALL = Order(Command.RECALL, "a")


def test_a_recall_is_done_once(house):
    """After what lasts, and again only where it is ordered again; the status says which was done last."""
    house.open()
    assert recalls(house) == {}
    recall(house)
    house.orders.append(order(command="drain"))
    assert read(house) == [Order(Command.DRAIN, "a"), RECALL]
    assert [read(house) for _ in range(3)] == [[], [], []]
    first = recalls(house)
    recall(house)
    assert read(house) == [RECALL]
    assert recalls(house) == {"a": first["a"] + STATUS_EVERY + 3 * ORDERS_EVERY + ORDERS_EVERY}


def test_a_status_from_before_a_recall_does_not_say_that_it_is_done(house, monkeypatch):
    """Not one that is written before the machine is told, nor one for which the machine was looked at before that:
    whoever waits would be told that all has come back."""
    house.open()
    house.work()
    recall(house)
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat(STATUS_EVERY) == [RECALL]
    house.work()
    assert json.loads(house.written[-1].document)["recalls"] == {}

    first = recalls(house)
    overview = house.machine.overview

    def overtaken() -> Any:
        seen = overview()
        assert [house.beat(), house.beat()] == [[RECALL], []]
        return seen

    recall(house)
    monkeypatch.setattr(house.machine, "overview", overtaken)
    house.beat(STATUS_EVERY)
    house.tasks.reverse()  # the orders are read before
    house.work()
    assert json.loads(house.written[-1].document)["recalls"] == first


@pytest.mark.parametrize("passed", [-1e6, 100.0, 1e6])
def test_a_recall_reaches_who_could_not_read_it_whatever_the_clocks(house, passed):
    """The database was away for long, or the clock of whoever gave it is another one: it is done when it is read."""
    house.open()
    house.error = OSError("away")
    recall(house)
    house.orders = [row._replace(since=row.since - passed, until=row.until - passed) for row in house.orders]
    assert read(house) == read(house) == []
    house.error = None
    assert [read(house), read(house)] == [[RECALL], []]


def test_a_scheduler_that_begins_later_has_nothing_to_take_back(house):
    """A task that it sends was sent after that recall, and so its status says that nothing is left to do."""
    recall(house)
    given = house.now
    assert house.open() == read(house) == []
    assert recalls(house) == {"a": given}


def test_a_recall_is_done_by_a_scheduler_whose_first_reading_failed(house):
    """It cannot tell whether it has sent anything since: what comes back once more is sent again in the same try."""
    recall(house)
    house.error = OSError("away")
    assert house.open() == []
    assert read(house) == []
    house.error = None
    assert [read(house), read(house)] == [[RECALL], []]


def test_the_start_does_not_wait_for_a_locked_table(house, monkeypatch, caplog):
    """Orders in force come when they can be read, and nothing is asked twice meanwhile."""
    monkeypatch.setattr(desk, "OPEN_WITHIN", 0.0)
    house.orders = [order()]
    assert house.desk.open() == house.beat() == []
    assert "could not be read at the start" in caplog.text
    assert house.work().count("orders") == 1
    assert house.beat() == [Order(Command.CORDON, "a")]


def test_a_recall_after_the_tables_were_made_is_done(house):
    """There can have been none before."""
    house.error = TablesMissing()
    house.open()
    house.error = None
    recall(house)
    house.beat(300)
    house.work()
    assert house.beat() == [RECALL]


def test_a_recall_of_another_team_is_not_ours(monkeypatch):
    """Backends of two teams may have one name."""
    house = House(monkeypatch, team="blue")
    house.open()
    recall(house)
    assert read(house) == []
    assert recalls(house) == {}


def test_a_command_of_another_version_is_left_to_that(house):
    """It stops neither the start nor the others."""
    house.orders = [order(command="suspend"), order("b")]
    assert house.open() == [Order(Command.CORDON, "b")]
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat() == []


def test_an_order_runs_out_while_the_database_is_away(house):
    """By the clock of the scheduler's host."""
    house.orders = [order()._replace(until=house.now + 10)]
    assert house.open() == [Order(Command.CORDON, "a")]
    house.error = OSError("away")
    assert house.beat(9) == []
    assert house.beat(2) == [Order(Command.RESUME, "a")]


def test_no_tables_no_orders(house):
    """Nobody could take them back."""
    house.orders = [order()]
    house.open()
    house.error = TablesMissing()
    house.beat(ORDERS_EVERY)
    house.work()
    assert house.beat() == [Order(Command.RESUME, "a")]
