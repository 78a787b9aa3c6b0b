# SPDX-License-Identifier: Apache-2.0
"""A broker that comes back empty, and what is known of that where tasks of a dead scheduler were adopted."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import update
from support import wait_until
from valkey_server import ValkeyServer

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.celery import publisher as publisher_module
from airflow_dispatch_provider.engines.celery.publisher import Publisher
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor

from ..database import TASKS, stored
from .publishing import make_app, publishing
from .redis_contents import connect

pytestmark = pytest.mark.integration("redis")


def test_since_when_it_has_lost_nothing(own_valkey: ValkeyServer, monkeypatch):
    """The same for every scheduler, after every outage in which nothing was lost, and a later time else."""
    monkeypatch.setattr(publisher_module, "CHECK_INTERVAL", 0.1)
    app = make_app(own_valkey.url())
    with ExitStack() as stack:
        publisher, other = (_connected(stack.enter_context(publishing(app))) for _ in range(2))
        began = publisher.kept_since
        assert other.kept_since == began <= time.time()
        connect(own_valkey).client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: not publisher.problem)
        assert publisher.kept_since == began
        own_valkey.restart(empty=True)
        wait_until(lambda: publisher.kept_since > began and other.kept_since > began)
        assert publisher.kept_since <= time.time()
    with publishing(app) as later:
        wait_until(lambda: later.kept_since)
        assert began < later.kept_since <= time.time()


def test_adopted_tasks_are_scheduled_again(
    database: str, own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None fails, and none waits until it is found stuck; the one that a worker has goes on."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", own_valkey.url())
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", own_valkey.url(1))
    monkeypatch.setattr(publisher_module, "CHECK_INTERVAL", 0.1)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with create_session() as session:
        session.execute(
            update(TaskInstance).values(state="queued", queued_dttm=hour_ago, external_executor_id="theirs")
        )
        tis = stored(session)
        for number, ti in enumerate(tis):
            ti.external_executor_id = f"theirs-{number}"
        tis[0].state = "running"
    heir = CeleryExecutor(parallelism=2 * TASKS)
    heir.job_id = 1
    # As a scheduler of a deployment that is not new: the broker has had its data for longer than the tasks are queued.
    _begin(own_valkey, hour_ago - timedelta(hours=1))
    heir.start()
    try:
        wait_until(lambda: heir._publisher.kept_since)
        assert list(heir.try_adopt_task_instances(tis)) == []
        heir.heartbeat()
        assert heir.get_event_buffer() == {}
        own_valkey.restart(empty=True)
        lost = {airflow_api.task_key(heir, ti) for ti in tis[1:]}
        events: dict[Any, Any] = {}
        wait_until(
            lambda: heir.heartbeat() or events.update(heir.get_event_buffer()) or events.keys() >= lost
        )
        assert events == dict.fromkeys(lost, (TaskInstanceState.SUCCESS, None))
        assert heir.running == {airflow_api.task_key(heir, tis[0])}
    finally:
        heir.end()
    with create_session() as session:
        assert [ti.state for ti in stored(session)] == ["running", *["scheduled"] * (TASKS - 1)]


def _connected(publisher: Publisher) -> Publisher:
    wait_until(lambda: publisher.kept_since)
    return publisher


def _begin(server: ValkeyServer, when: datetime) -> None:
    import redis

    with redis.Redis.from_url(server.url()) as client:
        client.hset("_airflow_dispatch.since", "since", when.timestamp())
