# SPDX-License-Identifier: Apache-2.0
"""The executor with a real API server, and a node that runs its pods or says that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from airflow.utils.state import TaskInstanceState
from kubernetes.client import models as k8s
from unit.dispatch.loop_house import FINISHED, Clerk

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.lifecycle.events import WAITS_START
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.conformance import ExecutorContract
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import ANNOTATION, EXIT, Fate

from .engines import HEIR, pods_of
from .executors import JOB_ID, OfTests, beat_until, ended, options, orphan, started
from .troubles import task_with

pytestmark = pytest.mark.integration("kubernetes")

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
PODS = "/api/v1/namespaces/{}/pods"
RUNNING, SILENT = Row(RowState.RUNNING), Row(RowState.RUNNING, silent=3600.0)


@pytest.fixture
def namespace(shared_kube: KubeServer) -> str:
    return shared_kube.create_namespace()


@pytest.fixture
def agent(shared_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    """Says of every pod that it has run and succeeded, unless the pod's annotation says otherwise."""
    return agent_on(shared_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that has not begun is launched once, and silence is taken for death at once."""
    monkeypatch.setenv("AIRFLOW__DISPATCH__LAUNCH_RETRIES", "0")
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")


@pytest.fixture
def given(shared_kube: KubeServer, namespace: str, tmp_path: Path) -> dict[str, Any]:
    return options(shared_kube.kubeconfig(), namespace, tmp_path)


@pytest.fixture
def executor(given: dict[str, Any]) -> Iterator[OfTests]:
    with started(given) as executor:
        yield executor


def queue(executor: Any, *tasks: Any) -> list[Any]:
    for task in tasks:
        executor.queue_workload(task, None)
    return [airflow_api.workload_key(executor, task) for task in tasks]


def failing(fate: str, **more: Any) -> Any:
    """A task whose pod meets that fate on the node."""
    pod = k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations={ANNOTATION: fate}))
    return make_task(executor_config={"pod_override": pod}, **more)


def events_of(executor: Any) -> list[tuple[str, str]]:
    return [(row.event, row.extra) for row in executor._task_event_logs]


@pytest.mark.usefixtures("agent")
class TestContract(ExecutorContract):
    """Airflow's expectations of every executor."""

    @pytest.fixture
    def executor(self, given: dict[str, Any]) -> Iterator[OfTests]:
        with started(given, clerk=Clerk(FINISHED)) as executor:
            yield executor


@pytest.mark.usefixtures("agent")
class TestContractBehindTheRouter(ExecutorContract):
    """Two backends in one router, each with a namespace of its own."""

    @pytest.fixture
    def make_clerk(self) -> Any:
        return lambda: Clerk(FINISHED)

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
    executor.clerk.others = FINISHED
    keys = queue(executor, *(make_task() for _ in range(20)))
    events = beat_until(executor, ended(*keys))
    assert {value[0] for value in events.values()} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == 20
    beat_until(executor, lambda _: not pods_of(shared_kube, namespace))


@pytest.mark.usefixtures("no_patience", "agent")
@pytest.mark.parametrize(("fate", "says"), [("evicted", "Evicted"), ("oom-killed", "OOMKilled")])
def test_a_task_whose_pod_fails_while_it_runs_fails_with_the_reason(given, fate, says):
    """Once its process is silent, as the database says."""
    with started(given) as executor:
        task = failing(fate)
        executor.clerk.rows[airflow_api.workload_key(executor, task)] = SILENT
        (key,) = queue(executor, task)
        state, info = beat_until(executor, ended(key))[key]
        assert (state, says in info) == (FAILED, True), info


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("fate", "event", "says"),
    [
        ("unschedulable", WAITS_START, "0/1 nodes are available"),
        # By default Airflow's options make this one fatal.
        ("image-pull-error", Waits.LAUNCH.value, "ErrImagePull"),
    ],
)
def test_why_a_pod_does_not_start_is_in_the_event_log(executor, fate, event, says):
    queue(executor, failing(fate))
    beat_until(
        executor,
        lambda _: [extra for found, extra in events_of(executor) if found == event and says in extra],
    )


@pytest.mark.usefixtures("agent")
def test_a_pod_that_is_deleted_before_it_starts_is_created_again(executor, shared_kube, namespace):
    """The task loses no try, and its event log says what happened."""
    (key,) = queue(executor, failing("unschedulable"))
    beat_until(executor, lambda events: key in events)
    (first,) = pods_of(shared_kube, namespace)
    shared_kube.request("DELETE", f"{PODS.format(namespace)}/{first['metadata']['name']}")
    beat_until(executor, lambda _: Waits.LAUNCH.value in [event for event, _ in events_of(executor)])
    uid = first["metadata"]["uid"]
    beat_until(
        executor,
        lambda _: [pod for pod in pods_of(shared_kube, namespace) if pod["metadata"]["uid"] != uid],
    )
    assert set(executor.running) == {key}


@pytest.mark.usefixtures("no_patience", "agent")
def test_a_fatal_waiting_reason_fails_the_task(given, shared_kube, namespace):
    """Where the user has said so; when it was launched as often as it may be."""
    given["worker_pod_pending_fatal_container_state_reasons"] = "ErrImagePull"
    with started(given) as executor:
        (key,) = queue(executor, failing("image-pull-error"))
        state, info = beat_until(executor, ended(key))[key]
        assert (state, "ErrImagePull" in info) == (FAILED, True)
        beat_until(executor, lambda _: not pods_of(shared_kube, namespace))


def test_a_revoked_task_loses_its_pod_and_nothing_is_reported(executor, shared_kube, namespace):
    """There is no node here: it would wait for ever."""
    task = make_task()
    (key,) = queue(executor, task)
    beat_until(executor, lambda events: key in events)
    executor.revoke_task(ti=task.ti)
    events = beat_until(
        executor, lambda _: not pods_of(shared_kube, namespace) and not executor.slots_occupied
    )
    assert (events, set(executor.running)) == ({}, set())


@pytest.mark.usefixtures("no_patience", "agent")
def test_pods_that_nobody_can_create_fail_alone(given):
    """The API server says what is wrong with one; the others run."""
    impossible = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[], restart_policy="Whenever"))
    with started(given) as executor:
        bad, good = queue(executor, make_task(executor_config={"pod_override": impossible}), make_task())
        executor.clerk.rows[good] = FINISHED
        events = beat_until(executor, ended(bad, good))
        assert (events[bad][0], "Whenever" in events[bad][1], events[good][0]) == (FAILED, True, SUCCESS)


def test_a_used_up_quota_is_waited_for(executor, shared_kube, namespace, agent):
    """Nothing fails: the executor has no slot until there is room."""
    executor.clerk.others = FINISHED
    shared_kube.set_quota(namespace, pods=1, used=1)
    (key,) = queue(executor, make_task())
    assert beat_until(executor, lambda _: executor.slots_available == 0) == {}
    assert "exceeded quota" in repr(executor._loop.engines["OfTests"])
    shared_kube.set_quota(namespace, pods=10)
    assert beat_until(executor, ended(key))[key][0] == SUCCESS


def test_a_full_namespace_holds_its_own_tasks_behind_the_router(
    shared_kube, namespace, given, make_router, agent_on
):
    """Of several namespaces of one backend; the router knows that of each task."""
    other = shared_kube.create_namespace()
    agent_on(shared_kube, namespaces=[namespace, other], processes=0, decide=lambda pod: Fate(EXIT))
    listed = {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": f"{namespace},{other}"}
    config = {"kubernetes_executor": {**given, **listed}}
    router = make_router(
        {"k": {"executor": "KubernetesExecutor", "slots": 3, "config": config}}, Clerk(FINISHED)
    )
    shared_kube.set_quota(namespace, pods=1, used=1)
    waits = queue(router, *(make_task(priority=9) for _ in range(6)))
    beat_until(router, lambda _: namespace in router._loop.engines["k"].room().closed)
    elsewhere = queue(router, *(task_with(namespace=other) for _ in range(3)))
    events = beat_until(router, ended(*elsewhere))
    assert {events[key][0] for key in elsewhere} == {SUCCESS}
    assert not events.keys() & waits
    shared_kube.set_quota(namespace, pods=100)
    events = beat_until(router, ended(*waits))
    assert {events[key][0] for key in waits} == {SUCCESS}


def test_a_full_namespace_that_a_mutation_hook_chooses_keeps_no_other(
    shared_kube, namespace, given, make_router, agent_on, monkeypatch
):
    """They are more than there are slots, and come first."""
    other = shared_kube.create_namespace()

    def hook(pod: Any) -> None:
        if "moved" in pod.metadata.labels:
            pod.metadata.namespace = other

    monkeypatch.setattr(settings, "pod_mutation_hook", hook)
    agent_on(shared_kube, namespaces=[namespace, other], processes=0, decide=lambda pod: Fate(EXIT))
    listed = {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": f"{namespace},{other}"}
    config = {"kubernetes_executor": {**given, **listed}}
    router = make_router(
        {"k": {"executor": "KubernetesExecutor", "slots": 3, "config": config}}, Clerk(FINISHED)
    )
    shared_kube.set_quota(other, pods=1, used=1)
    waits = queue(router, *(task_with(labels={"moved": "yes"}) for _ in range(6)))
    beat_until(router, lambda _: other in router._loop.engines["k"].room().closed)
    stay = queue(router, *(make_task() for _ in range(3)))
    events = beat_until(router, ended(*stay))
    assert {events[key][0] for key in stay} == {SUCCESS}
    assert not events.keys() & waits
    shared_kube.set_quota(other, pods=100)
    events = beat_until(router, ended(*waits))
    assert {events[key][0] for key in waits} == {SUCCESS}


class TestAdoption:
    def test_the_next_scheduler_takes_over_pods_and_puts_back_what_has_none(
        self, shared_kube, namespace, given, agent_on
    ):
        """Those that ended meanwhile, too; no pod is created a second time, and no try is used."""
        tasks = [make_task() for _ in range(3)]
        with started(given) as first:
            keys = queue(first, *tasks)
            beat_until(first, lambda events: len(events) == 3)
        lost = orphan(make_task(), TaskInstanceState.QUEUED)
        with started(given, job_id=HEIR) as heir:
            offered = [orphan(task, TaskInstanceState.RUNNING) for task in tasks]
            heir.clerk.rows.update(dict.fromkeys(keys, RUNNING))
            assert list(heir.try_adopt_task_instances([*offered, lost])) == []
            beat_until(heir, lambda _: heir.clerk.returned)
            agent = agent_on(shared_kube, namespaces=[namespace], processes=0, decide=lambda _: Fate(EXIT))
            heir.clerk.rows.update(dict.fromkeys(keys, Row(RowState.OVER)))
            beat_until(heir, lambda _: not pods_of(shared_kube, namespace))
            assert len(agent.started) == 3
            beat_until(heir, lambda _: not heir.running)
            assert heir.clerk.returned == [airflow_api.task_key(heir, lost)]

    def test_an_adopted_pod_that_is_lost_before_its_task_began_uses_no_try(
        self, shared_kube, namespace, given
    ):
        """Its node was drained while it waited for its image: Airflow schedules the task again."""
        task = make_task()
        with started(given) as first:
            (key,) = queue(first, task)
            beat_until(first, lambda events: events)
        with started(given, job_id=HEIR) as heir:
            assert list(heir.try_adopt_task_instances([orphan(task, TaskInstanceState.QUEUED)])) == []
            (pod,) = pods_of(shared_kube, namespace)
            name = pod["metadata"]["name"]
            beat_until(
                heir,
                lambda _: (
                    pods_of(shared_kube, namespace)[0]["metadata"]["labels"]
                    == {**pod["metadata"]["labels"], "airflow-worker": str(HEIR)}
                ),
            )
            shared_kube.request("DELETE", f"{PODS.format(namespace)}/{name}")
            events = beat_until(heir, lambda _: heir.clerk.returned and not heir.running)
            assert FAILED not in [value[0] for value in events.values()]
            assert heir.clerk.returned == [key]

    @pytest.mark.parametrize("routed", [False, True])
    def test_what_succeeded_under_a_dead_scheduler_is_tidied_up(
        self, shared_kube, namespace, given, agent, make_router, routed
    ):
        """And what a living one has is left to it; behind the router, too."""
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
        clerk = Clerk()
        clerk.living = {str(JOB_ID + 1), "1", str(HEIR)}
        with ExitStack() as stack:
            if routed:
                config = {"kubernetes_executor": given}
                backend = {"executor": "KubernetesExecutor", "slots": 2, "config": config}
                executor = make_router({"k": backend}, clerk)
            else:
                executor = stack.enter_context(started(given, job_id=HEIR, clerk=clerk))
            beat_until(executor, lambda _: len(pods_of(shared_kube, namespace)) == 1)
        assert [pod["metadata"]["name"] for pod in pods_of(shared_kube, namespace)] == [f"of-{JOB_ID + 1}"]


def test_the_log_of_a_running_pod_is_read_without_start(shared_kube, namespace, given, agent_on):
    """From the cluster that the executor's own options name."""
    agent_on(shared_kube, namespaces=[namespace], processes=1)
    command = ["sh", "-c", "echo first; exec sleep 60", "sh"]
    container = k8s.V1Container(name="base", command=command)
    spec = k8s.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    task = make_task(executor_config={"pod_override": k8s.V1Pod(spec=spec)})
    with started(given) as executor:
        queue(executor, task)
        beat_until(executor, lambda events: events)
        (pod,) = pods_of(shared_kube, namespace)
        name = str(pod["metadata"]["name"])
        shared_kube.wait_for_pod(namespace, name, lambda pod: pod and pod["status"]["phase"] == "Running")
        next(iter(shared_kube.lines(f"{PODS.format(namespace)}/{name}/log?follow=true")))
        reader = type(executor)()
        ti = orphan(task, TaskInstanceState.RUNNING)
        messages, log = reader.get_task_log(ti, 1)
        executor.revoke_task(ti=task.ti)
        beat_until(executor, lambda _: not pods_of(shared_kube, namespace))
    assert any("first" in text for text in log), messages


def test_two_backends_on_one_namespace_are_refused(namespace, given, make_router):
    """Each would finish the other's pods."""
    backend = {"executor": "KubernetesExecutor", "slots": 2, "config": {"kubernetes_executor": given}}
    with pytest.raises(DispatchConfigError, match=f"namespace {namespace} of https://127.0.0.1"):
        make_router({"a": backend, "b": backend})
