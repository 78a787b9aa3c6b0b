# SPDX-License-Identifier: Apache-2.0
"""A real metadata database with the task instances of one Dag run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from airflow import settings

DAG_ID, TASKS = "it_dag", 12

_DAG_FILE = f"""
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("{DAG_ID}", schedule=None):
    for number in range({TASKS}):
        EmptyOperator(task_id=f"t{{number}}", queue="a" if number % 2 else "b")
"""


# One process for all, since each has to import Airflow first.
_COMMANDS = """
import sys
from airflow.cli.cli_parser import get_parser

for command in sys.argv[1:]:
    arguments = get_parser().parse_args(command.split())
    arguments.func(arguments)
"""


def prepare(url: str, folder: Path) -> None:
    """Migrate the database, parse the Dag into it and create a run, as a user would."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "it_dag.py").write_text(_DAG_FILE)
    env = {
        **os.environ,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, "db migrate", "dags reserialize", f"dags trigger {DAG_ID}"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def connect(url: str) -> None:
    """Make this process use the database."""
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()
