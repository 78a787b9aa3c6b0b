# SPDX-License-Identifier: Apache-2.0
"""Schedulers adopt, hear of ends and lose patience by the same rules in Airflow and in the simulation."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from .sides import GO, Seen, Side


def running(side: Side) -> None:
    side.queue()
    assert side.start(1) == GO


def resumed(side: Side) -> None:
    running(side)
    assert side.defer(1)
    side.trigger()


# Adoption


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("how", ["fall_silent", "end"])
def test_what_a_dead_scheduler_had_is_offered(side: Side, how: str, runs: bool) -> None:
    """Queued or running; it is the other one's then, and is not offered again."""
    running(side) if runs else side.queue()
    getattr(side, how)("a")
    assert side.adopt("b")
    assert side.see() == Seen("running" if runs else "queued", "b", 1, 0)
    assert not side.adopt("b")
    assert not runs or side.heartbeat(1)


def test_what_a_living_scheduler_has_is_not_offered(side: Side) -> None:
    """To nobody."""
    running(side)
    assert not side.adopt("b")
    assert not side.adopt("a")
    assert side.see().owner == "a"


def test_what_is_with_no_executor_is_not_offered(side: Side) -> None:
    """Scheduled or deferred, after it was queued by one that has died."""
    running(side)
    assert side.defer(1)
    side.end("a")
    assert not side.adopt("b")
    side.trigger()
    assert not side.adopt("b")
    assert side.see() == Seen("scheduled", "a", 1, 0)


def test_a_scheduler_that_was_taken_for_dead_lives_with_its_next_heartbeat(side: Side) -> None:
    """But one, since what a heartbeat writes is the time of the one before. Until then its tasks are offered."""
    side.fall_silent("a")
    for beats, is_offered in enumerate((True, True, False)):
        side.queue("a")
        if beats:
            side.beat("a")
        assert side.adopt("b") is is_offered
        side.put_back("b")
    assert side.see().owner == "a"


def test_a_scheduler_adopts_its_own_tasks_when_its_heartbeat_is_late(side: Side) -> None:
    """It marks its own job, and remains the owner."""
    side.queue()
    side.fall_silent("a")
    assert side.adopt("a")
    assert side.adopt("a")
    assert side.see() == Seen("queued", "a", 1, 0)
    side.beat("a")
    side.beat("a")
    assert not side.adopt("a")


def test_a_task_that_was_cleared_while_it_ran_is_offered(side: Side) -> None:
    """As one that runs."""
    running(side)
    side.clear()
    side.end("a")
    assert side.adopt("b")
    assert side.see()[:3] == ("restarting", "b", 1)


def test_the_model_adopts_all_and_airflow_resets_the_rest(side: Side) -> None:
    """Airflow would start another try of what the executor did not take, with another id; this package takes all."""
    side.queue()
    side.end("a")
    side.takes = side.is_model
    assert side.adopt("b")
    assert side.see() == (Seen("queued", "b", 1, 0) if side.is_model else Seen("scheduled", None, 2, 1))


# Events of executors


@pytest.mark.parametrize("told", ["success", "failed"])
@pytest.mark.parametrize("runs", [False, True])
def test_an_end_of_a_task_that_is_not_over_uses_the_try(side: Side, told: str, runs: bool) -> None:
    """Whatever the executor tells, and whether or not a process has begun. (Before Airflow 3.4 the next one has the
    same id where none has.)"""
    running(side) if runs else side.queue()
    side.event("a", told)
    assert side.see() == Seen("scheduled", "a", 2, int(runs or side.one_id_per_try))
    assert not runs or not side.heartbeat(1)


@pytest.mark.parametrize("told", ["success", "failed"])
def test_an_end_that_another_scheduler_tells_is_ignored(side: Side, told: str) -> None:
    """The task is another's by now, or nobody's."""
    running(side)
    side.event("b", told)
    assert side.see() == Seen("running", "a", 1, 0)
    side.unstart("a")
    side.event("a", told)
    assert side.see() == Seen("scheduled", None, 1, 0)


def test_an_end_of_a_task_that_the_executor_has_again_is_ignored(side: Side) -> None:
    """It was queued once more meanwhile."""
    side.queue()
    side.holds = True
    side.event("a", "failed")
    assert side.see() == Seen("queued", "a", 1, 0)


def test_an_end_of_an_earlier_try_is_ignored(side: Side) -> None:
    """Also when the next one is queued."""
    side.queue()
    side.clear()
    side.see()
    side.queue()
    side.event("a", "failed", attempt=1)
    assert side.see() == Seen("queued", "a", 2, 1)


def test_an_end_of_a_task_that_has_succeeded_is_ignored(side: Side) -> None:
    """The process has reported before."""
    running(side)
    assert side.succeed(1)
    side.event("a", "failed")
    assert side.see() == Seen("success", "a", 1, 0)


def test_an_end_of_a_task_that_has_deferred_is_ignored(side: Side) -> None:
    """While it waits for its trigger."""
    running(side)
    assert side.defer(1)
    side.event("a", "failed")
    assert side.see() == Seen("deferred", "a", 1, 0)


def test_a_success_of_a_task_that_goes_on_is_that_of_its_deferral(side: Side) -> None:
    """The trigger may be quicker than the executor. (Airflow 3.1 uses the try.)"""
    resumed(side)
    side.event("a", "success")
    is_known = AIRFLOW_V_3_2_PLUS or side.is_model
    assert side.see() == Seen("scheduled", "a", 1 if is_known else 2, 0)


def test_a_failure_of_a_task_that_goes_on_uses_the_try(side: Side) -> None:
    """Though its process has deferred."""
    resumed(side)
    side.event("a", "failed")
    assert side.see() == Seen("scheduled", "a", 2, int(side.one_id_per_try))


@pytest.mark.parametrize("told", ["success", "failed"])
def test_an_end_of_a_task_that_was_cleared_lets_it_start_anew(side: Side, told: str) -> None:
    """As its next try."""
    running(side)
    side.clear()
    side.see()
    side.event("a", told)
    assert side.see() == Seen("scheduled", "a", 2, 1)


# Patience


def test_a_task_that_is_queued_for_too_long_is_scheduled_again_twice(side: Side) -> None:
    """In the same try, with the same id; the third time it fails, however many tries are left."""
    for _ in range(2):
        side.queue()
        assert side.wait_queued("a")
        assert side.see() == Seen("scheduled", None, 1, 0)
    side.queue()
    assert side.wait_queued("a")
    assert side.see() == Seen("failed", "a", 1, 0)


def test_a_process_that_begins_renews_the_patience(side: Side) -> None:
    """Only the times since then count. (Airflow 3.1 counts all of the try.)"""
    for _ in range(2):
        side.queue()
        assert side.wait_queued("a")
    resumed(side)
    side.queue()
    assert side.wait_queued("a")
    counts_all = not (AIRFLOW_V_3_2_PLUS or side.is_model)
    assert side.see() == (Seen("failed", "a", 1, 0) if counts_all else Seen("scheduled", None, 1, 0))


def test_a_task_that_cannot_be_revoked_stays_queued(side: Side) -> None:
    """However often."""
    side.queue()
    side.revokes = False
    for _ in range(4):
        assert side.wait_queued("a")
        assert side.see() == Seen("queued", "a", 1, 0)


def test_only_the_owner_loses_patience(side: Side) -> None:
    """With what is queued as with what runs."""
    side.queue()
    assert not side.wait_queued("b")
    assert side.start(1) == GO
    side.lose_heartbeat("b")
    assert side.see() == Seen("running", "a", 1, 0)


def test_a_task_whose_process_is_silent_uses_its_try(side: Side) -> None:
    """And its process has to end when it speaks again."""
    running(side)
    side.lose_heartbeat("a")
    assert side.see() == Seen("scheduled", "a", 2, 1)
    assert not side.heartbeat(1)


def test_a_task_that_was_cleared_and_whose_process_is_silent_starts_anew(side: Side) -> None:
    """Where nobody tells of its end."""
    running(side)
    side.clear()
    side.see()
    side.lose_heartbeat("a")
    assert side.see() == Seen("scheduled", "a", 2, 1)
