# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from airflow_dispatch_provider.executors.celery import publisher as module
from airflow_dispatch_provider.executors.celery.publisher import Publisher

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
