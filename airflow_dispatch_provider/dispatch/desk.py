# SPDX-License-Identifier: Apache-2.0
"""The desk where operators see and order: the status of this scheduler's executor is written, and orders are read,
beside the scheduler's thread. Without the tables for that, everything else works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import LASTING, OrderRow, StatusRow, TablesMissing
from airflow_dispatch_provider.bridge.event_log import json_of
from airflow_dispatch_provider.dispatch.report import Facts, Report
from airflow_dispatch_provider.lifecycle.events import Command, Order
from airflow_dispatch_provider.lifecycle.overview import Overview

log = logging.getLogger(__name__)

STATUS_EVERY, ORDERS_EVERY = 5.0, 2.0
"""Seconds. Orders reach a scheduler within its own heartbeat of 5 s, and both together are less than one statement a
second."""

SHARE, STATUS_AT_LEAST_EVERY = 100, 20.0
"""A status that takes long to make is made so seldom that it takes one part in so many of a core, but once in so many
seconds."""

_MISSING_EVERY = 300.0
"""Seconds after which missing tables are looked for again."""

_KEPT = 3_600.0
"""Seconds for which the last status of a scheduler is kept that writes none any more."""


OPEN_WITHIN = 5.0
"""Seconds for which the start waits for the orders: somebody may have locked their table."""


class Worker(Protocol):
    """The thread that does it, and nothing else: what keeps the tables from being used, such as a lock, keeps it for as
    long as that lasts. See ``worker.Worker``."""

    def do(self, kind: str, call: Callable[[], None]) -> None: ...


class Shown(Protocol):
    """See ``lifecycle.machine.Machine.overview``."""

    def overview(self) -> Overview: ...


class Desk:
    """One for each executor that runs. ``open`` and ``beat`` are called on the scheduler's thread."""

    def __init__(
        self,
        machine: Shown,
        worker: Worker,
        scheduler_id: str,
        facts: Facts,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        :param scheduler_id: differs between the executors of one scheduler, too
        :param clock: monotonic seconds
        :param wall: seconds since 1970
        """
        self._machine, self._worker, self._facts = machine, worker, facts
        self._scheduler_id = scheduler_id
        self._clock, self._wall = clock, wall
        self._report = Report(facts)
        self._status_due = self._orders_due = self._tidy_due = 0.0
        self._writes = self._reads = False
        self._orders: SimpleQueue[Sequence[OrderRow] | None] = SimpleQueue()
        """None: they could not be read."""

        self._rows: Sequence[OrderRow] = ()
        self._in_force: dict[str, Command] = {}
        self._done: Mapping[str, float] = {}
        """By backend the moment of the last recall that was done here, or was given before this scheduler began.
        Replaced, never changed: another thread reads it."""

        self._followed: Mapping[str, float] = {}
        """As much of that as the machine has been told."""

        self._said_missing = False

    def open(self) -> list[Order]:
        """The orders that are in force at the start, before anything is decided. The only question to the database
        that is waited for, for ``OPEN_WITHIN`` at most. A recall that is found now was given before anything was sent
        here; of one that is found later, nobody knows."""
        self._ask_orders()
        with suppress(Empty):
            rows = self._orders.get(timeout=OPEN_WITHIN)
            if rows is not None:
                self._rows, self._done = rows, recalls(rows, self._facts.team)
                return self._news()
        log.error("The orders of operators could not be read at the start; they are read again soon.")
        return []

    def beat(self, now: float) -> list[Order]:
        """Called at every heartbeat; never waits.

        :param now: monotonic seconds
        :returns: orders that have come, and those that were taken back; they are told before the next call
        """
        self._followed = self._done
        if now >= self._status_due and not self._writes:
            self._writes = True
            self._worker.do("status", self._write)
        if now >= self._orders_due and not self._reads:
            self._ask_orders()
        with suppress(Empty):
            while True:
                rows = self._orders.get_nowait()
                self._rows = self._rows if rows is None else rows
        return self._news() if self._rows or self._in_force else []

    def _ask_orders(self) -> None:
        self._reads = True
        self._worker.do("orders", self._read)

    def again(self) -> list[Order]:
        """All that is in force: for a machine that has other backends now, of which it knows nothing."""
        return [Order(command, name) for name, command in self._in_force.items()]

    def _news(self) -> list[Order]:
        """Orders run out by themselves, also while the database cannot be asked."""
        wanted = in_force(self._rows, self._facts.team, self._wall())
        before, self._in_force = self._in_force, wanted
        given = [Order(wanted[name], name) for name in wanted if before.get(name) is not wanted[name]]
        resumed = [Order(Command.RESUME, name) for name in before if name not in wanted]
        news = [*given, *resumed, *self._once()]
        for order in news:
            log.info("Order of an operator: %s backend %r.", order.command.value, order.backend)
        return news

    def _once(self) -> list[Order]:
        """After what lasts: one that drains a backend first is not to have given it something in between."""
        given = recalls(self._rows, self._facts.team)
        new = {name: since for name, since in given.items() if self._done.get(name) != since}
        if new:
            self._done = {**self._done, **new}
        return [Order(Command.RECALL, name) for name in new]

    # On the worker's thread

    def _write(self) -> None:
        began = self._clock()
        pause = STATUS_EVERY
        try:
            wall_now = self._wall()
            # Before the overview: what that shows is then after each of these recalls.
            followed = self._followed
            document = self._report.document(self._machine.overview(), began, wall_now - began)
            document["recalls"] = dict(followed)
            row = StatusRow(self._scheduler_id, self._facts.team, wall_now, json_of(document))
            made = self._clock() - began
            tables.write_status(row)
            pause = min(max(pause, SHARE * made), STATUS_AT_LEAST_EVERY)
            if began >= self._tidy_due:
                self._tidy_due = began + _KEPT
                tables.forget(wall_now - _KEPT)
            self._said_missing = False
        except TablesMissing as error:
            self._say_missing(error)
            pause = _MISSING_EVERY
        finally:
            self._status_due, self._writes = self._clock() + pause, False

    def _read(self) -> None:
        pause, rows = ORDERS_EVERY, None
        try:
            rows = tables.read_orders(self._wall())
        except TablesMissing as error:
            rows = []
            self._say_missing(error)
            pause = _MISSING_EVERY
        finally:
            self._orders.put(rows)
            self._orders_due, self._reads = self._clock() + pause, False

    def _say_missing(self, error: TablesMissing) -> None:
        if not self._said_missing:
            self._said_missing = True
            log.warning("Status and orders are not available: %s", error)


def in_force(rows: Collection[OrderRow], team: str, now: float) -> dict[str, Command]:
    """The order for each backend of a team. A command that only another version of this package knows is left to that.

    :param now: seconds since 1970
    """
    return {
        row.backend: Command(row.command)
        for row in rows
        if row.command in LASTING and _is_ours(row, team, now)
    }


def recalls(rows: Iterable[OrderRow], team: str) -> dict[str, float]:
    """By backend of a team, when its recall was given, by the clock of whoever gave it: a name of that order, which is
    compared with no other clock."""
    return {row.backend: row.since for row in rows if row.command == Command.RECALL and row.team == team}


def _is_ours(row: OrderRow, team: str, now: float) -> bool:
    return row.team == team and (row.until is None or row.until > now)
