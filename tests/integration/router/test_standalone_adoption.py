# SPDX-License-Identifier: Apache-2.0
"""An executor of one engine takes over what another scheduler had, with a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import update

from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.executors.standalone import Standalone
from airflow_dispatch_provider.testing import InMemoryExecutor

from ..database import TASKS, DirectClerk, as_the_scheduler_offers_them, stored


class Trial(Standalone):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner = InMemoryExecutor(parallelism=TASKS)

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> ForeignEngine:
        return ForeignEngine(name, lambda: self.inner, slots)

    def _make_clerk(self, limits: Any) -> DirectClerk:
        return DirectClerk()


@pytest.fixture
def executor(database: str) -> Iterator[Trial]:
    """All task instances were queued an hour ago."""
    with create_session() as session:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(TaskInstance).values(state="queued", queued_dttm=hour_ago, queued_by_job_id=1))
    made = Trial(parallelism=TASKS)
    made.job_id = 1
    made.start()
    yield made
    made.end()


def test_what_its_engine_has_is_adopted_and_the_rest_is_scheduled_again_in_place(executor: Trial) -> None:
    """Queued or running: the engine is asked about both, without a row in the event log. No try is used."""
    with create_session() as session:
        chosen = {ti.id for ti in stored(session) if ti.task_id in ("t0", "t1")}
        running = update(TaskInstance).where(TaskInstance.task_id == "t1").values(state="running")
        session.execute(running)
        tries = {ti.task_id: ti.try_number for ti in stored(session)}
    executor.inner.adoptable = chosen
    with create_session() as session:
        assert list(executor.try_adopt_task_instances(as_the_scheduler_offers_them(session))) == []
    for _ in range(6):
        executor.heartbeat()
    assert (executor.slots_occupied, len(executor.running)) == (2, 2)
    with create_session() as session:
        states = {ti.task_id: str(ti.state) for ti in stored(session)}
        assert tries == {ti.task_id: ti.try_number for ti in stored(session)}
    expected = dict.fromkeys(states, "scheduled") | {"t0": "queued", "t1": "running"}
    assert states == expected
