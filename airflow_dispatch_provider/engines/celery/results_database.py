# SPDX-License-Identifier: Apache-2.0
"""Results from Celery's table in a database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from celery import Celery

# SQLAlchemy 1.4, which Airflow 3.1 allows, has these nowhere else.
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.sql import Select

from airflow_dispatch_provider.engines.celery.results import (
    FINAL,
    REPORTED,
    Polled,
    Reader,
    Result,
    ResultSource,
    Timing,
    chunks,
)


class DatabaseSource(Polled):
    """Celery's table, asked only for rows that say something new."""

    def __init__(self, backend: Any, engine: Engine, timing: Timing) -> None:
        super().__init__(timing)
        self._engine = engine
        self._columns = backend.task_cls.__table__.c
        self._reader = Reader(lambda row: backend.meta_from_decoded(self._meta(row)))
        timeout = f"SET LOCAL statement_timeout = {round(timing.answer * 1000)}"
        # For this transaction alone: with PgBouncer the server's session belongs to other clients, too.
        self._preamble = sa.text(timeout) if engine.dialect.name == "postgresql" else None

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        running = [celery_id for celery_id in ids if watched.get(celery_id)]
        waiting = [celery_id for celery_id in ids if not watched.get(celery_id)]
        questions = [(chunk, REPORTED) for chunk in chunks(waiting)] + [
            (chunk, FINAL) for chunk in chunks(running)
        ]
        if not questions:
            return
        with self._engine.connect() as connection:
            if self._preamble is not None:
                connection.execute(self._preamble)
            for chunk, wanted in questions:
                rows = connection.execute(self._query(chunk, wanted)).all()
                yield [result for row in rows for result in self._reader.read(row.task_id, row)]

    def _query(self, ids: Collection[str], wanted: Collection[str]) -> Select[Any]:
        columns = self._columns
        # Unpickled here rather than by SQLAlchemy, where one bad value would spoil all rows.
        pickled = sa.type_coerce(columns.result, sa.LargeBinary).label("pickled")
        query = sa.select(columns.task_id, columns.status, pickled)
        return query.where(columns.task_id.in_(ids), columns.status.in_(sorted(wanted)))

    def _meta(self, row: Any) -> dict[str, Any]:
        value = row.pickled and self._columns.result.type.pickler.loads(row.pickled)
        return {"status": row.status, "result": value}

    def close(self) -> None:
        self._engine.dispose()


def open_database(app: Celery, found: type[Any], url: str | None, timing: Timing) -> ResultSource:
    url = url or app.conf.database_url
    options = dict(app.conf.database_engine_options or {})
    options["connect_args"] = {
        **_connect_args(make_url(url), timing.answer),
        **options.get("connect_args", {}),
    }
    engine = sa.create_engine(url, **options)
    try:
        with engine.connect():
            pass  # Celery would go on trying to create its tables for ten time-outs
        backend = found(app=app, url=url, engine_options={"connect_args": options["connect_args"]})
        backend.session_manager.prepare_models(engine)
    except BaseException:
        engine.dispose()
        raise
    return DatabaseSource(backend, engine, timing)


def _connect_args(url: URL, timeout: float) -> dict[str, int]:
    """Time-outs for the drivers that have them, in their own words; what the URL says stays."""
    seconds = max(2, round(timeout))  # libpq takes 1 for 2
    mysql = {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds}
    # Nothing that the server would see: PgBouncer refuses start-up options that it does not know.
    libpq = {
        "connect_timeout": seconds,
        "keepalives_idle": seconds,
        "keepalives_interval": max(1, seconds // 3),
        "keepalives_count": 3,
        "tcp_user_timeout": 2000 * seconds,
    }
    known = {"psycopg2": libpq, "psycopg": libpq, "pymysql": mysql, "mysqldb": mysql}
    arguments = known.get(url.get_driver_name(), {})
    return {name: value for name, value in arguments.items() if name not in url.query}
