# SPDX-License-Identifier: Apache-2.0
"""The EdgeExecutor as a backend beside ours, in a whole Airflow with an edge worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.postgres import PostgresServer
from devkit.servers.process import free_port

pytestmark = [pytest.mark.integration("edge"), pytest.mark.once]

COMPONENTS = ("api-server", "scheduler", "dag-processor")

DAG = """
import os
import time

from airflow.sdk import DAG, task

with DAG("edge_dag", schedule=None):

    @task(queue="edge")
    def waits():
        while not os.path.exists(os.environ["EDGE_TEST_GO"]):
            time.sleep(0.1)

    @task(queue="edge")
    def fails():
        raise ValueError("of the task itself")

    @task
    def here():
        pass

    waits()
    fails()
    here()
"""


def settings(port: int, go: Path) -> dict[str, str]:
    backends = {
        "edge": {"executor": "airflow.providers.edge3.executors.EdgeExecutor", "slots": 8},
        "local": {"executor": "LocalExecutor", "slots": 2},
    }
    return {
        "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": "edge", "to": ["edge"]}]),
        "AIRFLOW__DISPATCH__DEFAULT": "local",
        "AIRFLOW__EDGE__API_ENABLED": "True",
        "AIRFLOW__EDGE__API_URL": f"http://127.0.0.1:{port}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "EDGE_TEST_GO": str(go),
    }


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[AirflowCluster]:
    port = free_port()
    env = settings(port, tmp_path / "go")
    with PostgresServer() as postgres:
        cluster = AirflowCluster(
            tmp_path / "home", env, postgres.create_database("edge"), COMPONENTS, port=port
        )
        (cluster.dags / "edge_dag.py").write_text(DAG)
        with cluster:
            arguments = ["--queues", "edge", "--concurrency", "2", "--edge-hostname", "it"]
            cluster._launch("edge-worker", ["edge", "worker", *arguments])
            yield cluster


def wait(airflow: AirflowCluster, run_id: str, states: dict[str, str]) -> dict[str, Any]:
    """Until the tasks are in these states."""
    deadline = time.monotonic() + 120
    while True:
        rows = {row["task_id"]: row for row in airflow.task_instances("edge_dag", run_id)}
        if states.items() <= {name: row["state"] for name, row in rows.items()}.items():
            return rows
        airflow.check_running()
        assert time.monotonic() < deadline, rows
        time.sleep(0.3)


def test_tasks_end_at_an_edge_worker_beside_a_local_backend(airflow: AirflowCluster, tmp_path: Path) -> None:
    """That one runs, success and failure come back, each in its first try."""
    run_id = airflow.trigger("edge_dag")
    wait(airflow, run_id, {"waits": "running", "fails": "failed", "here": "success"})
    (tmp_path / "go").touch()
    assert airflow.wait_for_run("edge_dag", run_id) == "failed"
    rows = wait(airflow, run_id, {"waits": "success"})
    assert {name: row["try_number"] for name, row in rows.items()} == dict.fromkeys(rows, 1)
