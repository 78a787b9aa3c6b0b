# SPDX-License-Identifier: Apache-2.0
"""The executor takes over what another scheduler had sent, with a real database and a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import update
from support import wait_until

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from devkit.servers.valkey import ValkeyServer

from ..database import TASKS, DirectClerk, as_the_scheduler_offers_them, stored
from .publishing import listening, make_app, revoked
from .test_engine_valkey import store

pytestmark = [pytest.mark.integration("redis"), pytest.mark.integration("sqlite")]


@pytest.fixture
def heir(
    database: str, own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CeleryExecutor]:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", own_valkey.url())
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", own_valkey.url(1))
    monkeypatch.setattr(CeleryExecutor, "_make_clerk", lambda *_: DirectClerk())
    executor = CeleryExecutor(parallelism=2 * TASKS)
    executor.job_id = 1
    executor.start()
    yield executor
    executor.end()


def test_what_a_worker_has_is_adopted_and_what_waits_is_scheduled_again(
    heir: CeleryExecutor, own_valkey: ValkeyServer
) -> None:
    """In the same try. Workers are told to drop the messages that wait."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with create_session() as session:
        session.execute(update(TaskInstance).values(state="queued", queued_dttm=hour_ago, queued_by_job_id=1))
        tries = {}
        for ti in stored(session):
            ti.external_executor_id = f"id of {ti.task_id}"
            tries[ti.task_id] = ti.try_number
            if ti.task_id == "t0":
                ti.state = "running"
                begun = airflow_api.task_key(heir, ti)
    store(own_valkey, "id of t0", "STARTED")
    with listening(make_app(own_valkey.url())) as heard:
        with create_session() as session:
            assert list(heir.try_adopt_task_instances(as_the_scheduler_offers_them(session))) == []

        def states() -> dict[str, Any]:
            heir.heartbeat()
            with create_session() as session:
                return {ti.task_id: str(ti.state) for ti in stored(session)}

        expected = dict.fromkeys(tries, "scheduled") | {"t0": "running"}
        wait_until(lambda: states() == expected)
        waiting = {f"id of {name}" for name in tries if name != "t0"}
        wait_until(lambda: {*revoked(heard)} >= waiting)
        assert {*revoked(heard)} == waiting
    wait_until(lambda: heir.heartbeat() or set(heir.running) == {begun})
    with create_session() as session:
        assert tries == {ti.task_id: ti.try_number for ti in stored(session)}
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.task_id == "t0").values(state="success"))
    store(own_valkey, "id of t0", "SUCCESS")
    wait_until(lambda: heir.heartbeat() or not heir.running)
    assert heir.get_event_buffer() == {}
