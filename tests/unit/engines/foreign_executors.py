# SPDX-License-Identifier: Apache-2.0
"""Executors of others, good and bad, and the engine that they are behind, for tests."""

from __future__ import annotations

from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.testing.workloads import make_task

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


class Plain(BaseExecutor):
    """As little as Airflow asks for: it sends what it is told to, and revokes nothing."""

    failing: Any = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent: list[Any] = []

    def start(self) -> None:
        self.fail_in("start")

    def fail_in(self, method: str) -> None:
        if method in self.failing:
            raise OSError(f"no {method}")

    def heartbeat(self) -> None:
        self.fail_in("heartbeat")
        super().heartbeat()

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            airflow_api.forget_queued(self, workload)
            self.sent.append(workload)
            self.running.add(airflow_api.workload_key(self, workload))

    def get_event_buffer(self, dag_ids: Any = None) -> Any:
        self.fail_in("get_event_buffer")
        return super().get_event_buffer(dag_ids)

    def end(self) -> None:
        self.fail_in("end")


class Revoking(Plain):
    def revoke_task(self, *, ti: Any) -> None:
        self.fail_in("revoke_task")
        self.revoked = (ti.task_id, ti.queued_by_job_id)
        self.running.discard(airflow_api.task_key(self, ti))


class Picky(Plain):
    """Hands work over itself, and does not take everything."""

    def queue_workload(self, workload: Any, session: Any) -> None:
        if workload.ti.queue == "poison":
            raise ValueError("not this one")
        self.running.add(airflow_api.workload_key(self, workload))


class Poisoned(Plain):
    """Its heartbeat raises as long as it is to send a certain job."""

    def _process_workloads(self, workload_items: Any) -> None:
        if any(workload.ti.queue == "poison" for workload in workload_items):
            raise ValueError("not this one")
        super()._process_workloads(workload_items)


class Loses(Plain):
    """Its heartbeat raises over a certain job after it has taken it out of its queue."""

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            airflow_api.forget_queued(self, workload)
            if workload.ti.queue == "poison":
                raise ValueError("not this one")
            super()._process_workloads([workload])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine(cls: Any = Plain, slots: int = 4, clock: Any = None, **failing: Any) -> tuple[ForeignEngine, Any]:
    executor = cls(parallelism=slots)
    made = ForeignEngine("x", lambda: executor, slots, clock=clock or Clock())
    made.start("77")
    return made, executor


def job(number: int, workload: Any = None) -> Job:
    workload = workload or make_task()
    return Job(number, airflow_api.workload_key(Plain, workload), workload)


def typed(events: Any) -> Any:
    """Events of two types may have equal parts."""
    return [(type(event), event) for event in events]


def finish(executor: Any, workload: Any, state: Any = SUCCESS, info: Any = None) -> None:
    executor.change_state(airflow_api.workload_key(executor, workload), state, info)
