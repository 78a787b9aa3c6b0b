# SPDX-License-Identifier: Apache-2.0
"""Dags that say ``executor=``, unchanged, beside the router of a real Airflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.valkey import ValkeyServer

from .outcome import assert_succeeds
from .records import backends_of

pytestmark = [pytest.mark.acceptance, pytest.mark.once]

NAMES = "airflow_dispatch_provider.executors.by_name"
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor,"
    f"CeleryExecutor:{NAMES}.CeleryExecutor,LocalExecutor:{NAMES}.LocalExecutor",
    "AIRFLOW__DISPATCH__BACKENDS": json.dumps(
        {
            "celery": {"executor": "CeleryExecutor", "slots": 4},
            "local": {"executor": "LocalExecutor", "slots": 4},
        }
    ),
    "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": "for-local", "to": ["local"]}]),
    "AIRFLOW__DISPATCH__DEFAULT": "celery",
}


def test_two_names_of_executors_in_dags(make_cluster: Callable[..., AirflowCluster]) -> None:
    """The Dag loads, and each task runs on the backend whose executor it names, else where its queue says."""
    with ValkeyServer() as valkey:
        broker = {
            "AIRFLOW__CELERY__BROKER_URL": valkey.url(),
            "AIRFLOW__CELERY__RESULT_BACKEND": valkey.url(1),
        }
        cluster = make_cluster(**SETTINGS, **broker)
        cluster.start_worker("worker", ["default", "for-local"])
        shutil.copy(Path(__file__).with_name("naming_dag.py"), cluster.dags)
        run_id = cluster.trigger("naming")
        assert_succeeds(cluster, "naming", run_id, timeout=180)
        ran_on = backends_of(cluster.event_logs(dag_id="naming", event="dispatched"), run_id)
    assert ran_on == {
        "names-none": ["celery"],
        "names-local": ["local"],
        "names-celery": ["celery"],
        "queue-for-local": ["local"],
    }
