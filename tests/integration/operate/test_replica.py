# SPDX-License-Identifier: Apache-2.0
"""The API over a database that can only be read, as a replica of PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text
from unit.operate.documents import backend, document, group, waits

from airflow_dispatch_provider.bridge.database.tables import MANAGER
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from devkit.servers.postgres import PostgresServer

from ..database import DAG_ID, prepare
from .conftest import Server, serving

pytestmark = pytest.mark.integration("postgres")

_SCHEDULER = """
INSERT INTO job (state, job_type, start_date, latest_heartbeat)
VALUES ('running', 'SchedulerJob', now(), now() + interval '1 hour') RETURNING id
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replica")


@pytest.fixture(scope="module")
def database_url(folder: Path) -> Iterator[str]:
    """Of an Airflow whose scheduler has written a moment ago."""
    with PostgresServer() as postgres, pytest.MonkeyPatch.context() as patch:
        url = postgres.create_database("airflow")
        if not AIRFLOW_V_3_2_PLUS:
            patch.setenv("AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS", MANAGER)
        prepare(url, folder)
        engine = create_engine(url)
        with engine.begin() as connection:
            number = connection.execute(text(_SCHEDULER)).scalar_one()
            connection.execute(
                text("INSERT INTO dispatch_status VALUES (:scheduler_id, :team, :written, :document)"),
                status_of(number)._asdict(),
            )
            connection.execute(text("ALTER DATABASE airflow SET default_transaction_read_only = on"))
        engine.dispose()
        yield url


@pytest.fixture(scope="module")
def replica(database_url: str, folder: Path) -> Iterator[Server]:
    with serving(folder, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url}, held=0) as found:
        yield found


def status_of(scheduler):
    held = {"dag_id": DAG_ID, "run_id": "r", "targets": ["gpu"]}
    return document(
        str(scheduler),
        written=time.time() + 3600,
        held=1,
        backends=[backend("gpu", used=4, free=0, held=1)],
        groups=[group("gpu", "waits_full", 1)],
        waiting=[waits("t1", **held)],
    )


def test_what_is_asked_is_answered(replica: Server) -> None:
    """How the backends are, what waits, the story of a task, and the work for a backend."""
    token = replica.token("reader")
    status = replica.send("/dispatch/api/status", token)
    assert (status.code, status.json["problem"]) == (200, None)
    assert [(each["name"], each["used"]) for each in status.json["backends"]] == [("gpu", 4)]
    waiting = replica.send("/dispatch/api/waiting", token)
    assert (waiting.code, [task["task_id"] for task in waiting.json["tasks"]]) == (200, ["t1"])
    run = replica.send(f"/api/v2/dags/{DAG_ID}/dagRuns", token).json["dag_runs"][0]["dag_run_id"]
    story = replica.send(f"/dispatch/api/story?dag_id={DAG_ID}&run_id={quote(run)}&task_id=t3", token)
    assert (story.code, story.json["task_id"]) == (200, "t3")
    backlog = replica.send("/dispatch/api/backlog?backend=gpu", token)
    assert (backlog.code, backlog.json) == (200, {"backlog": 5})


@pytest.mark.parametrize("command", ["cordon", "drain"])
def test_an_order_says_that_it_cannot_be_kept(replica: Server, folder: Path, command: str) -> None:
    """And where it can; nothing of it is in the status, and no traceback in the log."""
    order = {"command": command, "backend": "gpu", "reason": "a test"}
    found = replica.send("/dispatch/api/orders", replica.token("operator"), order)
    assert found.code == 503
    assert found.json["detail"].startswith("The database can only be read here")
    status = replica.send("/dispatch/api/status", replica.token("reader")).json
    assert [each["order"] for each in status["backends"]] == [None]
    assert "Traceback" not in (folder / "server.log").read_text()


def test_so_does_the_command(database_url: str) -> None:
    """In one sentence, with the exit code of a failure."""
    env = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        # Airflow 3.1 has the commands of the executor's class alone.
        "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dispatch", "cordon", "gpu", "--reason", "a test"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1, said
    assert "The database can only be read here" in said
    assert "Traceback" not in said
