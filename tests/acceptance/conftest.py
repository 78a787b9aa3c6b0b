# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_dispatch_provider.bridge.database.tables import MANAGER
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.postgres import PostgresServer

SLOTS = {"small": 2, "medium": 4, "large": 8}
ROUTES = {"two": ["small"], "four": ["medium"], "spill": ["medium", "large"], "glob-*": ["large"]}
DEFAULT = "medium"
QUICK_ADOPTION = {
    # A scheduler's row may be two heartbeats old: Airflow saves the time of the last one with the next.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
}
"""A scheduler that was killed is noticed within 20 s, instead of minutes."""

_OWN_TABLES = {} if AIRFLOW_V_3_2_PLUS else {"AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS": MANAGER}
"""For ``airflow db migrate`` to make the tables of this package."""

COMPONENTS = ("api-server", "scheduler", "dag-processor")


def settings(records: Path, tasks: int) -> dict[str, str]:
    backends = {name: {"executor": "LocalExecutor", "slots": slots} for name, slots in SLOTS.items()}
    routes = [{"queue": queue, "to": targets} for queue, targets in ROUTES.items()]
    return {
        "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
        "AIRFLOW__CORE__PARALLELISM": "64",
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1000",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "32",
        # With the default of 1 s, the tests mostly wait for the next round of the scheduler's loop.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
        "AIRFLOW__DISPATCH__DEFAULT": DEFAULT,
        **_OWN_TABLES,
        "DISPATCH_TEST_RECORDS": str(records),
        "DISPATCH_TEST_TASKS": str(tasks),
    }


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with Airflow's tables, for others to be copies of."""
    name = "migrated"
    home = tmp_path_factory.mktemp(name)
    AirflowCluster(home, settings(home, 0), postgres.create_database(name)).migrate()
    return name


@pytest.fixture
def make_cluster(
    postgres: PostgresServer, migrated: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., AirflowCluster]]:
    """Starts whole Airflows, with three local backends behind the router; stops them after the test."""
    with ExitStack() as stack:

        def make(tasks: int = 0, **more: str) -> AirflowCluster:
            records = tmp_path / "records"
            records.mkdir()
            database = postgres.create_database(request.node.name.replace("test_", "")[:40], migrated)
            env = {**settings(records, tasks), **more}
            if "AIRFLOW__DISPATCH__CONFIG_FILE" in more:
                for option in ("BACKENDS", "ROUTES", "DEFAULT"):
                    del env[f"AIRFLOW__DISPATCH__{option}"]
            cluster = AirflowCluster(tmp_path / "home", env, database, COMPONENTS, is_migrated=True)
            shutil.copy(Path(__file__).with_name("recorded_dag.py"), cluster.dags)
            return stack.enter_context(cluster)

        yield make


def wait(condition: Callable[[], bool], timeout: float, cluster: AirflowCluster) -> float:
    """Wait until it is so; returns when (monotonic seconds) that was."""
    deadline = time.monotonic() + timeout
    while not condition():
        cluster.check_running()
        assert time.monotonic() < deadline, f"not so after {timeout:.0f} s"
        time.sleep(0.3)
    return time.monotonic()
