# SPDX-License-Identifier: Apache-2.0
"""How a Dag run ended, and everything known about its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from devkit.deployments.airflow_api import ClusterError, Row
from devkit.deployments.airflow_cluster import AirflowCluster

_LINES = 40


def assert_succeeds(cluster: AirflowCluster, dag_id: str, run_id: str, timeout: float) -> None:
    """Wait until the run has ended, and fail with what is known about each task that failed."""
    state = cluster.wait_for_run(dag_id, run_id, timeout=timeout)
    if state != "success":
        failed = [row for row in cluster.task_instances(dag_id, run_id) if row["state"] != "success"]
        pytest.fail(f"the run ended as {state!r}\n{all_about(cluster, failed)}")


def all_about(cluster: AirflowCluster, rows: Iterable[Row]) -> str:
    """Everything known about these task instances."""
    return "\n".join(line for row in rows for line in _about(cluster, row))


def _about(cluster: AirflowCluster, row: Row) -> Iterator[str]:
    yield f"\n== {row['task_id']}: {row}"
    for event in cluster.event_logs(dag_id=row["dag_id"], run_id=row["dag_run_id"], task_id=row["task_id"]):
        yield f"event log: {event['when']} {event['event']}: {event['extra']}"
    yield f"task log:\n{_task_log(cluster, row)}"
    for path in sorted(cluster.log("scheduler").parent.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        telling = [line[:2000] for line in lines if row["id"] in line or f"{row['task_id']} " in line]
        yield "\n".join([f"{path.name}, where it names the task:", *telling[-_LINES:]])


def _task_log(cluster: AirflowCluster, row: Row) -> str:
    try:
        return cluster.task_log(row["dag_id"], row["dag_run_id"], row["task_id"], max(1, row["try_number"]))
    except ClusterError as error:
        return f"(cannot be read: {error})"
