# SPDX-License-Identifier: Apache-2.0
"""Two Celery backends, each with its own broker and plain workers, under a real Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.valkey import ValkeyServer

from .conftest import QUICK_ADOPTION, wait
from .outcome import assert_succeeds
from .records import Records, backends_of

pytestmark = pytest.mark.acceptance

TASKS = 30
BACKENDS, ROUTES, DEFAULT = ("near", "far"), {"two": "far", "four": "far"}, "near"


@pytest.fixture
def brokers() -> Iterator[dict[str, ValkeyServer]]:
    with ValkeyServer() as near, ValkeyServer() as far:
        yield {"near": near, "far": far}


def celery_options(broker: ValkeyServer, results: str) -> dict[str, str]:
    return {"broker_url": broker.url(), "result_backend": results}


def dispatch_settings(options: dict[str, dict[str, str]]) -> dict[str, str]:
    """Eight slots for each of two Celery backends; the tasks of ``two`` and ``four`` go far."""
    backends = {
        name: {"executor": "CeleryExecutor", "slots": 8, "config": {"celery": options[name]}}
        for name in BACKENDS
    }
    routes = [
        {"queue": queue, "to": [{"backend": backend, "queue": "default"}]}
        for queue, backend in ROUTES.items()
    ]
    default = {"backend": DEFAULT, "queue": "default"}
    return {
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
        "AIRFLOW__DISPATCH__DEFAULT": json.dumps(default),
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "300",
    }


@pytest.mark.ends
def test_a_broker_and_the_scheduler_are_killed(
    make_cluster: Callable[..., AirflowCluster], brokers: dict[str, ValkeyServer]
) -> None:
    """One broker is killed and comes back empty, then the scheduler is killed: every task ends in success where
    its route says, none runs to its end twice, none had to wait until Airflow found it stuck."""
    # What the killed broker held are messages only: results are kept in the other server.
    options = {
        "near": celery_options(brokers["near"], brokers["far"].url(1)),
        "far": celery_options(brokers["far"], brokers["far"].url(2)),
    }
    cluster = make_cluster(
        TASKS,
        **dispatch_settings(options),
        **QUICK_ADOPTION,
    )
    for name in BACKENDS:
        env = {f"AIRFLOW__CELERY__{option.upper()}": value for option, value in options[name].items()}
        cluster.start_worker(name, ["default"], 2, env)
    run_id = cluster.trigger("many")
    records = Records.of(cluster, run_id)
    wait(lambda: sum(records.completions().values()) >= 5, 180, cluster)
    brokers["near"].kill()
    wait(lambda: sum(records.completions().values()) >= 10, 180, cluster)
    brokers["near"].restart(empty=True)
    wait(lambda: sum(records.completions().values()) >= 20, 300, cluster)
    cluster.kill_scheduler()
    cluster.start_scheduler()
    assert_succeeds(cluster, "many", run_id, timeout=300)
    assert len(records.completions()) == TASKS
    assert {task: n for task, n in records.completions().items() if n > 1} == {}
    ran_on = backends_of(cluster.event_logs(dag_id="many", event="dispatched"), run_id)
    expected = {task: ROUTES.get(task.rsplit("_", 1)[0], DEFAULT) for task in records.completions()}
    assert {task: where[-1] for task, where in ran_on.items()} == expected
    stuck = [row for row in cluster.event_logs(dag_id="many") if "stuck" in row["event"]]
    assert stuck == []
