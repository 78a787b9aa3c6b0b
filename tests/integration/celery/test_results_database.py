# SPDX-License-Identifier: Apache-2.0
"""Results from Celery's table in a real PostgreSQL, also while it is away or mute."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from celery import Celery
from support import wait_until

from airflow_dispatch_provider.engines.celery import result_watcher
from airflow_dispatch_provider.engines.celery.results import Result
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.postgres import PostgresServer

from .watching import IMPATIENT, Opened, collect, make_app, new_id, store, until_reached, watching

pytestmark = pytest.mark.integration("postgres")

PATIENT = replace(IMPATIENT, answer=2.0)
"""PostgreSQL's driver knows no time-out below two seconds."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.create_database(f"results-{new_id()}")


@pytest.fixture
def app(url: str) -> Celery:
    return make_app(f"db+{url}")


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultyProxy]:
    with FaultyProxy("127.0.0.1", server.port) as proxy:
        yield proxy


def through(proxy: FaultyProxy, url: str) -> Celery:
    return make_app(f"db+{proxy.url(url)}")


def connections(url: str) -> int:
    """Those to this database, but for our own."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        return connection.execute(sa.text(query)).scalar_one()


def test_results_are_found(app):
    """The tables are made where nobody has done so."""
    with watching(app) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        store(app, celery_id, "STARTED")
        assert [result.state for result in collect(watcher, 1)] == ["STARTED"]
        store(app, celery_id, "FAILURE", ValueError("no"))
        (result,) = collect(watcher, 1)
        assert (result.celery_id, result.state, repr(result.info)) == (
            celery_id,
            "FAILURE",
            "ValueError('no')",
        )


def test_results_from_before_the_watch_are_found(app):
    celery_id = new_id()
    store(app, celery_id)
    with watching(app) as watcher:
        watcher.watch(celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]


def test_one_connection_is_enough_and_closed_at_the_end(app, url):
    opened = Opened()
    with watching(app, open_source=opened) as watcher:
        until_reached(watcher, app)
        until_reached(watcher, app)
        assert connections(url) == len(opened) == 1
    wait_until(lambda: connections(url) == 0)


def test_the_users_table_and_options_are_used(url):
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA team"))
    conf = {
        "database_table_names": {"task": "results", "group": "groups"},
        "database_table_schemas": {"task": "team", "group": "team"},
        "database_engine_options": {"connect_args": {"application_name": "ours"}},
    }
    app = make_app(f"db+{url}", **conf)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with watching(app) as watcher:
            until_reached(watcher, app)
            with engine.connect() as connection:
                assert connection.execute(sa.text("SELECT count(*) FROM team.results")).scalar_one() == 1
                names = connection.execute(sa.text("SELECT application_name FROM pg_stat_activity")).scalars()
                assert "ours" in names.all()
    finally:
        make_app(f"db+{url}").backend  # noqa: B018  Celery keeps the names in its models, for the whole process


def test_a_question_that_takes_too_long_is_a_problem(app, url):
    """The time-out is for our transaction only, and a session behind PgBouncer keeps its own."""
    with watching(app, PATIENT) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.text("LOCK TABLE celery_taskmeta IN ACCESS EXCLUSIVE MODE"))
            watcher.watch(celery_id)
            assert "statement timeout" in wait_until(lambda: watcher.problem)
        store(app, celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)


@pytest.mark.parametrize("mode", ["refuse", "reset"])
def test_an_outage_is_noticed_and_what_finished_in_it_is_found(mode, app, url, proxy, caplog):
    caplog.set_level(logging.INFO)
    with watching(through(proxy, url), PATIENT) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        proxy.mode = mode
        assert "OperationalError" in wait_until(lambda: watcher.problem)
        store(app, celery_id)
        proxy.mode = "forward"
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)
    records = [record for record in caplog.records if record.name == result_watcher.__name__]
    assert [record.levelno for record in records] == [logging.WARNING, logging.INFO]


def test_a_server_that_is_mute_is_a_problem_until_it_speaks(app, url, proxy):
    """The driver waits for an answer as long as the connection lives; the scheduler does not."""
    with watching(through(proxy, url), PATIENT) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        proxy.mode = "hang"
        assert "has not answered for" in wait_until(lambda: watcher.problem)
        assert watcher.drain() == []
        store(app, celery_id)
        proxy.mode = "forward"
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)


def test_a_server_that_is_mute_from_the_beginning(app, url, proxy):
    proxy.mode = "hang"
    with watching(through(proxy, url), PATIENT) as watcher:
        assert "timeout" in wait_until(lambda: watcher.problem)
        proxy.mode = "forward"
        wait_until(lambda: watcher.problem is None)
        until_reached(watcher, app)
