# SPDX-License-Identifier: Apache-2.0
"""Dispatching of workloads, over backends that keep what they are given."""

from __future__ import annotations

import json

from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

from .support import child, given, key, queue


def test_a_task_goes_to_the_backend_of_its_queue(make_router):
    """The route of the queue decides; without one the default does."""
    router = make_router({"a": 2, "b": 2}, routes=[{"queue": "for-b", "to": ["b"]}])
    queue(router, make_task("for-b", task_id="one"), make_task("nowhere", task_id="two"))
    router.heartbeat()
    assert (given(router, "a"), given(router, "b")) == (["two"], ["one"])


def test_nothing_is_decided_before_the_heartbeat(make_router):
    """Late binding: a queued workload is held, not given."""
    router, task = make_router({"a": 2}), make_task()
    queue(router, task)
    assert not given(router, "a")
    assert router.slots_occupied == 0
    assert router.has_task(task.ti)


def test_a_backend_gets_no_more_than_its_slots_best_first(make_router):
    """Two slots, three tasks: the two of highest priority_weight go, the third when one has ended."""
    router = make_router({"a": 2})
    low, high, middle = (make_task(priority=p, task_id=str(p)) for p in (1, 9, 5))
    queue(router, low, high, middle)
    router.heartbeat()
    router.heartbeat()
    assert set(given(router, "a")) == {"9", "5"}
    child(router, "a").finish(high)
    router.heartbeat()
    router.heartbeat()
    assert set(given(router, "a")) == {"9", "5", "1"}


def test_slots_follow_the_workers(make_router):
    """The fallback until workers are known; then as many as they have, also when these become fewer."""
    router = make_router({"a": {"executor": IN_MEMORY, "slots": "workers", "fallback_slots": 1}})
    tasks = [make_task(task_id=str(number), priority=9 - number) for number in range(6)]
    queue(router, *tasks)
    for workers, expected in ((None, 1), (3, 3), (2, 3), (0, 3), (4, 4), (None, 4)):
        child(router, "a").counted_slots = workers
        router.heartbeat()
        router.heartbeat()
        assert set(given(router, "a")) == {str(number) for number in range(expected)}
        assert router.slots_available == 0
    child(router, "a").counted_slots = 9
    router.heartbeat()
    router.heartbeat()
    assert router.slots_available == 3


def test_a_number_of_slots_asks_no_workers(make_router):
    """The executor's knowledge of its workers does not matter then."""
    router = make_router({"a": 2})
    child(router, "a").counted_slots = 9
    router.heartbeat()
    router.heartbeat()
    assert router.slots_available == 2


def test_a_full_backend_does_not_keep_others_from_working(make_router):
    """Tasks for a full backend wait; those for a free one pass them."""
    router = make_router({"a": 1, "b": 1}, routes=[{"queue": "b", "to": ["b"]}])
    queue(router, *(make_task("a", priority=10) for _ in range(5)), make_task("b", task_id="mine"))
    router.heartbeat()
    assert given(router, "b") == ["mine"]


def test_the_terminal_event_reaches_the_scheduler_and_frees_the_slot(make_router):
    """An event is passed on as it is, under the router's key, once, when the row says so, too."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    assert router.slots_occupied == 1
    child(router, "a").finish(task, info="done")
    router.heartbeat()
    assert router.slots_occupied == 0
    router.heartbeat()
    assert router.get_event_buffer() == {key(router, task): (TaskInstanceState.SUCCESS, "done")}
    assert router.get_event_buffer() == {}


def test_has_task_is_false_once_the_terminal_event_was_drained(make_router):
    """The scheduler asks right after draining; True would turn a killed task into a requeued one."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    assert router.has_task(task.ti)
    router.heartbeat()
    assert router.has_task(task.ti)
    child(router, "a").finish(task)
    router.heartbeat()
    router.heartbeat()
    router.get_event_buffer()
    assert not router.has_task(task.ti)


def test_the_decision_is_written_to_the_event_log(make_router):
    """One row a dispatch: backend, route, reason, and the reason in words."""
    router = make_router({"a": 1, "b": 1}, routes=[{"queue": "q", "to": ["a", "b"]}])
    queue(router, make_task("q"), make_task("q"))
    router.heartbeat()
    rows = [json.loads(row.extra) for row in router._task_event_logs]
    assert [(row["backend"], row["route"], row["reason"]) for row in rows] == [
        ("a", "q", "first_choice"),
        ("b", "q", "overflow"),
    ]
    assert {row.event for row in router._task_event_logs} == {"dispatched"}


def test_a_queue_can_be_rewritten_for_a_backend(make_router):
    """The backend sees the target's queue; executor_config survives, the scheduler's workload is unchanged."""
    router = make_router({"a": 1}, routes=[{"queue": "q", "to": [{"backend": "a", "queue": "there"}]}])
    task = make_task("q", executor_config={"x": 1})
    queue(router, task)
    router.heartbeat()
    (sent,) = child(router, "a").given
    assert (sent.ti.queue, sent.ti.executor_config, task.ti.queue) == ("there", {"x": 1}, "q")
