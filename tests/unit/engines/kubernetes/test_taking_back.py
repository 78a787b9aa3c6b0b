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
    PutBack,
    Searched,
)
from airflow_dispatch_provider.executors.kubernetes_executor import (
    PUT_BACK,
    KubernetesExecutor,
)
from airflow_dispatch_provider.testing import make_task

from .fake_controller import JOB_ID, events_of, give, pod, report, with_pod

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
    def test_all_that_is_offered_is_claimed_at_once_and_looked_for_later(self, executor, rows):
        """The scheduler's thread waits for no cluster."""
        running, queued = orm_task(executor, RUNNING), orm_task(executor, QUEUED)
        keys = {airflow_api.task_key(executor, ti) for ti in (running, queued)}
        assert list(executor.try_adopt_task_instances([running, queued])) == []
        assert executor.running == keys
        (wanted,) = executor._controller.adopting
        assert (wanted.workers, wanted.ids.keys()) == ({"3"}, keys)
        key = airflow_api.task_key(executor, running)
        rows[UUID(running.id)] = Stored(SUCCESS, JOB_ID)
        report(executor, Created(key, pod()))
        assert report(executor, Ended(key, pod(), End.SUCCEEDED))[key][0] == SUCCESS

    @pytest.mark.parametrize("end", [End.FAILED, End.DELETED, End.VANISHED])
    def test_one_that_has_not_begun_is_put_back_in_place(self, executor, rows, end):
        """Without a pod, or when its pod is lost: no try is used. Its slot is free when the database has it."""
        ti = orm_task(executor, QUEUED)
        key = airflow_api.task_key(executor, ti)
        executor.try_adopt_task_instances([ti])
        rows[UUID(ti.id)] = Stored(QUEUED, JOB_ID)
        if end is not End.VANISHED:
            report(executor, Created(key, pod()))
            executor.get_event_buffer()
        assert report(executor, Ended(key, pod() if end is not End.VANISHED else None, end, "gone")) == {}
        assert executor._controller.put_back_keys == [key]
        assert events_of(executor) == [PUT_BACK]
        assert report(executor, PutBack(key))[key][0] == SUCCESS
        assert executor.running == set()

    def test_one_that_runs_and_has_no_pod_fails(self, executor, rows):
        ti = orm_task(executor, RUNNING)
        key = airflow_api.task_key(executor, ti)
        executor.try_adopt_task_instances([ti])
        rows[UUID(ti.id)] = Stored(RUNNING, JOB_ID)
        assert report(executor, Ended(key, None, End.VANISHED, "gone"))[key] == (FAILED, "gone")

    def test_while_the_adoption_is_not_stored_its_end_is_looked_up_again(self, executor, rows):
        """The row still names the dead scheduler: an event now would fail the task."""
        ti = orm_task(executor, RUNNING)
        key = airflow_api.task_key(executor, ti)
        executor.try_adopt_task_instances([ti])
        rows[UUID(ti.id)] = Stored(RUNNING, 3)
        assert report(executor, Ended(key, None, End.VANISHED)) == {}
        assert [ended.key for ended in executor._controller.looked_up_again] == [key]
        assert executor.running == {key}

    def test_its_own_tasks_stay_as_they_are(self, executor):
        """A scheduler that was only slow is offered them."""
        mine = orm_task(executor, RUNNING)
        for _ in range(2):
            assert list(executor.try_adopt_task_instances([mine])) == []
        assert len(executor._controller.adopting) == len(executor.running) == 1


class TestAdoptionWithoutEvidence:
    """The router does not know whether the task was ever here."""

    def test_nothing_is_claimed_until_the_cluster_has_answered(self, executor):
        """It may run elsewhere."""
        ti = orm_task(executor, RUNNING)
        for _ in range(2):
            assert executor.adopt_if_found([ti]) is None
        assert (len(executor._controller.searching), executor.running) == (1, set())

    def test_what_is_there_is_adopted_and_the_rest_is_returned(self, executor):
        here, elsewhere = orm_task(executor, RUNNING), orm_task(executor, RUNNING)
        executor.adopt_if_found([here, elsewhere])
        key, other = (airflow_api.task_key(executor, ti) for ti in (here, elsewhere))
        report(executor, Searched(frozenset({key}), frozenset({other})))
        assert executor.adopt_if_found([here, elsewhere]) == [elsewhere]
        assert executor.running == {key}
        assert [wanted.ids.keys() for wanted in executor._controller.adopting] == [{key}]

    def test_an_answer_is_good_once(self, executor):
        """The next offer is another one's death."""
        ti = orm_task(executor, RUNNING)
        executor.adopt_if_found([ti])
        report(executor, Searched(frozenset(), frozenset({airflow_api.task_key(executor, ti)})))
        assert executor.adopt_if_found([ti]) == [ti]
        assert executor.adopt_if_found([ti]) is None
