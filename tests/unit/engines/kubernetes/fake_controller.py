# SPDX-License-Identifier: Apache-2.0
"""An executor whose thread of the API calls is replaced by lists, and what tests do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.kubernetes.adoption import Wanted
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    Ended,
    Job,
    PodName,
    Report,
)
from airflow_dispatch_provider.executors.kubernetes_executor import (
    KubernetesExecutor,
)

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED

JOB_ID = 7
"""Of the scheduler that the executor is in."""


class FakeController:
    """Keeps what it is told, and reports what the test has put into ``reports``."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.full: str | None = None
        self.waiting: dict[Any, Job] = {}
        self.submitted: list[Job] = []
        self.reports: list[Report] = []
        self.revoked: list[Any] = []
        self.adopting: list[Wanted] = []
        self.searching: list[Wanted] = []
        self.looked_up_again: list[Ended] = []
        self.put_back_keys: list[Any] = []
        self.pauses: list[float] = []
        self.tidied: list[set[str]] = []

    @property
    def unsent(self) -> int:
        return len(self.waiting)

    def submit(self, jobs: Sequence[Job], after: float = 0.0) -> None:
        self.pauses.append(after)
        self.submitted += jobs
        self.waiting.update((job.key, job) for job in jobs)

    def withdraw(self, key: Any) -> bool:
        return self.waiting.pop(key, None) is not None

    def withdraw_all(self) -> list[Job]:
        jobs = list(self.waiting.values())
        self.waiting.clear()
        return jobs

    def drain(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def revoke(self, pod: PodName) -> None:
        self.revoked.append(pod)

    def revoke_unseen(self, key: Any, labels: str | None) -> None:
        self.revoked.append(labels)

    def adopt(self, wanted: Wanted) -> None:
        self.adopting.append(wanted)

    def search(self, wanted: Wanted) -> None:
        self.searching.append(wanted)

    def look_up_again(self, ended: Ended) -> None:
        self.looked_up_again.append(ended)

    def put_back(self, key: Any) -> None:
        self.put_back_keys.append(key)

    def tidy(self, living: set[str]) -> None:
        self.tidied.append(living)

    def stop(self, timeout: float) -> list[Job]:
        return self.withdraw_all()


def key_of(executor: KubernetesExecutor, workload: Any) -> Any:
    return airflow_api.workload_key(executor, workload)


def pod(number: int = 1) -> PodName:
    return PodName("airflow", f"pod-{number}")


def give(executor: KubernetesExecutor, *tasks: Any) -> list[Any]:
    """Queue tasks and let the executor hand them over; returns their keys."""
    for task in tasks:
        executor.queue_workload(task, None)
    executor.heartbeat()
    return [key_of(executor, task) for task in tasks]


def report(executor: KubernetesExecutor, *reports: Report) -> dict[Any, Any]:
    """The thread reports this; returns the events. Ends come with what the database has."""
    rows = executor._stored([report.key for report in reports if isinstance(report, Ended)])
    executor._controller.reports += (
        replace(report, row=rows.get(report.key)) if isinstance(report, Ended) else report
        for report in reports
    )
    executor.heartbeat()
    return executor.get_event_buffer()


def with_pod(executor: KubernetesExecutor, task: Any) -> Any:
    """Hand a task over and have its pod created; returns its key."""
    (key,) = give(executor, task)
    executor._controller.waiting.clear()
    report(executor, Created(key, pod()))
    return key


def events_of(executor: KubernetesExecutor) -> list[str]:
    return [row.event for row in executor._task_event_logs]
