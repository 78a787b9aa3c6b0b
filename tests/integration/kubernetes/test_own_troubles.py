# SPDX-License-Identifier: Apache-2.0
"""One task's trouble with a real API server, beside tasks that have none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.utils.state import TaskInstanceState
from kube_server import KubeServer
from kubernetes.client import models as k8s
from node_agent import NodeAgent
from pod_fates import EXIT, Fate

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes import ends, overdue, pod_api, watcher
from airflow_dispatch_provider.executors import kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor
from airflow_dispatch_provider.testing import make_task

from .executors import JOB_ID, beat_until, ended, options, started

pytestmark = pytest.mark.integration("kubernetes")

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Stored]:
    """Rows of task instances in the database; every other is queued by this scheduler."""
    known: dict[Any, Stored] = {}
    queued = Stored(TaskInstanceState.QUEUED.value, JOB_ID)
    monkeypatch.setattr(
        kubernetes_executor, "stored", lambda ids: {ti_id: known.get(ti_id, queued) for ti_id in ids}
    )
    monkeypatch.setattr(KubernetesExecutor, "_alive_other_scheduler_job_ids", lambda self: set())
    return known


@pytest.fixture
def namespace(shared_kube: KubeServer) -> str:
    return shared_kube.create_namespace()


@pytest.fixture
def agent(shared_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    return agent_on(shared_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


def queue(executor: Any, *tasks: Any) -> list[Any]:
    for task in tasks:
        executor.queue_workload(task, None)
    return [airflow_api.workload_key(executor, task) for task in tasks]


def task_with(namespace: str | None = None, labels: Any = None, **container: Any) -> Any:
    """A task whose pod_override says that."""
    metadata = k8s.V1ObjectMeta(namespace=namespace, labels=labels)
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", **container)])
    return make_task(executor_config={"pod_override": k8s.V1Pod(metadata=metadata, spec=spec)})


def cpu(amount: str) -> Any:
    return task_with(resources=k8s.V1ResourceRequirements(requests={"cpu": amount}))


def set_quota(server: KubeServer, namespace: str, **hard: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    server.request("POST", path, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    server.request("PATCH", f"{path}/q/status", {"status": status})


def break_webhook_for(server: KubeServer, namespace: str, **labels: str) -> None:
    """Pods with these labels are answered with HTTP 500: their webhook does not answer."""
    webhook = {
        "name": "inject.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
        "objectSelector": {"matchLabels": labels},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    server.request("POST", path, {"metadata": {"name": namespace}, "webhooks": [webhook]})


TROUBLES = {
    "more than the whole quota": lambda: cpu("8"),
    "too large for etcd": lambda: task_with(env=[k8s.V1EnvVar(name="X", value="x" * 1_700_000)]),
    "its webhook does not answer": lambda: task_with(labels={"inject": "yes"}),
    "a namespace that is not there": lambda: task_with(namespace="nowhere"),
    "a path for a namespace": lambda: task_with(namespace="kube-system/pods?x="),
    "an invalid name": lambda: make_task(
        executor_config={"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(name="No_Name"))}
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.usefixtures("agent")
def test_a_pod_in_trouble_keeps_no_other_and_fails_with_the_reason(shared_kube, namespace, tmp_path, trouble):
    """More of them than there are requests at a time, and first in the queue."""
    set_quota(shared_kube, namespace, **{"requests.cpu": "2"})
    break_webhook_for(shared_kube, namespace, inject="yes")
    given = options(shared_kube.kubeconfig(), namespace, tmp_path)
    with started(given, slots=12, launch_retries=1, kubernetes_concurrency=2) as executor:
        odd = queue(executor, *(TROUBLES[trouble]() for _ in range(4)))
        executor.heartbeat()
        good = queue(executor, *(cpu("100m") for _ in range(4)))
        events = beat_until(executor, ended(*good))
        assert {events[key][0] for key in good} == {SUCCESS}
        assert (executor.health(), executor.no_room()) == (None, None)
        events |= beat_until(executor, lambda new, before=events: ended(*odd)(before | new))
        assert {events[key][0] for key in odd} == {FAILED}
        assert all(events[key][1] for key in odd)


def test_a_full_namespace_keeps_no_other_one(shared_kube, namespace, tmp_path, agent_on):
    """Of several that the backend is configured for."""
    other = shared_kube.create_namespace()
    agent_on(shared_kube, namespaces=[namespace, other], processes=0, decide=lambda pod: Fate(EXIT))
    shared_kube.set_quota(namespace, pods=1, used=1)
    listed = {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": f"{namespace},{other}"}
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path, **listed)) as executor:
        waits = queue(executor, make_task(), make_task())
        beat_until(executor, lambda _: executor._controller._outbox.waiting == 2)
        there = queue(executor, task_with(namespace=other), task_with(namespace=other))
        events = beat_until(executor, ended(*there))
        assert {events[key][0] for key in there} == {SUCCESS}
        assert executor.no_room() is executor.health() is None
        shared_kube.set_quota(namespace, pods=10)
        events = beat_until(executor, ended(*waits))
        assert {events[key][0] for key in waits} == {SUCCESS}


@pytest.mark.usefixtures("agent")
def test_a_webhook_that_fails_for_all_pods_fails_no_task(shared_kube, namespace, tmp_path):
    """It is trouble of the backend, until it is mended."""
    break_webhook_for(shared_kube, namespace)
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path), launch_retries=0) as executor:
        keys = queue(executor, make_task(), make_task())
        assert beat_until(executor, lambda _: executor.health()) == {}
        assert "webhook" in executor.health()
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        shared_kube.request("DELETE", f"{path}/{namespace}")
        events = beat_until(executor, ended(*keys))
        assert {events[key][0] for key in keys} == {SUCCESS}


@pytest.mark.usefixtures("agent")
def test_ids_without_an_ascii_letter_or_digit_run(shared_kube, namespace, tmp_path):
    ids = [("レポート", "集計"), ("_", "_"), ("campaña", "año")]
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path)) as executor:
        keys = queue(executor, *(make_task(dag_id=dag_id, task_id=task_id) for dag_id, task_id in ids))
        events = beat_until(executor, ended(*keys))
        assert {events[key][0] for key in keys} == {SUCCESS}


def test_a_sidecar_that_outlives_the_task_keeps_no_slot(shared_kube, namespace, tmp_path):
    """The pod is deleted, though the options would keep one that is through."""
    given = options(shared_kube.kubeconfig(), namespace, tmp_path, delete_worker_pods="False")
    task = make_task()
    with started(given) as executor:
        (key,) = queue(executor, task)
        beat_until(executor, lambda events: key in events)
        path = f"/api/v1/namespaces/{namespace}/pods"
        (pod,) = shared_kube.request("GET", path)["items"]
        over = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z"}}
        states = {"base": over, "a-proxy": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        common = {"image": "none", "imageID": "", "ready": False, "restartCount": 0}
        statuses = [{"name": name, "state": state, **common} for name, state in states.items()]
        status = {"phase": "Running", "containerStatuses": statuses}
        shared_kube.request("PATCH", f"{path}/{pod['metadata']['name']}/status", {"status": status})
        assert beat_until(executor, ended(key))[key][0] == SUCCESS
        beat_until(
            executor,
            lambda _: (
                [
                    pod
                    for pod in shared_kube.request("GET", path)["items"]
                    if pod["metadata"].get("deletionTimestamp")
                ]
                or not shared_kube.request("GET", path)["items"]
            ),
        )


def test_a_task_that_is_over_in_airflow_keeps_no_slot(shared_kube, namespace, tmp_path, rows, monkeypatch):
    """Its pod waits for a node for ever; somebody has cleared the task meanwhile."""
    monkeypatch.setattr(ends, "LOOK", 0.2)
    monkeypatch.setattr(overdue, "PATIENCE", 0.5)
    task = make_task()
    with started(options(shared_kube.kubeconfig(), namespace, tmp_path)) as executor:
        (key,) = queue(executor, task)
        beat_until(executor, lambda events: key in events)
        rows[task.ti.id] = Stored(None, None)
        beat_until(executor, lambda _: not executor.running)
        beat_until(
            executor,
            lambda _: not shared_kube.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"],
        )


def test_a_cluster_that_is_rebuilt_at_the_same_address_is_found_out(
    own_kube, tmp_path, agent_on, rows, monkeypatch
):
    """Its versions begin anew, and a watch from an old one tells nothing."""
    monkeypatch.setattr(watcher, "LOOK", 1.0)
    monkeypatch.setattr(watcher, "LAG", 0.5)
    name = "rebuilt"

    def make_namespace() -> None:
        own_kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    make_namespace()
    maps = f"/api/v1/namespaces/{name}/configmaps"
    for number in range(250):
        path = f"{maps}/c" if number else maps
        body = {"metadata": {"name": "c"}, "data": {"n": str(number)}}
        own_kube.request("PUT" if number else "POST", path, body)
    before, after = make_task(), make_task()
    rows[before.ti.id] = Stored("running", JOB_ID)
    with started(options(own_kube.kubeconfig(), name, tmp_path)) as executor:
        (gone,) = queue(executor, before)
        beat_until(executor, lambda events: gone in events)
        own_kube.restart(empty=True)
        make_namespace()
        agent_on(own_kube, namespaces=[name], processes=0, decide=lambda pod: Fate(EXIT))
        (key,) = queue(executor, after)
        events = beat_until(executor, ended(gone, key), timeout=50)
        assert (events[gone][0], events[key][0]) == (FAILED, SUCCESS)


def test_a_plugin_for_credentials_that_hangs_keeps_nobody(shared_kube, namespace, tmp_path, monkeypatch):
    """The scheduler's thread never runs it; it is ended, and tried again; the health says so."""
    monkeypatch.setattr(kubernetes_executor, "Timing", lambda: pod_api.Timing(connect=1.0))
    pids = tmp_path / "pids"
    plugin = tmp_path / "token.sh"
    plugin.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 600\n")
    plugin.chmod(0o755)
    config = yaml.safe_load(shared_kube.kubeconfig().read_text())
    run = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(plugin)}
    config["users"][0]["user"] = {"exec": run}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    before = time.monotonic()
    with started(options(path, namespace, tmp_path)) as executor:
        executor.claims()
        assert time.monotonic() - before < 1.0
        queue(executor, make_task())
        beat_until(executor, lambda _: "credentials" in (executor.health() or ""))
        first = pids.read_text().split()[0]
        beat_until(executor, lambda _: not Path(f"/proc/{first}").exists())
