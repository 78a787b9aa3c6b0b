# SPDX-License-Identifier: Apache-2.0
"""Short words for the tests of the router."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor


def child(router: DispatchExecutor, name: str) -> Any:
    """The executor of a backend."""
    assert router._loop is not None
    return router._backends[name].executor


def queue(router: DispatchExecutor, *workloads: Any) -> None:
    for workload in workloads:
        router.queue_workload(workload, None)  # type: ignore[arg-type]


def given(router: DispatchExecutor, name: str) -> list[str]:
    """Ids of the tasks that a backend was given, in order."""
    return [workload.ti.task_id for workload in child(router, name).given]


def clerk(router: DispatchExecutor) -> Any:
    """The one that it asks about the database."""
    assert router._loop is not None
    return router._loop._clerk


def key(router: DispatchExecutor, workload: Any) -> Any:
    return airflow_api.workload_key(router, workload)


class Clock:
    """Stands in for the ``time`` module where the router reads the monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
