# SPDX-License-Identifier: Apache-2.0
"""A task's processes are let begin, are kept alive and end by the same rules in Airflow and in the simulation."""

from __future__ import annotations

import pytest

from .sides import GO, REFUSED, Seen, Side


def test_a_process_of_a_queued_task_may_begin(side: Side) -> None:
    """And again, where the answer was lost; the row stays its scheduler's."""
    assert side.see() == Seen("scheduled", None, 1, 0)
    side.queue()
    assert [side.start(1), side.start(1)] == [GO, GO]
    assert side.see() == Seen("running", "a", 1, 0)


def test_one_process_of_a_try_may_begin(side: Side) -> None:
    """Others are refused, before and after its end."""
    side.queue()
    assert [side.start(1), side.start(2)] == [GO, REFUSED]
    assert side.heartbeat(1)
    assert not side.heartbeat(2)
    assert side.succeed(1)
    assert [side.start(1), side.start(2)] == [REFUSED, REFUSED]
    assert side.see().state == "success"


def test_a_task_that_is_not_queued_lets_nobody_begin(side: Side) -> None:
    """Neither one that was put back, nor one that waits for its trigger."""
    assert side.start(1) == REFUSED
    side.queue()
    side.put_back("a")
    assert side.start(1) == REFUSED
    side.queue()
    assert [side.start(1), side.defer(1)] == [GO, True]
    assert [side.start(1), side.start(2)] == [REFUSED, REFUSED]


def test_a_process_whose_task_was_put_back_may_begin_once_it_is_queued_again(side: Side) -> None:
    """The id is the same."""
    side.queue()
    side.put_back("a")
    assert side.see() == Seen("scheduled", None, 1, 0)
    side.queue("b")
    assert side.start(1, id=0) == GO
    assert side.see() == Seen("running", "b", 1, 0)


def test_a_process_of_an_earlier_try_is_refused(side: Side) -> None:
    """A cleared task has another id."""
    side.queue()
    side.clear()
    assert side.see()[2:] == (2, 1)
    side.queue()
    assert [side.start(1, id=0), side.start(2)] == [REFUSED, GO]
    assert not side.heartbeat(1)
    assert not side.succeed(1)
    assert side.see().state == "running"


def test_a_process_of_a_try_that_failed_while_it_was_queued_may_begin_in_the_next(side: Side) -> None:
    """That one has the same id. (From Airflow 3.4 on it has another.)"""
    side.queue()
    side.event("a", "failed")
    assert side.see()[:3] == ("scheduled", "a", 2)
    side.queue()
    assert side.start(1, id=0) == (REFUSED if side.one_id_per_try else GO)
    assert side.see()[:3] == ("queued" if side.one_id_per_try else "running", "a", 2)


def test_a_process_that_is_set_back_has_to_end(side: Side) -> None:
    """Whoever begins after it is the try's process."""
    side.queue()
    assert side.start(1) == GO
    side.unstart("a")
    assert side.see() == Seen("scheduled", None, 1, 0)
    assert not side.heartbeat(1)
    assert not side.succeed(1)
    side.queue()
    assert [side.start(2), side.heartbeat(1), side.heartbeat(2)] == [GO, False, True]


def test_a_process_that_is_restarted_has_to_end(side: Side) -> None:
    """Its try is used, nobody owns the next one, and it cannot report anything."""
    side.queue()
    assert side.start(1) == GO
    side.restart("a")
    assert side.see() == Seen("scheduled", None, 2, 1)
    assert not side.heartbeat(1)
    assert not side.succeed(1)


def test_only_the_owner_sets_back(side: Side) -> None:
    """Another scheduler's clerk changes nothing."""
    side.queue()
    side.put_back("b")
    assert side.see() == Seen("queued", "a", 1, 0)
    assert side.start(1) == GO
    side.unstart("b")
    side.restart("b")
    assert side.see() == Seen("running", "a", 1, 0)


def test_a_task_that_defers_goes_on_in_the_same_try(side: Side) -> None:
    """With the same id; its scheduler stays its owner until another one queues it."""
    side.queue()
    assert [side.start(1), side.defer(1)] == [GO, True]
    assert side.see() == Seen("deferred", "a", 1, 0)
    assert not side.heartbeat(1)
    side.trigger()
    assert side.see() == Seen("scheduled", "a", 1, 0)
    side.queue("b")
    assert [side.start(2), side.heartbeat(1)] == [GO, False]
    assert side.see() == Seen("running", "b", 1, 0)


@pytest.mark.parametrize("state", ["scheduled", "queued", "deferred"])
def test_a_task_that_does_not_run_is_cleared_at_once(side: Side, state: str) -> None:
    """It is scheduled for its next try, with another id."""
    if state != "scheduled":
        side.queue()
    if state == "deferred":
        assert [side.start(1), side.defer(1)] == [GO, True]
    side.clear()
    seen = side.see()
    assert (seen.state, seen.attempt, seen.id) == ("scheduled", 2, 1)


def test_a_task_that_runs_and_is_cleared_waits_for_its_end(side: Side) -> None:
    """In the same try; its process has to end. (Airflow 3.4 keeps the id until then.)"""
    side.queue()
    assert side.start(1) == GO
    side.clear()
    assert side.see() == Seen("restarting", "a", 1, int(not side.one_id_per_try))
    assert not side.heartbeat(1)
    assert not side.succeed(1)
    assert side.start(2, id=0) == REFUSED


def test_who_may_report_a_success(side: Side) -> None:
    """Airflow takes it from any process that has the id while the task runs; the simulation holds that for a fault."""
    side.queue()
    assert [side.start(1), side.start(2)] == [GO, REFUSED]
    assert side.succeed(2) is not side.is_model
