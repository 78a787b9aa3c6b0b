# SPDX-License-Identifier: Apache-2.0
"""CeleryKubernetesExecutor with the options of Airflow 2, a real broker and a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from kubernetes.client import models as k8s
from sqlalchemy import update

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.executors.celery_kubernetes_executor import CeleryKubernetesExecutor
from airflow_dispatch_provider.testing import make_callback

from ..database import TASKS, as_the_scheduler_offers_them, save_event_log, stored, workload_of
from ..kubernetes.executors import beat_until
from .conftest import JOB_ID, KUBERNETES_QUEUE, OTHER_QUEUE
from .queued import one_of, queue_all, task_ids

pytestmark = [
    pytest.mark.integration("redis"),
    pytest.mark.integration("kubernetes"),
    # What differs between databases is tested with the router.
    pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session"),
]

HALF = TASKS // 2
QUEUE_OPTION = "AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE"


@pytest.fixture
def hybrid() -> type[CeleryKubernetesExecutor]:
    return CeleryKubernetesExecutor


def test_tasks_go_where_their_queue_says(start, places):
    """A pod for each task of kubernetes_queue, a message in the task's own queue for every other."""
    executor = start()
    queue_all(executor)
    beat_until(executor, lambda _: len(places.pods()) + len(places.messages()) == TASKS)
    assert sorted(places.pods()) == task_ids(KUBERNETES_QUEUE)
    assert sorted(places.messages()) == task_ids(OTHER_QUEUE)
    assert executor.slots_occupied == TASKS


def test_a_full_kubernetes_does_not_starve_celery(start, places):
    """With slots of its own, what it has no room for waits, and the scheduler is told of Celery's slots."""
    executor = start(backends={"kubernetes": {"slots": 2}})
    queue_all(executor)
    beat_until(executor, lambda _: len(places.messages()) == HALF and len(places.pods()) == 2)
    executor.heartbeat()
    assert len(places.pods()) == 2
    assert (executor.slots_occupied, executor.slots_available > 0) == (HALF + 2, True)


def test_tasks_are_adopted_from_who_has_them(start, places, monkeypatch):
    """Also after kubernetes_queue was changed: by the event log, not by today's option."""
    executor = start()
    queue_all(executor)
    events = beat_until(executor, lambda events: len(events) == TASKS and len(places.pods()) == HALF)
    save_event_log(executor)
    store_ids(executor, events)
    monkeypatch.setenv(QUEUE_OPTION, OTHER_QUEUE)
    heir = start(job_id=JOB_ID + 1)
    with create_session() as session:
        assert list(heir.try_adopt_task_instances(as_the_scheduler_offers_them(session))) == []
    slots = heir._loop.machine.slots_used
    assert (slots["kubernetes"], slots["celery"]) == (HALF, HALF)


def store_ids(executor: Any, events: dict[Any, Any]) -> None:
    """As the scheduler does with what comes with an event."""
    with create_session() as session:
        for ti in stored(session):
            _, info = events[airflow_api.task_key(executor, ti)]
            query = update(TaskInstance).where(TaskInstance.id == ti.id)
            session.execute(query.values(external_executor_id=str(info)))


def test_revoked_tasks_are_taken_back_from_either(start, places):
    """Held, with Celery, or as a pod: the slots are free again, and nothing is reported."""
    executor = start(backends={"kubernetes": {"slots": 1}})
    queue_all(executor)
    beat_until(executor, lambda events: len(events) == HALF + 1 and places.pods())
    with create_session() as session:
        for ti in stored(session):
            executor.revoke_task(ti=ti)
    events = beat_until(executor, lambda _: not places.pods() and not executor.slots_occupied)
    assert (events, len(executor.running)) == ({}, 0)


def test_the_log_of_a_running_pod_is_read(start, places, agent_on, monkeypatch):
    """By an executor that was never started, as in the API server, also after the option was changed."""
    agent_on(places.kube, namespaces=[places.namespace], processes=1)
    command = ["sh", "-c", "echo written; exec sleep 60", "sh"]
    container = k8s.V1Container(name="base", command=command)
    spec = k8s.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    ti = one_of(KUBERNETES_QUEUE)
    executor = start()
    executor.queue_workload(workload_of(ti, executor_config={"pod_override": k8s.V1Pod(spec=spec)}), None)
    beat_until(executor, lambda events: events)
    save_event_log(executor)
    path = f"/api/v1/namespaces/{places.namespace}/pods"
    (pod,) = places.kube.request("GET", path)["items"]
    name = pod["metadata"]["name"]
    places.kube.wait_for_pod(places.namespace, name, lambda pod: pod and pod["status"]["phase"] == "Running")
    next(iter(places.kube.lines(f"{path}/{name}/log?follow=true")))
    monkeypatch.setenv(QUEUE_OPTION, "other")
    ti.state = TaskInstanceState.RUNNING
    messages, log = CeleryKubernetesExecutor().get_task_log(ti, 1)
    assert any("written" in text for text in log), messages
    executor.revoke_task(ti=ti)
    beat_until(executor, lambda _: not places.pods())


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_callbacks_go_to_celery(start, places):
    """Pods cannot run them: not even one that names the Kubernetes queue."""
    executor = start()
    for queue in (None, KUBERNETES_QUEUE):
        executor.queue_workload(make_callback(queue), None)
    beat_until(
        executor, lambda _: len([*places.messages("default"), *places.messages(KUBERNETES_QUEUE)]) == 2
    )
    assert places.pods() == []
