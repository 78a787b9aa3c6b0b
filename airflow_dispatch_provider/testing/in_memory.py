# SPDX-License-Identifier: Apache-2.0
"""An executor that keeps what it is given until the test says how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS


class InMemoryExecutor(BaseExecutor):
    """Accepts every type of workload and runs none of them.

    A test reads ``given`` and ``running``, ends workloads with ``finish``, and makes the executor misbehave by
    ``failing`` (methods that raise).
    """

    supports_multi_team = True
    serve_logs = True
    if AIRFLOW_V_3_4_PLUS:
        from airflow.executors import workloads as _workloads

        supported_workload_types = frozenset(vars(_workloads)["WorkloadType"])
        supports_task_instance_uuid = True
    else:
        supports_callbacks = True
        supports_connection_test = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: list[Any] = []
        """Every workload that was sent, in order."""

        self.calls: list[str] = []
        """Names of the life-cycle and control methods that were called."""

        self.failing: dict[str, Exception] = {}
        """Exceptions by the name of the method that raises them, as long as they are here."""

        self.counted_slots: int | None = None
        """The answer of ``worker_slots``."""

        self.adoptable: set[Any] = set()
        """Ids of the task instances that it adopts."""

        self.log_lines: list[str] = []

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        if method in self.failing:
            raise self.failing[method]

    def worker_slots(self) -> int | None:
        self._enter("worker_slots")
        return self.counted_slots

    def start(self) -> None:
        self._enter("start")

    def heartbeat(self) -> None:
        self._enter("heartbeat")
        super().heartbeat()

    def queue_workload(self, workload: Any, session: Any) -> None:
        self._enter("queue_workload")
        super().queue_workload(workload, session)

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            airflow_api.forget_queued(self, workload)
            self.given.append(workload)
            self.running.add(airflow_api.workload_key(self, workload))

    def finish(self, workload: Any, *, success: bool = True, info: Any = None) -> None:
        """End a workload; the event is there at once."""
        _, succeeded, failed = airflow_api.workload_states(workload)
        key = airflow_api.workload_key(self, workload)
        self.change_state(key, succeeded if success else failed, info)

    def finish_all(self) -> None:
        for workload in self.given:
            if airflow_api.workload_key(self, workload) in self.running:
                self.finish(workload)

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        self._enter("try_adopt_task_instances")
        adopted = [ti for ti in tis if ti.id in self.adoptable]
        self.running.update(airflow_api.task_key(self, ti) for ti in adopted)
        return [ti for ti in tis if ti.id not in self.adoptable]

    def revoke_task(self, *, ti: Any) -> None:
        self._enter("revoke_task")
        key = airflow_api.task_key(self, ti)
        airflow_api.forget_queued_key(self, key)
        self.running.discard(key)

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        return (["from memory"], self.log_lines) if self.log_lines else ([], [])

    def end(self) -> None:
        self._enter("end")

    def terminate(self) -> None:
        self._enter("terminate")
