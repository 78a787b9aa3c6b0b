# SPDX-License-Identifier: Apache-2.0
"""The executor between Airflow's calls and the thread of the API calls: revocation, and adoption."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    End,
    Ended,
)
from airflow_dispatch_provider.executors.kubernetes_executor import (
    KubernetesExecutor,
)
from airflow_dispatch_provider.testing import make_task

from .fake_controller import JOB_ID, give, pod, report, with_pod

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


class TestTakingBack:
    def test_a_task_without_a_pod_yet_is_withdrawn(self, executor):
        task = make_task()
        give(executor, task)
        executor.revoke_task(ti=task.ti)
        assert executor._controller.waiting == {}
        assert (executor.running, executor._controller.revoked) == (set(), [])

    def test_a_pod_is_deleted_and_nothing_is_reported(self, executor):
        task = make_task()
        key = with_pod(executor, task)
        executor.revoke_task(ti=task.ti)
        assert executor._controller.revoked == [pod()]
        assert report(executor, Ended(key, pod(), End.DELETED)) == {}

    def test_a_pod_that_is_not_known_here_is_looked_for(self, executor):
        executor.revoke_task(ti=make_task(dag_id="d", task_id="t").ti)
        (labels,) = executor._controller.revoked
        assert "airflow-worker=7,dag_id=d" in labels

    def test_a_final_state_from_outside_ends_the_wait(self, executor):
        """A task that lost its heartbeat: its pod is finished when it ends, and its end is no news."""
        key = with_pod(executor, make_task())
        executor.change_state(key, FAILED, remove_running=True)
        assert executor.get_event_buffer()[key][0] == FAILED
        assert report(executor, Ended(key, pod(), End.FAILED)) == {}
        assert executor._controller.revoked == []

    def test_a_task_that_comes_back_under_its_key_leaves_its_first_pod_alone(self, executor, rows):
        """It was deferred, and is resumed before the first pod was seen to end: that end is no news."""
        task = make_task()
        key = with_pod(executor, task)
        rows[task.ti.id] = Stored(QUEUED, JOB_ID)
        give(executor, task)
        assert executor._controller.revoked == []
        assert report(executor, Ended(key, pod(), End.SUCCEEDED)) == {}
        assert executor.running == {key}


def orm_task(executor: KubernetesExecutor, state: Any, job_id: int = 3) -> Any:
    """Looks like the task instances that the scheduler offers."""

    class Offered:
        def __init__(self) -> None:
            ti = make_task().ti
            self.__dict__.update({name: getattr(ti, name) for name in type(ti).model_fields})
            self.id = str(ti.id)
            self.state, self.queued_by_job_id = state, job_id
            self.key = ti.key

    return Offered()


class TestAdoption:
    def test_tasks_that_have_a_pod_are_taken_over_and_the_others_returned(self, executor, rows):
        mine, other = orm_task(executor, RUNNING), orm_task(executor, QUEUED)
        key = airflow_api.task_key(executor, mine)
        executor._controller.there = {key}
        assert list(executor.try_adopt_task_instances([mine, other])) == [other]
        assert executor.running == {key}
        rows[UUID(mine.id)] = Stored(SUCCESS, JOB_ID)
        report(executor, Created(key, pod()))
        assert report(executor, Ended(key, pod(), End.SUCCEEDED))[key][0] == SUCCESS

    @pytest.mark.parametrize("known_before", [True, False])
    def test_where_nobody_answers_what_runs_is_asked_for_later(self, executor, rows, known_before):
        """To reset it would start a second copy beside the first. It may have been relabelled all the same, before the
        answer was lost. A server that is known to be away is not waited for."""
        running, queued = orm_task(executor, RUNNING), orm_task(executor, QUEUED)
        executor._controller.adoption_error = TimeoutError()
        executor._controller.problem = "The API server is away." if known_before else None
        assert list(executor.try_adopt_task_instances([running, queued])) == [queued]
        key = airflow_api.task_key(executor, running)
        assert executor._controller.asked == (0 if known_before else 1)
        assert executor._controller.asked_later == [key]
        assert executor._controller.asked_later_of == [str(running.queued_by_job_id), str(JOB_ID)]
        rows[UUID(running.id)] = Stored(RUNNING, JOB_ID)
        assert report(executor, Ended(key, None, End.VANISHED, "gone"))[key] == (FAILED, "gone")

    def test_its_own_tasks_stay_as_they_are(self, executor):
        """A scheduler that was only slow is offered them."""
        mine = orm_task(executor, RUNNING)
        executor._controller.there = {airflow_api.task_key(executor, mine)}
        executor.try_adopt_task_instances([mine])
        executor._controller.there = set()
        assert list(executor.try_adopt_task_instances([mine])) == []
        assert len(executor.running) == 1
