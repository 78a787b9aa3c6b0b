# SPDX-License-Identifier: Apache-2.0
"""The queries of the page about autoscaling, on what schedulers write."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Connection, create_engine, text

from devkit.servers.postgres import PostgresServer

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "autoscaling.md").read_text()
CONCURRENCY = 16

Backends = dict[str, tuple[int, int]]
"""Held and used tasks by backend."""


def of_the_page() -> str:
    (query,) = re.findall(r"<!-- query: postgresql -->\n```sql\n(.*?)```", PAGE, re.DOTALL)
    return str(query)


def of_the_chart() -> str:
    """As the chart renders it."""
    (values,) = re.findall(r"<!-- values for the chart -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    query = yaml.safe_load(values)["workers"]["keda"]["query"]
    return str(query).replace("{{ .Values.config.celery.worker_concurrency }}", str(CONCURRENCY))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Connection]:
    engine = create_engine(postgres.create_database(f"autoscaling{time.monotonic_ns()}"))
    with engine.connect() as connection:
        connection.execute(
            text(
                "CREATE TABLE dispatch_status (scheduler_id varchar(250) PRIMARY KEY, team varchar(100) NOT NULL,"
                " written double precision NOT NULL, document text NOT NULL)"
            )
        )
        yield connection
    engine.dispose()


def write(database: Connection, scheduler: str, age: float, backends: Backends) -> None:
    """
    :param age: seconds since it was written
    """
    entries = [
        {"name": name, "held": held, "used": used, "slots": 64, "oldest": None}
        for name, (held, used) in backends.items()
    ]
    row = {
        "id": scheduler,
        "written": time.time() - age,
        "document": json.dumps({"version": 1, "backends": entries}),
    }
    database.execute(text("INSERT INTO dispatch_status VALUES (:id, '', :written, :document)"), row)


@pytest.mark.integration("postgres")
@pytest.mark.parametrize("query", [of_the_page(), of_the_chart()], ids=["page", "chart"])
@pytest.mark.parametrize(
    ("rows", "workers"),
    [
        ([], 0),
        ([("1", 5, {"celery": (0, 0)})], 0),
        ([("1", 5, {"celery": (0, 1)})], 1),
        ([("1", 5, {"celery": (10, 16), "gpu": (1000, 20)})], 2),
        ([("1", 5, {"celery": (10, 16)}), ("2", 55, {"celery": (7, 0)})], 3),
        ([("1", 5, {"celery": (10, 16)}), ("2", 65, {"celery": (500, 0)})], 2),
        ([("1", 5, {"gpu": (9, 9)})], 0),
    ],
    ids=["no scheduler", "idle", "one", "another backend", "two schedulers", "a dead scheduler", "unknown"],
)
def test_workers_that_are_needed(
    database: Connection, query: str, rows: list[tuple[str, float, Backends]], workers: int
) -> None:
    """For what is held and what runs, of that backend alone, and of schedulers that live."""
    for row in rows:
        write(database, *row)
    assert database.execute(text(query.replace("::", r"\:\:"))).scalar_one() == workers
