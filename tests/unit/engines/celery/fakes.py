# SPDX-License-Identifier: Apache-2.0
"""The executor's two threads, as lists, and what tests do with an executor that has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.celery.message import Outgoing
from airflow_dispatch_provider.engines.celery.publisher import Sent
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor

QUEUED, SUCCESS, FAILED = TaskInstanceState.QUEUED, TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


class FakePublisher:
    """Sends nothing by itself: the test takes what waits, and says what became of it."""

    name = "memory://"

    def __init__(self) -> None:
        self.submitted: list[Outgoing] = []
        self.reports: list[Any] = []
        self.revoked: list[str] = []
        self.settled_ids: list[str] = []
        self.problem: str | None = None
        self.kept_since: float | None = None
        self._waiting: dict[str, Outgoing] = {}

    @property
    def unsent(self) -> int:
        return len(self._waiting)

    def submit(self, batch: Iterable[Outgoing]) -> None:
        for outgoing in batch:
            self.submitted.append(outgoing)
            self._waiting[outgoing.celery_id] = outgoing

    def take(self) -> list[Outgoing]:
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken

    withdraw_all = take

    def withdraw(self, celery_id: str) -> bool:
        return self._waiting.pop(celery_id, None) is not None

    def revoke(self, celery_id: str) -> None:
        self.revoked.append(celery_id)

    def settled(self, celery_id: str) -> None:
        self.settled_ids.append(celery_id)

    def drain(self) -> list[Any]:
        reports, self.reports = self.reports, []
        return reports

    def stop(self, timeout: float) -> list[Outgoing]:
        return self.take()


class FakeWatcher:
    """Knows no result by itself."""

    problem: str | None = None

    def __init__(self) -> None:
        self.watched: list[str] = []
        self.forgotten: list[str] = []
        self.results: list[Result] = []

    def watch(self, celery_id: str) -> None:
        self.watched.append(celery_id)

    def forget(self, celery_id: str) -> None:
        self.forgotten.append(celery_id)

    def drain(self) -> list[Result]:
        results, self.results = self.results, []
        return results

    def stop(self) -> None:
        """Nothing to stop."""


def key_of(executor: CeleryExecutor, workload: Any) -> Any:
    return airflow_api.workload_key(executor, workload)


def give(executor: CeleryExecutor, *tasks: Any) -> list[str]:
    """Queue tasks and let the executor hand them over; returns the Celery ids."""
    before = len(executor._publisher.submitted)
    for task in tasks:
        executor.queue_workload(task, None)
    executor.heartbeat()
    return [outgoing.celery_id for outgoing in executor._publisher.submitted[before:]]


def send_all(executor: CeleryExecutor) -> None:
    publisher = executor._publisher
    publisher.reports += [Sent(outgoing) for outgoing in publisher.take()]
    executor.heartbeat()


def report(executor: CeleryExecutor, celery_id: str, state: str, info: Any = None) -> dict[Any, Any]:
    executor._watcher.results.append(Result(celery_id, state, info))
    executor.heartbeat()
    return executor.get_event_buffer()
