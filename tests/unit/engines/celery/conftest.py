# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dispatch_provider.engines import holding_back
from airflow_dispatch_provider.engines.celery import publisher as module
from airflow_dispatch_provider.engines.celery.lost_messages import LostMessages
from airflow_dispatch_provider.engines.celery.lost_results import LostResults
from airflow_dispatch_provider.engines.celery.publisher import Publisher
from airflow_dispatch_provider.executors import celery_executor
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor

from .fakes import FakePublisher, FakeWatcher
from .publishing import FakeBroker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def publisher(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Not started yet; hardly waits between attempts to connect, and looks at the connection when told to."""
    monkeypatch.setattr(module, "RETRY_DELAYS", (0.001, 0.002))
    monkeypatch.setattr(module, "CHECK_INTERVAL", 3600.0)
    publisher = Publisher(broker, "redis://broker/0")
    yield publisher
    broker.errors.clear()
    broker.open_gates()
    publisher.stop(0)
    if publisher._thread:
        publisher._thread.join(60)
        assert not publisher._thread.is_alive()


@pytest.fixture
def news(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Gives the levels of what was logged, but for DEBUG."""
    caplog.set_level(logging.INFO, module.__name__)
    return lambda: [record.levelname for record in caplog.records if record.name == module.__name__]


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Rows that would have been written to the database."""
    written: list[Any] = []
    monkeypatch.setattr(
        celery_executor, "update_queued", lambda ids, **values: written.append((list(ids), values))
    )
    monkeypatch.setattr(holding_back.Keepalive, "refresh", lambda self, now, held: None)
    return written


@pytest.fixture
def make_executor() -> Callable[..., CeleryExecutor]:
    def make(slots: int = 10, max_unsent: int = 100) -> CeleryExecutor:
        executor = CeleryExecutor(parallelism=slots)
        executor._publisher, executor._watcher = FakePublisher(), FakeWatcher()
        executor._max_unsent = max_unsent
        executor._lost = LostResults(lambda ids: ids)
        executor._lost_messages = LostMessages(lambda ids, before: [])
        return executor

    return make


@pytest.fixture
def executor(make_executor: Callable[..., CeleryExecutor]) -> CeleryExecutor:
    return make_executor()
