# SPDX-License-Identifier: Apache-2.0
"""Executors of others that hand work over by way of the database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from airflow_dispatch_provider.bridge import airflow_api, executor_classes
from airflow_dispatch_provider.lifecycle.events import Rejected, Returned
from airflow_dispatch_provider.testing.workloads import make_task

from .test_foreign import Plain, engine, job


class Writing(Plain):
    """Hands work over by way of the database."""

    def queue_workload(self, workload: Any, session: Any) -> None:
        session.execute(text("INSERT INTO work VALUES (:queue)"), {"queue": workload.ti.queue})
        if workload.ti.queue == "poison":
            session.execute(text("INSERT INTO nothing_like_it VALUES (1)"))
        self.running.add(airflow_api.workload_key(self, workload))


@pytest.fixture
def work(monkeypatch):
    """A database; gives what is written there."""
    database = create_engine("sqlite://", poolclass=StaticPool)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE work (queue TEXT)"))
    monkeypatch.setattr(executor_classes, "session_for", lambda _: sessionmaker(database).begin())

    def written() -> list[str]:
        with database.begin() as connection:
            return list(connection.scalars(text("SELECT queue FROM work")))

    written.database = database
    return written


def test_a_statement_that_fails_is_one_jobs_own_affair(work):
    """On most databases it spoils the transaction, and with it all that was handed over in it."""
    x, _ = engine(Writing)
    x.submit([job(1, make_task("a")), job(2, make_task("poison")), job(3, make_task("b"))])
    assert [type(event).__name__ for event in x.poll()] == ["Rejected", "Sent", "Sent"]
    assert work() == ["a", "b"]


def test_what_could_not_be_committed_was_not_given_to_it(work):
    """All of it is returned, but for what was refused."""
    x, _ = engine(Writing)

    def fail(connection):
        raise ConnectionError("is gone")

    event.listen(work.database, "commit", fail)
    x.submit([job(1, make_task("a")), job(2, make_task("poison"))])
    event.remove(work.database, "commit", fail)
    rejected, returned = x.poll()[:2]
    assert (type(rejected), rejected.dispatch) == (Rejected, 2)
    assert returned == Returned(1, "ConnectionError: is gone")
    assert len(x._out) == 0
