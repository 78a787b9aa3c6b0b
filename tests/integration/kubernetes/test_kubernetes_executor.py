# SPDX-License-Identifier: Apache-2.0
"""The executor with a real API server, and a node that runs its pods or says that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from kube_server import KubeServer
from kubernetes.client import models as k8s
from node_agent import NodeAgent
from pod_fates import ANNOTATION, EXIT, Fate

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.executors import kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes_executor import (
    POD_AGAIN,
    POD_FAILED,
    PUT_BACK,
    KubernetesExecutor,
)
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.conformance import ExecutorContract

from .executors import JOB_ID, Orphan, beat_until, ended, options, started

pytestmark = pytest.mark.integration("kubernetes")

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
PODS = "/api/v1/namespaces/{}/pods"


@pytest.fixture
def namespace(shared_kube: KubeServer) -> str:
    return shared_kube.create_namespace()


@pytest.fixture
def agent(shared_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    """Says of every pod that it has run and succeeded, unless the pod's annotation says otherwise."""
    return agent_on(shared_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Stored]:
    """Task instances as the database has them; every other is queued by this scheduler."""
    known: dict[Any, Stored] = {}
    queued = Stored(TaskInstanceState.QUEUED.value, JOB_ID)
    monkeypatch.setattr(
        kubernetes_executor, "stored", lambda ids: {ti_id: known.get(ti_id, queued) for ti_id in ids}
    )
    monkeypatch.setattr(KubernetesExecutor, "_alive_other_scheduler_job_ids", lambda self: {JOB_ID + 1})
    return known


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ids of the task instances that were scheduled again in place."""
    ids: list[Any] = []

    def reschedule(given: Any, before: float, queued_by: int | None) -> set[Any]:
        ids.extend(given)
        return {*ids}

    monkeypatch.setattr(kubernetes_executor, "reschedule_queued", reschedule)
    return ids


@pytest.fixture
def executor(shared_kube: KubeServer, namespace: str, tmp_path: Path) -> Iterator[KubernetesExecutor]:
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path)) as executor:
        yield executor


def queue(executor: Any, *tasks: Any) -> list[Any]:
    for task in tasks:
        executor.queue_workload(task, None)
    return [airflow_api.workload_key(executor, task) for task in tasks]


def failing(fate: str, **more: Any) -> Any:
    """A task whose pod meets that fate on the node."""
    pod = k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations={ANNOTATION: fate}))
    return make_task(executor_config={"pod_override": pod}, **more)


def pods(server: KubeServer, namespace: str) -> list[dict[str, Any]]:
    return list(server.request("GET", PODS.format(namespace))["items"])


def events_of(executor: KubernetesExecutor) -> list[tuple[str, str]]:
    return [(row.event, row.extra) for row in executor._task_event_logs]


@pytest.mark.usefixtures("agent")
class TestContract(ExecutorContract):
    """Airflow's expectations of every executor."""


@pytest.mark.usefixtures("agent")
class TestContractBehindTheRouter(ExecutorContract):
    """Two backends in one router, each with a namespace of its own."""

    @pytest.fixture
    def make_clerk(self, they_run: Any) -> Any:
        return they_run

    @pytest.fixture
    def executor(
        self,
        shared_kube: KubeServer,
        namespace: str,
        tmp_path: Path,
        make_router: Any,
        agent_on: Callable[..., NodeAgent],
    ) -> Any:
        other = shared_kube.create_namespace()
        agent_on(shared_kube, namespaces=[other], processes=0, decide=lambda pod: Fate(EXIT), node="other")
        kubeconfig = shared_kube.kubeconfig()
        return make_router(
            {
                name: {
                    "executor": "KubernetesExecutor",
                    "slots": 2,
                    "config": {"kubernetes_executor": options(kubeconfig, where, tmp_path)},
                }
                for name, where in (("a", namespace), ("b", other))
            }
        )


@pytest.mark.usefixtures("agent")
def test_each_task_has_one_pod_and_no_pod_is_left(executor, shared_kube, namespace, agent):
    """More than there are slots; each succeeds and is deleted."""
    keys = queue(executor, *(make_task() for _ in range(20)))
    events = beat_until(executor, ended(*keys))
    assert {value[0] for value in events.values()} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == 20
    beat_until(executor, lambda _: not pods(shared_kube, namespace))


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(("fate", "says"), [("evicted", "Evicted"), ("oom-killed", "OOMKilled")])
def test_a_task_whose_pod_fails_while_it_runs_fails_with_the_reason(executor, rows, fate, says):
    """Which is in its event log."""
    task = failing(fate)
    rows[task.ti.id] = Stored(TaskInstanceState.RUNNING.value, JOB_ID)
    (key,) = queue(executor, task)
    state, info = beat_until(executor, ended(key))[key]
    assert (state, says in info) == (FAILED, True), info
    assert [(event, says in extra) for event, extra in events_of(executor)][-1] == (POD_FAILED, True)


def sleeping(text: str = "") -> Any:
    """A task whose pod writes that, and then does nothing for long."""
    command = ["sh", "-c", f"echo {text}; exec sleep 60", "sh"]
    container = k8s.V1Container(name="base", command=command)
    spec = k8s.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    return make_task(executor_config={"pod_override": k8s.V1Pod(spec=spec)})


def run_one(executor: KubernetesExecutor, task: Any, server: KubeServer, namespace: str) -> str:
    """Queue it and wait until its pod runs; returns the pod's name."""
    queue(executor, task)
    beat_until(executor, lambda events: events)
    (pod,) = pods(server, namespace)
    name = str(pod["metadata"]["name"])
    server.wait_for_pod(namespace, name, lambda pod: pod and pod["status"]["phase"] == "Running")
    return name


def test_a_task_whose_running_pod_is_deleted_by_somebody_fails(
    executor, rows, shared_kube, namespace, agent_on
):
    agent_on(shared_kube, namespaces=[namespace], processes=1)
    task = sleeping()
    rows[task.ti.id] = Stored(TaskInstanceState.RUNNING.value, JOB_ID)
    name = run_one(executor, task, shared_kube, namespace)
    shared_kube.request("DELETE", f"{PODS.format(namespace)}/{name}")
    key = airflow_api.workload_key(executor, task)
    state, info = beat_until(executor, ended(key))[key]
    assert (state, name in info) == (FAILED, True)


@pytest.mark.usefixtures("agent")
def test_a_pod_that_is_deleted_before_it_starts_is_created_again(executor, shared_kube, namespace):
    """The task loses no try."""
    (key,) = queue(executor, failing("unschedulable"))
    beat_until(executor, lambda _: [event for event, _ in events_of(executor)])
    (first,) = pods(shared_kube, namespace)
    shared_kube.request("DELETE", f"{PODS.format(namespace)}/{first['metadata']['name']}")
    beat_until(executor, lambda _: POD_AGAIN in [event for event, _ in events_of(executor)])
    beat_until(
        executor,
        lambda _: [
            pod for pod in pods(shared_kube, namespace) if pod["metadata"]["uid"] != first["metadata"]["uid"]
        ],
    )
    assert executor.running == {key}


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("fate", "says"),
    [("unschedulable", "0/1 nodes are available"), ("image-pull-error", "ErrImagePull")],
)
def test_why_a_pod_does_not_start_is_in_the_event_log(executor, fate, says):
    queue(executor, failing(fate))
    beat_until(executor, lambda _: [extra for _, extra in events_of(executor) if says in extra])


@pytest.mark.usefixtures("agent")
def test_a_fatal_waiting_reason_fails_the_task(shared_kube, namespace, tmp_path, rows):
    """Where the user has said so; after the retry that costs no try."""
    given = options(
        shared_kube.kubeconfig(),
        namespace,
        tmp_path,
        worker_pod_pending_fatal_container_state_reasons="ErrImagePull",
        delete_worker_pods_on_failure="True",
    )
    with started(given) as executor:
        (key,) = queue(executor, failing("image-pull-error"))
        state, info = beat_until(executor, ended(key))[key]
        assert (state, "ErrImagePull" in info) == (FAILED, True)
        beat_until(executor, lambda _: not pods(shared_kube, namespace))


def test_a_revoked_task_loses_its_pod_and_nothing_is_reported(executor, shared_kube, namespace):
    """There is no node here: it would wait for ever."""
    task = make_task()
    (key,) = queue(executor, task)
    beat_until(executor, lambda events: key in events)
    executor.revoke_task(ti=task.ti)
    events = beat_until(executor, lambda _: not pods(shared_kube, namespace))
    assert (events, executor.running) == ({}, set())


def test_pods_that_nobody_can_create_fail_alone(executor, agent):
    """The API server says what is wrong with one; the others run."""
    impossible = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[], restart_policy="Whenever"))
    bad, good = queue(executor, make_task(executor_config={"pod_override": impossible}), make_task())
    events = beat_until(executor, ended(bad, good))
    assert (events[bad][0], "Whenever" in events[bad][1], events[good][0]) == (FAILED, True, SUCCESS)


def test_a_used_up_quota_is_waited_for(executor, shared_kube, namespace, agent):
    """Nothing fails: the backend counts as full until there is room."""
    shared_kube.set_quota(namespace, pods=1, used=1)
    (key,) = queue(executor, make_task())
    assert beat_until(executor, lambda _: executor.no_room()) == {}
    assert (executor.health(), "exceeded quota" in executor.no_room()) == (None, True)
    shared_kube.set_quota(namespace, pods=10)
    assert beat_until(executor, ended(key))[key][0] == SUCCESS


class TestAdoption:
    def test_the_next_scheduler_takes_over_pods_and_puts_back_what_has_none(
        self, shared_kube, namespace, tmp_path, agent_on, rows, put_back
    ):
        """Those that ended meanwhile, too; no pod is created a second time, and no try is used."""
        given = options(shared_kube.kubeconfig(), namespace, tmp_path)
        tasks = [make_task() for _ in range(3)]
        with started(given) as first:
            keys = queue(first, *tasks)
            beat_until(first, lambda events: len(events) == 3)
        lost = Orphan(make_task(), TaskInstanceState.QUEUED)
        with started(given, job_id=JOB_ID + 2) as heir:
            offered = [Orphan(task, TaskInstanceState.RUNNING) for task in tasks]
            rows.update({task.ti.id: Stored("running", JOB_ID + 2) for task in tasks})
            rows[lost.id] = Stored("queued", JOB_ID + 2)
            assert list(heir.try_adopt_task_instances([*offered, lost])) == []
            agent = agent_on(shared_kube, namespaces=[namespace], processes=0, decide=lambda _: Fate(EXIT))
            events = beat_until(heir, ended(*keys))
            assert {events[key][0] for key in keys} == {SUCCESS}
            assert len(agent.started) == 3
            beat_until(heir, lambda _: not pods(shared_kube, namespace))
            beat_until(heir, lambda _: not heir.running)
            assert put_back == [lost.id]

    def test_an_adopted_pod_that_is_lost_before_its_task_began_uses_no_try(
        self, shared_kube, namespace, tmp_path, agent_on, rows, put_back
    ):
        """Its node was drained while it waited for its image: Airflow schedules the task again."""
        given = options(shared_kube.kubeconfig(), namespace, tmp_path)
        task = make_task()
        with started(given) as first:
            queue(first, task)
            beat_until(first, lambda events: events)
        with started(given, job_id=JOB_ID + 2) as heir:
            rows[task.ti.id] = Stored("queued", JOB_ID + 2)
            assert list(heir.try_adopt_task_instances([Orphan(task, TaskInstanceState.QUEUED)])) == []
            beat_until(heir, lambda events: events)
            (pod,) = pods(shared_kube, namespace)
            shared_kube.request("DELETE", f"{PODS.format(namespace)}/{pod['metadata']['name']}")
            events = beat_until(heir, lambda _: put_back and not heir.running)
            assert FAILED not in [value[0] for value in events.values()]
            assert PUT_BACK in [event for event, _ in events_of(heir)]

    def test_what_succeeded_under_a_dead_scheduler_is_tidied_up(
        self, shared_kube, namespace, tmp_path, agent
    ):
        """And what a living one has is left to it."""
        for job_id in (JOB_ID, JOB_ID + 1):
            body = {
                "metadata": {
                    "name": f"of-{job_id}",
                    "labels": {"kubernetes_executor": "True", "airflow-worker": str(job_id)},
                },
                "spec": {"restartPolicy": "Never", "containers": [{"name": "base", "image": "none"}]},
            }
            shared_kube.request("POST", PODS.format(namespace), body)
            shared_kube.wait_for_pod(
                namespace, f"of-{job_id}", lambda pod: pod and pod["status"]["phase"] == "Succeeded"
            )
        with started(options(shared_kube.kubeconfig(), namespace, tmp_path), job_id=JOB_ID + 2) as executor:
            beat_until(executor, lambda _: len(pods(shared_kube, namespace)) == 1)
        assert [pod["metadata"]["name"] for pod in pods(shared_kube, namespace)] == [f"of-{JOB_ID + 1}"]


def test_the_log_of_a_running_pod_is_read_without_start(shared_kube, namespace, tmp_path, agent_on):
    """From the cluster that the executor's own options name."""
    agent_on(shared_kube, namespaces=[namespace], processes=1)
    task = sleeping("first")
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path)) as executor:
        name = run_one(executor, task, shared_kube, namespace)
        next(iter(shared_kube.lines(f"{PODS.format(namespace)}/{name}/log?follow=true")))
        reader = type(executor)()
        ti = Orphan(task, TaskInstanceState.RUNNING)
        ti.hostname, ti.executor_config = "", None
        messages, log = reader.get_task_log(ti, 1)
        executor.revoke_task(ti=task.ti)
        beat_until(executor, lambda _: not pods(shared_kube, namespace))
    assert any("first" in text for text in log), messages


def test_two_backends_on_one_namespace_are_refused(shared_kube, namespace, tmp_path, make_router):
    """Each would finish the other's pods."""
    from airflow_dispatch_provider.exceptions import DispatchConfigError

    backend = {
        "executor": "KubernetesExecutor",
        "slots": 2,
        "config": {"kubernetes_executor": options(shared_kube.kubeconfig(), namespace, tmp_path)},
    }
    with pytest.raises(DispatchConfigError, match=f"namespace {namespace} of https://127.0.0.1"):
        make_router({"a": backend, "b": backend})
