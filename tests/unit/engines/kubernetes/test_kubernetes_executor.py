# SPDX-License-Identifier: Apache-2.0
"""The executor between Airflow's calls and the thread of the API calls, which is replaced here by lists."""

from __future__ import annotations

import math
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    End,
    Ended,
    Over,
    Rejected,
    Released,
    Stuck,
)
from airflow_dispatch_provider.engines.protocols import (
    AdoptsIfFound,
    ChecksConfig,
    Claims,
    ReportsHealth,
    ReportsNoRoom,
    ReturnsWork,
)
from airflow_dispatch_provider.executors.kubernetes_executor import (
    POD_AGAIN,
    POD_FAILED,
    POD_PENDING,
    WAITED,
    KubernetesExecutor,
)
from airflow_dispatch_provider.testing import make_task

from .fake_controller import JOB_ID, events_of, give, pod, report, with_pod

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


def test_it_is_what_the_router_looks_for(executor):
    """It can be asked for everything that a backend may offer."""
    for offered in (ReturnsWork, AdoptsIfFound, ReportsHealth, ReportsNoRoom, ChecksConfig, Claims):
        assert isinstance(executor, offered)


def test_a_pod_that_was_created_is_reported_with_the_scheduler_that_owns_it(executor):
    """As Airflow's executor does, once there is one."""
    (key,) = give(executor, make_task())
    assert executor.get_event_buffer() == {}
    assert report(executor, Created(key, pod())) == {key: (QUEUED, str(JOB_ID))}
    assert executor.running == {key}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (SUCCESS, SUCCESS),
        # What the task told is not contradicted.
        (FAILED, FAILED),
        ("deferred", "deferred"),
        ("up_for_reschedule", "up_for_reschedule"),
        # It came back under the same key, or was lost: Airflow finds out which.
        (QUEUED, SUCCESS),
        (RUNNING, SUCCESS),
        (None, SUCCESS),
    ],
)
def test_a_pod_that_succeeded_frees_its_slot_and_the_task_says_how_it_went(executor, rows, stored, expected):
    task = make_task()
    key = with_pod(executor, task)
    rows[task.ti.id] = Stored(stored, JOB_ID)
    events = report(executor, Ended(key, pod(), End.SUCCEEDED, started=True))
    assert events[key][0] == expected
    assert (executor.running, executor.has_task(task.ti)) == (set(), False)


class TestFailedPods:
    """The task's outcome follows from what is known of the pod."""

    @pytest.mark.parametrize("end", [End.FAILED, End.DELETED, End.VANISHED])
    def test_a_task_that_had_begun_fails_with_the_reason(self, executor, rows, end):
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(RUNNING, JOB_ID)
        events = report(executor, Ended(key, pod(), end, "OOMKilled: container base", started=True))
        assert events == {key: (FAILED, "Pod airflow/pod-1: OOMKilled: container base")}
        assert events_of(executor) == [POD_FAILED]

    @pytest.mark.parametrize("end", [End.FAILED, End.DELETED, End.VANISHED])
    def test_one_that_had_not_gets_a_new_pod_without_losing_a_try(self, executor, rows, end):
        """The event log tells what happened to the first one."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(QUEUED, JOB_ID)
        assert report(executor, Ended(key, pod(), end, "Evicted: no memory")) == {}
        assert [job.key for job in executor._controller.submitted] == [key, key]
        again = executor._controller.submitted[1]
        assert (again.manifest, again.minted) == (None, -math.inf)  # made anew, with a new token
        assert executor._controller.pauses[1] > 0
        assert events_of(executor) == [POD_AGAIN]
        assert executor.running == {key}

    def test_but_not_for_ever(self, executor, rows):
        """As often as `pod_launch_failure_retries` says."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(QUEUED, JOB_ID)
        report(executor, Ended(key, pod(), End.FAILED, "Evicted"), Created(key, pod(2)))
        executor.get_event_buffer()
        assert report(executor, Ended(key, pod(2), End.FAILED, "Evicted"))[key][0] == FAILED

    def test_nor_where_the_container_itself_gave_up(self, executor, rows):
        """`Error`: the next one would do the same."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(QUEUED, JOB_ID)
        ended = Ended(key, pod(), End.FAILED, "Error: container base, exit code 1", container_reason="Error")
        assert report(executor, ended)[key][0] == FAILED

    def test_a_task_that_another_scheduler_has_by_now_is_left_to_it(self, executor, rows):
        """Nothing is reported that could be taken for that scheduler's news."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(RUNNING, JOB_ID + 1)
        assert report(executor, Ended(key, pod(), End.VANISHED))[key][0] == SUCCESS

    def test_the_end_of_an_earlier_pod_is_no_news(self, executor, rows):
        """Kubernetes tells of it again and again."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(QUEUED, JOB_ID)
        report(executor, Ended(key, pod(), End.FAILED, "Evicted"), Created(key, pod(2)))
        assert report(executor, Ended(key, pod(), End.FAILED, "Evicted")) in (
            {},
            {key: (QUEUED, str(JOB_ID))},
        )
        assert executor.running == {key}

    def test_a_task_that_can_never_have_a_pod_fails_alone(self, executor):
        bad, good = give(executor, make_task(), make_task())
        assert report(executor, Rejected(bad, "HTTP 422"))[bad] == (FAILED, "HTTP 422")
        assert executor.running == {good}
        assert events_of(executor) == [POD_FAILED]


@pytest.mark.parametrize(
    ("state", "reported"), [("success", "success"), ("failed", "failed"), (None, "success")]
)
def test_a_task_that_is_over_in_airflow_frees_its_slot_and_its_pod_is_deleted(executor, state, reported):
    """Nobody has seen its pod end."""
    key = with_pod(executor, make_task())
    assert report(executor, Over(key, state))[key][0] == reported
    assert executor._controller.revoked == [pod()]
    assert executor.running == set()


def test_one_without_a_pod_yet_is_taken_back(executor):
    (key,) = give(executor, make_task())
    report(executor, Over(key, "failed"))
    assert (executor._controller.waiting, executor.running) == ({}, set())


def test_an_expired_token_costs_no_try(executor, rows, monkeypatch):
    """The pod waited for a node for too long: the Execution API refused it."""
    task = make_task()
    key = with_pod(executor, task)
    executor.get_event_buffer()
    rows[task.ti.id] = Stored(QUEUED, JOB_ID)
    executor._flights[key].created -= 601
    ended = Ended(key, pod(), End.FAILED, "Error: container base", True, "Error")
    assert report(executor, ended) == {}
    assert events_of(executor) == [POD_AGAIN]


def test_why_a_pod_does_not_start_is_in_the_event_log(executor):
    """Also when Airflow gives it up in the end."""
    task = make_task()
    key = with_pod(executor, task)
    report(executor, Stuck(key, pod(), "ErrImagePull: no such image"))
    executor.revoke_task(ti=task.ti)
    assert events_of(executor) == [POD_PENDING, POD_FAILED]
    assert "ErrImagePull: no such image" in executor._task_event_logs[1].extra


def test_a_pod_that_was_taken_over_frees_its_slot(executor):
    key = with_pod(executor, make_task())
    assert report(executor, Released(key, pod()))[key][0] == SUCCESS
    assert executor.running == set()


class TestTrouble:
    """The cluster cannot be used, or has no room."""

    @pytest.fixture(params=["problem", "full"])
    def task(self, request: pytest.FixtureRequest, executor: KubernetesExecutor) -> Any:
        task = make_task()
        give(executor, task)
        setattr(executor._controller, request.param, "it is so")
        executor.heartbeat()
        return task

    def test_nothing_fails_and_the_task_waits(self, executor, task):
        assert executor.get_event_buffer() == {}
        assert executor.running == set()
        assert executor.has_task(task.ti)
        assert events_of(executor) == [WAITED]

    def test_the_router_gets_it_back_once(self, executor, task):
        assert list(executor.take_returned()) == [task]
        assert list(executor.take_returned()) == []

    def test_it_is_sent_when_that_is_over(self, executor, task):
        executor._controller.problem = executor._controller.full = None
        executor.heartbeat()
        assert executor._controller.submitted[-1].workload.ti.id == task.ti.id

    def test_what_may_be_with_the_server_stays(self, executor):
        """Only what is certainly not there can go elsewhere."""
        key = with_pod(executor, make_task())
        executor._controller.problem = "down"
        executor.heartbeat()
        assert list(executor.take_returned()) == []
        assert executor.running == {key}


def test_a_full_namespace_is_no_failure_of_the_backend(executor):
    """The router counts it as full, and its circuit stays closed."""
    executor._controller.full = "quota"
    assert (executor.health(), executor.no_room()) == (None, "quota")


def test_the_database_is_asked_for_tasks_that_are_still_waited_for(executor, rows):
    """One that was revoked meanwhile has no end any more."""
    kept, revoked = make_task(), make_task()
    keys = give(executor, kept, revoked)
    rows.update({task.ti.id: Stored(RUNNING, JOB_ID) for task in (kept, revoked)})
    executor.revoke_task(ti=revoked.ti)
    assert executor._stored(keys) == {keys[0]: Stored(RUNNING, JOB_ID)}


@pytest.mark.parametrize("uptime", [1.0, 1_000_000.0])
def test_pods_of_dead_schedulers_are_tidied_up_and_never_those_of_living_ones(executor, uptime, monkeypatch):
    """At the first heartbeat, also on a host that has just booted, whose monotonic clock is near 0."""
    monkeypatch.setattr(f"{KubernetesExecutor.__module__}.time.monotonic", lambda: uptime)
    executor.heartbeat()
    executor.heartbeat()
    assert executor._controller.tidied == [{"7", "8"}]


def test_no_more_is_on_its_way_than_allowed_and_the_best_first(make_executor):
    executor = make_executor(max_unsent=2)
    low, high, middle = (make_task(priority=priority) for priority in (1, 9, 5))
    give(executor, low, high, middle)
    assert [job.workload for job in executor._controller.submitted] == [high, middle]


def test_never_more_than_its_slots(make_executor):
    executor = make_executor(slots=2)
    give(executor, *(make_task() for _ in range(3)))
    assert len(executor._controller.submitted) == 2


def test_the_last_news_are_noted_at_the_end(executor, rows):
    """A pod that ended meanwhile is reported; a second call finds nothing to do."""
    task = make_task()
    key = with_pod(executor, task)
    executor.get_event_buffer()
    executor._controller.reports.append(Ended(key, pod(), End.SUCCEEDED))
    executor.end()
    assert executor.get_event_buffer()[key][0] == SUCCESS
    executor.end()


def test_an_executor_that_was_not_started_says_so_quietly(make_executor):
    """The API server makes one to read logs."""
    executor = make_executor()
    executor._controller = None
    assert executor.health() is executor.no_room() is None
    executor.heartbeat()
    executor.end()
