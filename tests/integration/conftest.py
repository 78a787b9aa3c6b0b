# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from .database import DirectClerk, TheyRun, connect, prepare


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("sqlite", marks=pytest.mark.integration("sqlite")),
        pytest.param("postgres", marks=pytest.mark.integration("postgres")),
    ],
)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a migrated database with one run of each Dag, which this process uses for the rest of the session."""
    folder = tmp_path_factory.mktemp(request.param)
    before = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/airflow.db"
        prepare(url, folder)
        connect(url)
        yield url
    else:
        from devkit.servers.postgres import PostgresServer

        with PostgresServer() as server:
            prepare(server.url, folder)
            connect(server.url)
            yield server.url
    from airflow import settings

    settings.dispose_orm()
    if before is None:
        del os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
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
