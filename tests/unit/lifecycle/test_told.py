# SPDX-License-Identifier: Apache-2.0
"""The user of a task that only waits for its turn is told why, after a while."""

from __future__ import annotations

import pytest
from unit.lifecycle.builders import machine, of, queued, route, tick

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.actions import Record
from airflow_dispatch_provider.lifecycle.events import BackendRules, Room

FULL = "every target that it may use is full. a: 0 of 0 slots are in use."


def told(m, *moments, **rooms):
    """The rows of a Tick at each moment."""
    return [row for now in moments for row in of(m.handle(now, tick(**(rooms or {"a": 0}))), actions.Record)]


def test_a_task_that_waits_for_long_has_one_row_that_says_why():
    """From the bound on, at the next look, and not again for the same reason."""
    m = machine(route("*", "a"), told_after=300)
    m.handle(0, queued(1), tick(a=0))
    assert told(m, *range(30, 300, 30)) == []
    assert told(m, 300) == [Record(1, "waits_full", FULL)]
    assert told(m, *range(330, 1000, 30)) == []


def test_another_reason_is_another_row():
    """Its target was not full enough to overflow before; then every target is full; then nothing takes work."""
    m = machine(route("*", "a", "b", overflow_after=400), told_after=300)
    m.handle(0, queued(1), tick(a=0, b=0))
    rows = told(m, *range(30, 500, 30), a=0, b=0)
    assert [row.word for row in rows] == ["waits_overflow", "waits_full"]
    away = Room(1, unavailable="no broker")
    assert [row.word for row in told(m, *range(510, 600, 30), a=away, b=away)] == ["waits_blocked"]


def test_a_target_that_the_route_leaves_out_is_said_to_be():
    """Its free slots are no riddle; a queue of a backend that is full by itself says why."""
    m = machine(
        route("*", "a", "b", overflow_after="never"), told_after=300, rules={"a": BackendRules(by_queue=True)}
    )
    m.handle(0, queued(1), tick(a=0, b=3))
    full = Room(3, closed={"q": "The queue has no memory."})
    (row,) = told(m, 300, a=full, b=3)
    assert row.detail == (
        "every target that it may use is full. a: 0 of 3 slots are in use. The queue has no memory."
        " b: It is left out (overflow_after: never)."
    )


def test_nothing_is_told_where_that_is_off():
    """But for what is broken."""
    m = machine(route("*", "a"), told_after=0)
    m.handle(0, queued(1), tick(a=0))
    assert told(m, *range(30, 3000, 30)) == []
    assert len(told(m, 3000, a=Room(1, unavailable="no broker"))) == 1


def test_callbacks_have_no_row():
    """They have no event log."""
    m = machine(route("*", "a"), told_after=300)
    m.handle(0, queued(1, kind="ExecuteCallback"), tick(a=Room(0, kinds=frozenset({"ExecuteCallback"}))))
    assert told(m, *range(30, 900, 30)) == []


@pytest.mark.parametrize(("lanes", "most"), [(1, 20), (30, 20 * 30)])
def test_a_long_backlog_does_not_fill_the_event_log(lanes, most):
    """The first twenty of a lane have rows, and no more than twenty in one heartbeat."""
    m = machine(*(route(f"q{lane}", "a") for lane in range(lanes)), told_after=300)
    m.handle(0, *(queued(number, f"q{number % lanes}") for number in range(3000)), tick(a=0))
    by_beat = [len(told(m, 300 + beat)) for beat in range(900)]
    assert max(by_beat) == 20
    assert sum(by_beat) == most


def test_whoever_comes_to_the_front_is_told():
    """The first twenty have gone."""
    m = machine(route("*", "a"), told_after=300)
    m.handle(0, *(queued(number) for number in range(30)), tick(a=0))
    assert len(told(m, 300, 301, 330)) == 20
    assert [row.key for row in told(m, 360, a=10)] == []
    assert [row.key for row in told(m, 390, 391, a=0)] == [*range(20, 30)]
