# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .database import DirectClerk, TheyRun, connect, databases, prepare


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/airflow.db"


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    from devkit.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server.url


@contextmanager
def _mysql(folder: Path) -> Iterator[str]:
    from .mysql import create_database, running_server, use_pymysql

    with running_server() as server:
        use_pymysql()
        yield create_database(server)


SERVERS = {"sqlite": _sqlite, "postgres": _postgres, "mysql": _mysql}


@pytest.fixture(scope="session", params=databases("sqlite", "postgres"))
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a migrated database with one run of each Dag, which this process uses for the rest of the session."""
    folder = tmp_path_factory.mktemp(request.param)
    before = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    with SERVERS[request.param](folder) as url:
        prepare(url, folder)
        connect(url)
        if request.param == "mysql":
            # Processes that other tests start have no driver for it.
            _put_back(before)
        yield url
    from airflow import settings

    settings.dispose_orm()
    _put_back(before)


def _put_back(before: str | None) -> None:
    if before is None:
        os.environ.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", None)
    else:
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = before


@pytest.fixture
def make_clerk() -> Callable[[], DirectClerk]:
    """Routers ask the real database."""
    return DirectClerk


@pytest.fixture
def they_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[], TheyRun]:
    """For tasks that are in no database: silence is taken for death at once."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")
    return TheyRun
