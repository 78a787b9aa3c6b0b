# SPDX-License-Identifier: Apache-2.0
"""Two Kubernetes backends, each with a cluster of its own, under a real Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import require

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.kube import KubeServer, executor_options, kube_build, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent, airflow_env

from .conftest import QUICK_ADOPTION, wait
from .outcome import assert_succeeds
from .records import Records, backends_of

pytestmark = pytest.mark.acceptance

TASKS = 10
BACKENDS, ROUTES, DEFAULT = ("near", "far"), {"two": "far", "four": "far"}, "near"
NAMESPACE = "default"
PROVIDERS = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"


@pytest.fixture
def servers() -> Iterator[dict[str, KubeServer]]:
    """One API server for each backend."""
    require(kube_build.can_provide(), f"there is no Kubernetes API server: {kube_build.ADVICE}")
    with KubeServer() as near, KubeServer() as far:
        yield {"near": near, "far": far}


@pytest.fixture
def start_nodes(servers: dict[str, KubeServer]) -> Iterator[Callable[[AirflowCluster], list[NodeAgent]]]:
    """A node for each server, whose processes see the Airflow that is under test."""
    with ExitStack() as stack:

        def start(cluster: AirflowCluster) -> list[NodeAgent]:
            env = airflow_env(cluster.env)
            return [
                stack.enter_context(NodeAgent(server.kubeconfig(), env=env, processes=2))
                for server in servers.values()
            ]

        yield start


def dispatch_settings(folder: Path, servers: dict[str, KubeServer]) -> dict[str, str]:
    """Eight slots for each of two Kubernetes backends; the tasks of ``two`` and ``four`` go far."""
    kubeconfig = merged_kubeconfig(folder / "kubeconfig.yaml", servers)
    common = executor_options(kubeconfig, folder, NAMESPACE, delete_worker_pods_on_failure="True")
    backends = {
        name: {
            "executor": "KubernetesExecutor",
            "slots": 8,
            "config": {"kubernetes_executor": {**common, "cluster_context": name}},
        }
        for name in BACKENDS
    }
    return {
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(
            [{"queue": queue, "to": [to]} for queue, to in ROUTES.items()]
        ),
        "AIRFLOW__DISPATCH__DEFAULT": DEFAULT,
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "300",
    }


def pods_of(server: KubeServer) -> list[str]:
    items = server.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return [pod["metadata"]["name"] for pod in items]


@pytest.mark.ends
def test_api_servers_and_the_scheduler_are_killed(
    make_cluster: Callable[..., AirflowCluster],
    servers: dict[str, KubeServer],
    start_nodes: Callable[[AirflowCluster], list[NodeAgent]],
    tmp_path: Path,
) -> None:
    """One API server is killed and comes back, then the scheduler is killed: every task ends in success on the
    cluster that its route names, none runs to its end twice, and no pod is left."""
    cluster = make_cluster(TASKS, **dispatch_settings(tmp_path, servers), **QUICK_ADOPTION)
    agents = start_nodes(cluster)
    run_id = cluster.trigger("many")
    records = Records.of(cluster, run_id)
    wait(lambda: sum(records.completions().values()) >= 2, 180, cluster)
    servers["near"].kill()
    wait(lambda: sum(records.completions().values()) >= 4, 180, cluster)
    servers["near"].restart()
    wait(lambda: sum(records.completions().values()) >= 6, 180, cluster)
    cluster.kill_scheduler()
    cluster.start_scheduler()
    assert_succeeds(cluster, "many", run_id, timeout=300)
    assert {task: n for task, n in records.completions().items() if n > 1} == {}
    assert len(records.completions()) == TASKS
    ran_on = backends_of(cluster.event_logs(dag_id="many", event="dispatched"), run_id)
    expected = {task: ROUTES.get(task.rsplit("_", 1)[0], DEFAULT) for task in records.completions()}
    assert {task: where[-1] for task, where in ran_on.items()} == expected
    assert [row for row in cluster.event_logs(dag_id="many") if "stuck" in row["event"]] == []
    wait(lambda: not [pod for server in servers.values() for pod in pods_of(server)], 60, cluster)
    assert all(agent.started for agent in agents)


@pytest.mark.once
def test_the_executor_of_the_provider_runs_beside_ours(
    make_cluster: Callable[..., AirflowCluster],
    servers: dict[str, KubeServer],
    start_nodes: Callable[[AirflowCluster], list[NodeAgent]],
    tmp_path: Path,
) -> None:
    """By its import path, with processes of its own and the options of ``airflow.cfg``: each has its tasks, all succeed
    at the first dispatch, and no pod is left."""
    settings = dispatch_settings(tmp_path, servers)
    backends = json.loads(settings["AIRFLOW__DISPATCH__BACKENDS"])
    options = backends["far"].pop("config")["kubernetes_executor"]
    backends["far"]["executor"] = PROVIDERS
    settings["AIRFLOW__DISPATCH__BACKENDS"] = json.dumps(backends)
    globally = {f"AIRFLOW__KUBERNETES_EXECUTOR__{option.upper()}": value for option, value in options.items()}
    cluster = make_cluster(TASKS, **settings, **globally)
    agents = start_nodes(cluster)
    run_id = cluster.trigger("many")
    assert_succeeds(cluster, "many", run_id, timeout=300)
    records = Records.of(cluster, run_id)
    assert set(records.completions().values()) == {1}
    ran_on = backends_of(cluster.event_logs(dag_id="many", event="dispatched"), run_id)
    expected = {task: [ROUTES.get(task.rsplit("_", 1)[0], DEFAULT)] for task in records.completions()}
    assert ran_on == expected
    wait(lambda: not [pod for server in servers.values() for pod in pods_of(server)], 60, cluster)
    assert all(agent.started for agent in agents)
