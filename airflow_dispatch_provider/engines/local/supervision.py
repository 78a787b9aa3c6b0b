# SPDX-License-Identifier: Apache-2.0
"""Changes to Airflow's supervisor, in the process of one workload: it tells when its task begins, and sees at once that
it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LAST_WAIT = 0.05
"""Seconds that the supervisor waits at a time for the exit of a task that has closed all its sockets."""


def shorten_last_wait() -> None:
    """
    Make the supervisor of this process look for the task's exit code soon after its sockets have closed.

    A process closes its sockets an instant before its exit code can be collected. A supervisor that looks in
    between, waits for a socket again, of which there is none, and so sleeps for ``[workers]
    min_heartbeat_interval`` (5 s), in which its slot stays taken. Called once in each worker process.
    """
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    watched: Any = WatchedSubprocess
    service = watched._service_subprocess

    def service_soon(self: Any, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        if not self.selector.get_map():
            max_wait_time = min(max_wait_time, LAST_WAIT)
        return service(self, max_wait_time, *args, **kwargs)

    watched._service_subprocess = service_soon


def report_start(asks: Callable[[], object], begins: Callable[[], object]) -> None:
    """
    Call ``asks`` before this process asks the Execution API for leave to start its task, ``begins`` when that is given.

    Whatever runs the task, in whatever language, asks through this method of the Task SDK's client, and starts nothing
    before the answer. Called once in each worker process.
    """
    from airflow.sdk.api.client import TaskInstanceOperations

    operations: Any = TaskInstanceOperations
    start = operations.start

    def reported_start(self: Any, *args: Any, **kwargs: Any) -> Any:
        asks()
        context = start(self, *args, **kwargs)
        begins()
        return context

    operations.start = reported_start
