# SPDX-License-Identifier: Apache-2.0
"""LocalKubernetesExecutor with the options of Airflow 2, real processes and a real API server.

There is no Airflow that tasks could report to: those on this machine write their own rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import update

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.executors.local_executor import LocalExecutor
from airflow_dispatch_provider.executors.local_kubernetes_executor import LocalKubernetesExecutor
from airflow_dispatch_provider.testing import make_callback
from tests.integration.local import local_runners

from ..database import TASKS, as_the_scheduler_offers_them, save_event_log, stored
from ..kubernetes.executors import beat_until
from .conftest import JOB_ID, KUBERNETES_QUEUE, OTHER_QUEUE
from .queued import queue_all, task_ids

pytestmark = [
    pytest.mark.integration("redis"),
    pytest.mark.integration("kubernetes"),
    # What differs between databases is tested with the router.
    pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session"),
]

HALF = TASKS // 2
SUCCESS = TaskInstanceState.SUCCESS


@pytest.fixture(autouse=True)
def no_execution_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes on this machine end at once: their tasks are let start, do nothing, and have succeeded."""
    monkeypatch.setattr(LocalExecutor, "runner", staticmethod(local_runners.succeed))


@pytest.fixture
def hybrid() -> type[LocalKubernetesExecutor]:
    return LocalKubernetesExecutor


def ended(executor: Any, events: dict[Any, Any]) -> list[str]:
    """Ids of the tasks that were run on this machine, and have ended."""
    with create_session() as session:
        names = {airflow_api.task_key(executor, ti): ti.task_id for ti in stored(session)}
    return sorted(names[key] for key, (state, _) in events.items() if state == SUCCESS)


def test_tasks_go_where_their_queue_says(start, places):
    """A pod for each task of kubernetes_queue, a process on this machine for every other."""
    executor = start()
    queue_all(executor)
    events = beat_until(
        executor, lambda events: len(ended(executor, events)) == HALF and len(places.pods()) == HALF
    )
    assert sorted(places.pods()) == task_ids(KUBERNETES_QUEUE)
    assert ended(executor, events) == task_ids(OTHER_QUEUE)


def test_a_full_kubernetes_does_not_starve_this_machine(start, places):
    """With slots of its own, what it has no room for waits, and the others run."""
    executor = start(backends={"kubernetes": {"slots": 2}})
    queue_all(executor)
    beat_until(executor, lambda events: len(ended(executor, events)) == HALF and len(places.pods()) == 2)
    executor.heartbeat()
    assert (len(places.pods()), executor.slots_occupied, executor.slots_available > 0) == (2, 2, True)


def test_pods_are_adopted_and_the_rest_is_scheduled_again(start, places):
    """The processes of a dead scheduler's machine cannot be waited for by another one."""
    executor = start()
    queue_all(executor)
    beat_until(executor, lambda events: len(ended(executor, events)) == HALF and len(places.pods()) == HALF)
    save_event_log(executor)
    heir = start(job_id=JOB_ID + 1)
    with create_session() as session:
        never_begun = {"state": TaskInstanceState.QUEUED, "queued_dttm": datetime(2026, 1, 1, tzinfo=UTC)}
        session.execute(update(TaskInstance).values(**never_begun))
        assert list(heir.try_adopt_task_instances(as_the_scheduler_offers_them(session))) == []
        session.execute(update(TaskInstance).values(queued_by_job_id=JOB_ID + 1))
    beat_until(heir, lambda _: scheduled() == task_ids(OTHER_QUEUE))
    slots = heir._loop.machine.slots_used
    assert (slots["kubernetes"], slots["local"]) == (HALF, 0)


def scheduled() -> list[str]:
    with create_session() as session:
        return sorted(ti.task_id for ti in stored(session) if ti.state == TaskInstanceState.SCHEDULED)


def test_revoked_tasks_are_taken_back_from_either(start, places):
    """Held, as a process, or as a pod: the slots are free again, and nothing is reported any more."""
    executor = start(backends={"kubernetes": {"slots": 1}, "local": {"slots": 1}})
    queue_all(executor)
    beat_until(executor, lambda _: places.pods())
    with create_session() as session:
        for ti in stored(session):
            executor.revoke_task(ti=ti)
    executor.get_event_buffer()
    events = beat_until(executor, lambda _: not places.pods() and not executor.slots_occupied)
    assert (events, len(executor.running)) == ({}, 0)


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_callbacks_run_on_this_machine(start, places):
    """Pods cannot run them: not even one that names the Kubernetes queue."""
    executor = start()
    callbacks = [make_callback(queue) for queue in (None, KUBERNETES_QUEUE)]
    for callback in callbacks:
        executor.queue_workload(callback, None)
    keys = {airflow_api.workload_key(executor, callback) for callback in callbacks}
    beat_until(executor, lambda events: keys <= events.keys() and not executor.slots_occupied)
    assert places.pods() == []
