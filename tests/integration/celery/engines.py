# SPDX-License-Identifier: Apache-2.0
"""A Celery engine in tests, and what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from celery import Celery
from support import wait_until

from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, servers_of
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.lifecycle.events import Sent
from airflow_dispatch_provider.testing.workloads import make_task


class Hand:
    """Submits tasks to an engine, and collects its events."""

    def __init__(self, engine: CeleryEngine) -> None:
        self.engine = engine
        self.heard: list[Any] = []
        self._next = 1

    def submit(self, count: int, queue: str, **fields: Any) -> list[int]:
        """So many tasks; gives the numbers of their dispatches."""
        numbers = list(range(self._next, self._next + count))
        self._next += count
        self.engine.submit([Job(n, f"key {n}", make_task(queue=queue, **fields)) for n in numbers])
        return numbers

    def adopt(self, celery_id: str, runs: bool = True) -> int:
        number, self._next = self._next, self._next + 1
        self.engine.adopt([Found(number, number, SimpleNamespace(external_executor_id=celery_id), runs)])
        return number

    def hears(self, kind: type[Any], numbers: list[int] | None = None) -> list[Any]:
        """Waits until one event of this kind has come, or one for each of these dispatches."""

        def found() -> list[Any] | None:
            self.heard += self.engine.poll()
            events = [event for event in self.heard if isinstance(event, kind)]
            if numbers is None:
                return events or None
            mine = {event.dispatch: event for event in events if event.dispatch in numbers}
            return list(mine.values()) if len(mine) == len(numbers) else None

        return wait_until(found)

    def sends(self, count: int, queue: str, **fields: Any) -> list[str]:
        """The Celery ids of so many tasks, once the broker has them."""
        return [event.info for event in self.hears(Sent, self.submit(count, queue, **fields))]

    def room(self) -> Any:
        self.heard += self.engine.poll()
        return self.engine.room()

    def said_of(self, number: int) -> list[Any]:
        self.heard += self.engine.poll()
        return [event for event in self.heard if getattr(event, "dispatch", None) == number]


@contextmanager
def running(app: Celery, timeout: float = 2.0, max_unsent: int = 250) -> Iterator[Hand]:
    options = CeleryOptions(timeout=timeout, max_unsent=max_unsent)
    engine = CeleryEngine("x", lambda: servers_of(lambda: app, options), 1000, options)
    engine.start("77")
    try:
        yield Hand(engine)
    finally:
        engine.stop(time.monotonic() + 1)
