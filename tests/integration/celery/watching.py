# SPDX-License-Identifier: Apache-2.0
"""Watching for results in tests, and storing them as a worker does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.app.task import Context
from support import wait_until

from airflow_dispatch_provider.engines.celery.result_sources import open_source
from airflow_dispatch_provider.engines.celery.result_watcher import Open, ResultWatcher
from airflow_dispatch_provider.engines.celery.results import Result, ResultSource, Timing

IMPATIENT = Timing(
    answer=0.5, tick=0.02, poll=0.05, reconcile=3600, ping=0.2, stuck=3.0, min_backoff=0.05, max_backoff=0.2
)
"""Results that do not come by themselves are asked for once, after every connection."""


@contextmanager
def watching(
    app: Celery, timing: Timing = IMPATIENT, open_source: Open = open_source
) -> Iterator[ResultWatcher]:
    watcher = ResultWatcher(app, timing, open_source)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop(timeout=30)


class Opened(list[ResultSource]):
    """Opens sources, and keeps them from being collected, so that only ``close`` closes them."""

    def __call__(self, app: Celery, timing: Timing) -> ResultSource:
        self.append(open_source(app, timing))
        return self[-1]


def make_app(backend: str, broker: str = "memory://", **conf: Any) -> Celery:
    app = Celery("t", broker=broker, backend=backend)
    app.conf.update(conf)
    return app


def new_id() -> str:
    return str(uuid.uuid4())


def store(app: Celery, celery_id: str, state: str = "SUCCESS", value: Any = None, reply_to: str = "") -> None:
    """Do as a worker does when a task starts, or has ended."""
    request = Context(reply_to=reply_to, correlation_id=celery_id) if reply_to else None
    app.backend.store_result(celery_id, value, state, request=request)


def collect(watcher: ResultWatcher, count: int) -> list[Result]:
    """Drain until so many results have come."""
    results: list[Result] = []
    wait_until(lambda: results.extend(watcher.drain()) or len(results) >= count)
    return results


def until_reached(watcher: ResultWatcher, app: Celery, reply_to: str = "") -> None:
    """Wait until a result has come all the way."""
    celery_id = new_id()
    watcher.watch(celery_id)
    store(app, celery_id, reply_to=reply_to)
    assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
