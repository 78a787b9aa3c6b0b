# SPDX-License-Identifier: Apache-2.0
"""When adopted tasks are scheduled again, since the broker has lost their messages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from airflow_dispatch_provider.engines.celery.lost_messages import MARGIN, LostMessages

ADOPTED = {"celery a": "ti a", "celery b": "ti b"}


class Database:
    """Schedules again what it is told; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Any], float]] = []
        self.lost: set[str] = set()
        self.error: Exception | None = None

    def __call__(self, ids: Collection[Any], before: float) -> Collection[Any]:
        self.asked.append((list(ids), before))
        if self.error:
            raise self.error
        return self.lost


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def messages(database: Database) -> LostMessages:
    return LostMessages(database)


def test_those_of_a_broker_that_began_anew_are_found(messages, database):
    """The question covers what was queued before that, and a little later."""
    database.lost = {"ti b"}
    assert messages.find(100.0, lambda: ADOPTED) == ["celery b"]
    assert database.asked == [(["ti a", "ti b"], 100.0 + MARGIN)]


def test_a_broker_that_cannot_tell_is_trusted(messages, database):
    """Such as RabbitMQ, or one that has not been reached yet."""
    assert messages.find(None, lambda: ADOPTED) == []
    assert database.asked == []


def test_it_looks_once(messages, database):
    """A heartbeat costs nothing while neither broker nor adoption has any news."""
    for _ in range(3):
        messages.find(100.0, lambda: ADOPTED)
    assert len(database.asked) == 1
    messages.find(200.0, lambda: ADOPTED)
    messages.look_again()
    messages.find(200.0, lambda: ADOPTED)
    assert [before - MARGIN for _, before in database.asked] == [100.0, 200.0, 200.0]


def test_without_adopted_tasks_there_is_nothing_to_ask(messages, database):
    """As with the first scheduler of a new deployment."""
    assert messages.find(100.0, dict) == []
    assert database.asked == []


def test_a_database_that_is_away_is_asked_again(messages, database, caplog):
    """The scheduler's loop goes on meanwhile."""
    database.error = RuntimeError("is away")
    assert messages.find(100.0, lambda: ADOPTED) == []
    assert "is away" in caplog.text
    database.error, database.lost = None, {"ti a"}
    assert messages.find(100.0, lambda: ADOPTED) == ["celery a"]
