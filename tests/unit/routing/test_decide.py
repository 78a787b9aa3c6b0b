# SPDX-License-Identifier: Apache-2.0
"""Which of everything that is held goes where, case by case."""

from __future__ import annotations

import pytest
from unit.routing.builders import Waiting, match

from airflow_dispatch_provider.routing.decide import decide
from airflow_dispatch_provider.routing.model import (
    EXECUTE_CALLBACK,
    EXECUTE_TASK,
    TEST_CONNECTION,
    BackendView,
    Snapshot,
)
from airflow_dispatch_provider.routing.reasons import Reason

A, B, AB = match("a"), match("b"), match("a", "b")
A_THEN_B = match("a", "b", overflow_after=30)
A_ONLY = match("a", "b", overflow_after="never", name="a only")
ALL_KINDS = frozenset({EXECUTE_TASK, EXECUTE_CALLBACK, TEST_CONNECTION})


def test_nothing_held():
    """No work, no decisions."""
    assert Waiting().decide(a=5) == []


def test_no_backends():
    """Nothing can be decided without backends, and nothing fails."""
    assert Waiting().add("x", A).decide() == []


def test_priority_over_all_lanes():
    """The highest priority_weight goes first, whatever route it has."""
    waiting = Waiting().add("low", A, 1).add("high", AB, 9).add("middle", A, 5)
    assert [key for key, *_ in waiting.decide(a=2)] == ["high", "middle"]


def test_older_first_among_equals():
    """Equal priorities go in the order of arrival, over all lanes."""
    waiting = Waiting().add(1, A).add(2, AB).add(3, A).add(4, AB)
    assert [key for key, *_ in waiting.decide(a=3)] == [1, 2, 3]


def test_callbacks_then_connection_tests_then_tasks():
    """The type of workload counts before its priority."""
    waiting = Waiting().add("task", A, 99).add("test", A, 1, kind=TEST_CONNECTION)
    waiting.add("callback", A, 0, kind=EXECUTE_CALLBACK).add("odd", A, 999, kind="Unheard")
    found = waiting.decide(a=BackendView(9, kinds=ALL_KINDS | {"Unheard"}))
    assert [key for key, *_ in found] == ["callback", "test", "task", "odd"]


def test_late_binding():
    """Work that waits goes to whichever target has a slot when it is decided."""
    waiting = Waiting().add("x", AB)
    assert waiting.decide(a=0, b=0) == []
    assert waiting.decide(a=0, b=1) == [("x", "b", "overflow")]
    assert waiting.decide(a=1, b=1) == [("x", "a", "first_choice")]


def test_slots_are_shared_by_all_routes():
    """Two routes to one backend have its slots together."""
    waiting = Waiting().add(1, A).add(2, match("a", name="other")).add(3, A)
    assert len(waiting.decide(a=2)) == 2


def test_full_backend_starves_no_other():
    """A backlog of high priority for a full backend does not hold up the others."""
    waiting = Waiting()
    for number in range(50):
        waiting.add(number, A, priority=100)
    waiting.add("x", B, priority=0)
    assert waiting.decide(a=0, b=3) == [("x", "b", "first_choice")]


def test_overflow_at_once():
    """Tasks beyond the first target's slots go to the next in the same batch."""
    waiting = Waiting().add(1, AB).add(2, AB).add(3, AB)
    assert waiting.decide(a=1, b=1) == [(1, "a", "first_choice"), (2, "b", "overflow")]


def test_overflow_after_seconds():
    """A full target is waited for as long as the route says."""
    waiting = Waiting().add("x", A_THEN_B, since=100.0)
    assert waiting.decide(now=129.9, a=0, b=1) == []
    assert waiting.decide(now=130.0, a=0, b=1) == [("x", "b", "overflow")]


def test_overflow_never():
    """With ``never`` another target is no help against a full one."""
    assert Waiting().add("x", A_ONLY).decide(now=1e9, a=0, b=9) == []


def test_old_work_of_low_priority_overflows_past_new_work():
    """New work at the head of a lane waits for its target; the old behind it overflows, best first."""
    waiting = Waiting().add("new", A_THEN_B, 9, since=95).add("newer", A_THEN_B, 5, since=99)
    waiting.add("old", A_THEN_B, 1, since=0).add("old, better", A_THEN_B, 2, since=60)
    assert waiting.decide(now=100, a=0, b=9) == [("old, better", "b", "overflow"), ("old", "b", "overflow")]
    assert waiting.decide(now=100, a=1, b=9)[0] == ("new", "a", "first_choice")


@pytest.mark.parametrize(("since", "overflows"), [(70.0, True), (70.1, False)])
def test_what_stands_behind_new_work_overflows_after_the_same_time(since, overflows):
    """To the very second, as the first of a lane."""
    waiting = Waiting().add("new", A_THEN_B, 9, since=95).add("old", A_THEN_B, 1, since=since)
    assert waiting.decide(now=100.0, a=0, b=9) == ([("old", "b", "overflow")] if overflows else [])


def test_new_work_does_not_overflow_behind_old_work():
    """That what is better has waited long enough says nothing of the next in its lane."""
    waiting = Waiting().add("old", A_THEN_B, priority=9, since=0).add("new", A_THEN_B, since=99)
    assert waiting.decide(now=100, a=0, b=9) == [("old", "b", "overflow")]


def test_overflowing_work_keeps_its_place_among_the_others():
    """Work that overflows from deep in its lane does not pass better work of another lane."""
    waiting = Waiting().add("new", A_THEN_B, 9, since=99).add("old", A_THEN_B, 1).add("own", B, 5)
    assert waiting.decide(now=100, a=0, b=1) == [("own", "b", "first_choice")]


def test_removed_old_work_is_not_overflowed():
    """That something old was once in a lane lets nothing new overflow."""
    waiting = Waiting().add("old", A_THEN_B, since=0).add("new", A_THEN_B, since=99)
    waiting.queue.remove("old")
    assert waiting.decide(now=100, a=0, b=9) == []


def test_failover():
    """A target that takes no work is passed over at once, even where overflow is never allowed."""
    blocked = BackendView(9, blocked=Reason.CIRCUIT_OPEN)
    assert Waiting().add("x", A_ONLY).decide(a=blocked, b=1) == [("x", "b", "failover")]


def test_cordoned_backend_gets_nothing():
    """Free slots of a cordoned backend are not used."""
    assert Waiting().add("x", A).decide(a=BackendView(9, blocked=Reason.CORDONED)) == []


def test_half_open_backend_gets_one():
    """A view with one free slot gets one careful try; the rest goes elsewhere."""
    waiting = Waiting().add(1, AB).add(2, AB).add(3, AB)
    assert waiting.decide(a=1, b=5) == [(1, "a", "first_choice"), (2, "b", "overflow"), (3, "b", "overflow")]


def test_workload_goes_to_a_backend_that_can_run_it():
    """A callback passes over a target that runs tasks only."""
    waiting = Waiting().add("callback", AB, kind=EXECUTE_CALLBACK).add("task", AB)
    found = waiting.decide(a=1, b=BackendView(1, kinds=ALL_KINDS))
    assert found == [("callback", "b", "capable"), ("task", "a", "first_choice")]


def test_workload_that_nobody_can_run_waits():
    """It takes no slot and holds nobody up."""
    assert Waiting().add("callback", A, kind=EXECUTE_CALLBACK).add("x", A).decide(a=1) == [
        ("x", "a", "first_choice")
    ]


def test_backend_that_is_gone():
    """A target that is not configured any more is passed over; alone, it leaves the work waiting."""
    waiting = Waiting().add("x", match("gone", "a")).add("y", match("gone", name="lost"))
    assert waiting.decide(a=5) == [("x", "a", "failover")]


def test_less_than_no_slots():
    """A backend over its slots (they were lowered while it was full) gets nothing."""
    assert Waiting().add("x", A).decide(a=-3) == []


def test_routes_of_one_name_keep_their_own_rules():
    """Routes that look alike (the default one and one for the queue ``default``) do not share a lane."""
    patient = match("a", "b", overflow_after=30, name="default")
    waiting = Waiting().add("patient", patient).add("other", match("a", "b", name="default"))
    assert waiting.decide(now=1, a=0, b=5) == [("other", "b", "overflow")]


def test_decision_names_route_and_target():
    """A decision carries what the event log needs."""
    waiting = Waiting().add("x", A)
    (decision,) = decide(Snapshot(0.0, {"a": BackendView(1)}), waiting.queue.lanes)
    assert (decision.route, str(decision.target), decision.reason.words) == (
        "a",
        "a",
        "the route's first target has a free slot",
    )


def test_deciding_costs_what_moves_not_what_waits(monkeypatch):
    """Of a long lane only as many are looked at as have slots, and one more."""
    seen = []
    waiting = Waiting()
    for number in range(1000):
        waiting.add(number, AB)
    entries = next(iter(waiting.queue.lanes)).entries
    iterate = type(entries).__iter__

    def watched(self):
        for held in iterate(self):
            seen.append(held.key)
            yield held

    monkeypatch.setattr(type(entries), "__iter__", watched)
    assert len(waiting.decide(a=2, b=1)) == 3
    assert len(seen) <= 4
    seen.clear()
    assert waiting.decide(a=0, b=0) == []
    assert seen == []
