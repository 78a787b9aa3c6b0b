# SPDX-License-Identifier: Apache-2.0
"""A configuration and Dags of Airflow 2, with one line changed, under a real Airflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import require

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.kube import POD_TEMPLATE, KubeServer, kube_build
from devkit.servers.node_agent import NodeAgent, airflow_env
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

from .conftest import COMPONENTS
from .outcome import assert_succeeds
from .records import Records, backends_of

pytestmark = [pytest.mark.acceptance, pytest.mark.once]

AIRFLOW_CFG = """
[core]
executor = airflow_dispatch_provider.executors.celery_kubernetes_executor.CeleryKubernetesExecutor
parallelism = 8

[scheduler]
scheduler_idle_sleep_time = 0.2

[celery_kubernetes_executor]
kubernetes_queue = two

[celery]
broker_url = {broker}
result_backend = {results}

[kubernetes_executor]
in_cluster = False
config_file = {kubeconfig}
namespace = default
pod_template_file = {template}
"""
TASKS = 5
CELERY_QUEUES = ("four", "spill", "glob-x", "nowhere")


@pytest.fixture
def servers() -> Iterator[tuple[ValkeyServer, KubeServer]]:
    require(kube_build.can_provide(), f"there is no Kubernetes API server: {kube_build.ADVICE}")
    with ValkeyServer() as valkey, KubeServer() as kube:
        yield valkey, kube


@pytest.fixture
def cluster(
    servers: tuple[ValkeyServer, KubeServer], postgres: PostgresServer, tmp_path: Path
) -> Iterator[AirflowCluster]:
    """Airflow with that airflow.cfg, and none of its options in the environment."""
    valkey, kube = servers
    records, home, template = tmp_path / "records", tmp_path / "home", tmp_path / "pod_template.yaml"
    records.mkdir()
    home.mkdir()
    template.write_text(POD_TEMPLATE)
    where = {"broker": valkey.url(), "results": valkey.url(1), "kubeconfig": kube.kubeconfig()}
    (home / "airflow.cfg").write_text(AIRFLOW_CFG.format(**where, template=template))
    env = {"DISPATCH_TEST_RECORDS": str(records), "DISPATCH_TEST_TASKS": str(TASKS)}
    cluster = AirflowCluster(home, env, postgres.create_database("hybrids"), COMPONENTS)
    shutil.copy(Path(__file__).with_name("recorded_dag.py"), cluster.dags)
    with cluster:
        yield cluster


@pytest.fixture
def node(servers: tuple[ValkeyServer, KubeServer], cluster: AirflowCluster) -> Iterator[NodeAgent]:
    with NodeAgent(servers[1].kubeconfig(), env=airflow_env(cluster.env), processes=2) as agent:
        yield agent


def test_an_airflow_cfg_of_airflow_2(cluster: AirflowCluster, node: NodeAgent) -> None:
    """With nothing but `executor =` changed, tasks of kubernetes_queue run as pods, all others on Celery workers."""
    cluster.start_worker("worker", CELERY_QUEUES)
    run_id = cluster.trigger("many")
    assert_succeeds(cluster, "many", run_id, timeout=180)
    completed = Records.of(cluster, run_id).completions()
    assert (len(completed), set(completed.values())) == (TASKS, {1})
    ran_on = backends_of(cluster.event_logs(dag_id="many", event="dispatched"), run_id)
    assert ran_on == {task: ["kubernetes" if task.startswith("two_") else "celery"] for task in completed}
    assert len(node.started) == 1
