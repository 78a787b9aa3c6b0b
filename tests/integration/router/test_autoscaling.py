# SPDX-License-Identifier: Apache-2.0
"""The queries of the page about autoscaling, on what schedulers write."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Connection, Engine, create_engine, insert, text

from airflow_dispatch_provider.bridge.database.tables import STATUS, StatusRow
from airflow_dispatch_provider.bridge.event_log import json_of
from devkit.servers.postgres import PostgresServer

from .. import mysql

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "autoscaling.md").read_text()
CONCURRENCY = 16

Backends = dict[str, tuple[int, int]]
"""Held and used tasks by backend."""


def of_the_page(dialect: str) -> str:
    (query,) = re.findall(rf"<!-- query: {dialect} -->\n```sql\n(.*?)```", PAGE, re.DOTALL)
    return str(query)


def of_the_chart() -> str:
    """As the chart renders it."""
    (values,) = re.findall(r"<!-- values for the chart -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    query = yaml.safe_load(values)["workers"]["keda"]["query"]
    return str(query).replace("{{ .Values.config.celery.worker_concurrency }}", str(CONCURRENCY))


@contextmanager
def _server(kind: str) -> Iterator[str]:
    """URL of an empty database."""
    if kind == "mysql":
        with mysql.running_server() as url:
            yield mysql.create_database(url)
    else:
        with PostgresServer() as postgres:
            yield postgres.create_database("autoscaling")


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Of a database with the table, in which there is nothing."""
    with _server(request.param) as url:
        engine = create_engine(url)
        STATUS.create(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def database(engine: Engine) -> Iterator[Connection]:
    """It rolls back all that is written over it."""
    with engine.connect() as connection:
        yield connection


def write(database: Connection, scheduler: str, age: float, backends: Backends) -> None:
    """
    :param age: seconds since it was written
    """
    entries = [
        {"name": name, "held": held, "used": used, "slots": 64, "trouble": "a server says \0 and \udcff"}
        for name, (held, used) in backends.items()
    ]
    document = json_of({"version": 1, "backends": entries})
    database.execute(insert(STATUS).values(StatusRow(scheduler, "", time.time() - age, document)._asdict()))


POSTGRES, MYSQL = pytest.mark.integration("postgres"), pytest.mark.integration("mysql")


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
@pytest.mark.parametrize(
    ("engine", "query"),
    [
        pytest.param("postgres", of_the_page("postgresql"), id="page", marks=POSTGRES),
        pytest.param("postgres", of_the_chart(), id="chart", marks=POSTGRES),
        pytest.param("mysql", of_the_page("mysql"), id="mysql", marks=MYSQL),
    ],
    indirect=["engine"],
    scope="module",  # else one server for each test
)
def test_workers_that_are_needed(
    database: Connection, query: str, rows: list[tuple[str, float, Backends]], workers: int
) -> None:
    """For what is held and what runs, of that backend alone, and of schedulers that live."""
    for row in rows:
        write(database, *row)
    assert database.execute(text(query.replace("::", r"\:\:"))).scalar_one() == workers
