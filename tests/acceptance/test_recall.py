# SPDX-License-Identifier: Apache-2.0
"""Tasks that backends were sent, and never begin, are taken back in a whole Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from support import require

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.kube import KubeServer, executor_options, kube_build
from devkit.servers.valkey import ValkeyServer

from .conftest import wait
from .outcome import assert_succeeds
from .records import Records
from .test_celery import celery_options
from .test_kubernetes import NAMESPACE, pods_of
from .test_operating import ask, state_of

pytestmark = pytest.mark.acceptance

TASKS = 20
STALLED = ("messages", "pods")
"""Backends without anything that would begin a task: no worker, no node."""


def dispatch_settings(folder: Path, broker: ValkeyServer, server: KubeServer) -> dict[str, str]:
    celery = celery_options(broker, broker.url(1))
    kubernetes = executor_options(server.kubeconfig(), folder, NAMESPACE)
    backends = {
        "messages": {"executor": "CeleryExecutor", "slots": 8, "config": {"celery": celery}},
        "pods": {
            "executor": "KubernetesExecutor",
            "slots": 8,
            "config": {"kubernetes_executor": kubernetes},
        },
        "here": {"executor": "LocalExecutor", "slots": 4},
    }
    routes = [
        {"queue": "two", "to": [{"backend": "messages", "queue": "default"}, "here"]},
        {"queue": "four", "to": ["pods", "here"]},
    ]
    return {
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
        "AIRFLOW__DISPATCH__DEFAULT": "here",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3600",
    }


@pytest.mark.once
def test_what_has_not_begun_is_recalled(make_cluster: Callable[..., AirflowCluster], tmp_path: Path) -> None:
    """Messages that no worker takes and pods that no node starts come back from drained backends, and their tasks run
    elsewhere, once and at try 1; a worker that comes late runs nothing, and no pod is left. Whoever waits for the
    recall finds the backend empty."""
    require(kube_build.can_provide(), f"there is no Kubernetes API server: {kube_build.ADVICE}")
    with ValkeyServer() as broker, KubeServer() as server:
        cluster = make_cluster(TASKS, **dispatch_settings(tmp_path, broker, server))
        run_id = cluster.trigger("many")
        records = Records.of(cluster, run_id)

        def sent() -> int:
            found = cluster.request("GET", "/dispatch/api/running")
            return sum(not task["has_begun"] for task in found["tasks"])

        wait(lambda: sent() == 8 and sum(records.completions().values()) == 12, 180, cluster)
        foretold = ask(cluster, "drain", "pods", "--dry-run")
        assert (foretold["has"], foretold["not_begun"]) == (4, 4)
        for backend in STALLED:
            ask(cluster, "drain", backend, "--reason", "nothing begins")
        wait(lambda: {state_of(cluster, backend) for backend in STALLED} == {"draining"}, 60, cluster)
        assert sent() == 8
        for backend in STALLED:
            given = ask(cluster, "recall", backend, "--reason", "nothing begins", "--wait", "--timeout", "2m")
            assert given["command"] == "recall"
            assert ask(cluster, "running", "--backend", backend)["total"] == 0
            assert cluster.cli("dispatch", "drain", backend, "--wait", "--timeout", "1m").returncode == 0
        assert_succeeds(cluster, "many", run_id, timeout=180)
        wait(lambda: not pods_of(server), 60, cluster)
        env = {
            f"AIRFLOW__CELERY__{option.upper()}": value
            for option, value in celery_options(broker, broker.url(1)).items()
        }
        cluster.start_worker("late", ["default"], 2, env)
        with redis.Redis.from_url(broker.url()) as client:
            wait(lambda: not client.llen("default") and not client.hlen("unacked"), 120, cluster)
        assert sorted(records.completions().values()) == [1] * TASKS
        assert {row["try_number"] for row in cluster.task_instances("many", run_id)} == {1}
        recalled = cluster.event_logs(dag_id="many", event="recalled")
        assert sorted({row["task_id"].split("_")[0] for row in recalled}) == ["four", "two"]
        changed = [change["event"] for change in ask(cluster, "changes")]
        assert changed == ["dispatch_drain", "dispatch_recall"] * 2 + ["dispatch_drain"] * 2
