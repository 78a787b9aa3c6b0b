# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch migrate`` as a process of its own, on a real database with serialized Dags.

Needs the package installed (editable will do), so that its entry point is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from ..database import DAG_ID, TASKS

ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
OLD = "CeleryKubernetesExecutor"
CONFIG = f"[core]\nexecutor = {OLD}\nparallelism = 16\n[celery_kubernetes_executor]\nkubernetes_queue = b\n"

# On Airflow 3.1 the command is there while the router is configured, so the old executor is told by an argument.
EXECUTOR = OLD if AIRFLOW_V_3_2_PLUS else ROUTER
ARGUMENTS = () if AIRFLOW_V_3_2_PLUS else ("--executor", OLD)

Migrate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def migrate(tmp_path: Path) -> Migrate:
    """Run the command where the configuration of a hybrid is in use."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "airflow.cfg").write_text(CONFIG)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environ = {
            **inherited,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **variables,
        }
        if EXECUTOR != OLD:
            environ["AIRFLOW__CORE__EXECUTOR"] = EXECUTOR
        command = [sys.executable, "-m", "airflow", "dispatch", "migrate", *ARGUMENTS, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=180)

    return run


def test_the_configuration_in_use(migrate: Migrate) -> None:
    """A configuration that Airflow 3 itself cannot run is read by the command of Airflow 3."""
    done = migrate()
    assert done.returncode == 0, done.stderr
    assert 'routes = [{"queue": "b", "to": ["kubernetes"]}]' in done.stdout
    assert "parallelism = 32" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_serialized_dags(migrate: Migrate, database: str) -> None:
    """Every task of the Dags in the database that names a queue is there, with the backend of that."""
    done = migrate("--dags", "--output", "json", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["scanned"] == "2 serialized Dags in the metadata database"
    rows = {row["queue"]: row for row in found["dags"] if row["queue"] != "default"}
    assert {queue: row["goes_to"] for queue, row in rows.items()} == {"a": "celery", "b": "kubernetes"}
    places = sorted(place for row in rows.values() for place in row["places"])
    assert places == sorted(f"{DAG_ID}.t{number}" for number in range(TASKS))
    assert (found["unread"], rows["a"]["do"]) == ([], "nothing")


def test_no_database(migrate: Migrate, tmp_path: Path) -> None:
    """Without one, a message says what to do instead; the rest of the command needs none."""
    nothing = f"sqlite:///{tmp_path}/empty.db"
    done = migrate("--dags", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=nothing)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The metadata database cannot be read (OperationalError)" in done.stderr
    assert "--dags FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
