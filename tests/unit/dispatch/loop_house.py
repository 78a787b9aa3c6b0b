# SPDX-License-Identifier: Apache-2.0
"""A loop with all that it needs, for tests."""

from __future__ import annotations

from typing import Any

from airflow.utils.state import TaskInstanceState
from unit.lifecycle.builders import settings

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import Rows
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Outcome, Row, RowState
from airflow_dispatch_provider.testing import InMemoryExecutor
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

QUEUED, FINISHED = Row(RowState.QUEUED), Row(RowState.OVER, finished=True)
STATES = {Outcome.SUCCESS: TaskInstanceState.SUCCESS, Outcome.FAILED: TaskInstanceState.FAILED}


class Clerk(InMemoryClerk):
    """Every task has a row.

    :param others: of tasks that are not in ``rows``
    """

    def __init__(self, others: Row = QUEUED) -> None:
        super().__init__()
        self.others = others
        self.patience: list[float] = []
        """Seconds that each ``stop`` would have waited."""

        self.is_mute = False

    def look_up(self, asked: int, ids: Any) -> None:
        if self.is_mute:
            return
        self._answers.append(Rows(asked, {key: self.rows.get(key, self.others) for key in ids}))

    def stop(self, timeout: float) -> None:
        self.patience.append(timeout)


class Surface:
    def __init__(self) -> None:
        self.rows: list[tuple[Any, str]] = []
        self.unprepared: Any = None

    def prepare(self, dispatch: Any, backend: str) -> Any:
        if dispatch.workload is self.unprepared:
            raise ValueError("no token")
        return dispatch.workload

    def dispatched(self, backend: str, dispatches: Any) -> None:
        self.rows += [(each.key, backend) for each in dispatches]

    def record(self, key: Any, word: str, detail: str) -> None: ...

    def value_of(self, action: Any) -> Any:
        if isinstance(action, actions.EmitId):
            return TaskInstanceState.QUEUED, action.info
        return action.value or (STATES[action.how], action.info)


class House:
    """A loop over in-memory executors a and b, one slot each, and Airflow's side of it."""

    def __init__(self, *routes: Any, **options: Any) -> None:
        self.executors = {name: InMemoryExecutor(parallelism=1) for name in ("a", "b")}
        self.now, self.clerk, self.surface = 0.0, Clerk(), Surface()
        self.buffer: dict[Any, Any] = {}
        engines = {
            name: ForeignEngine(name, lambda made=made: made, 1, clock=lambda: self.now)
            for name, made in self.executors.items()
        }
        self.loop = Loop(
            Machine(settings(*routes, **options)), engines, self.clerk, self.surface, lambda: self.now
        )
        self.loop.start("1", self.now)

    def key(self, workload: Any) -> Any:
        return airflow_api.workload_key(self.executors["a"], workload)

    def queue(self, *workloads: Any) -> House:
        for each in workloads:
            self.loop.queue(self.key(each), each, task_ref(each), priority_of(each), self.now)
        return self

    def finish(self, name: str, workload: Any, info: Any = None) -> None:
        """It has succeeded, which both its executor and its row say."""
        self.clerk.rows[self.key(workload)] = FINISHED
        self.executors[name].finish(workload, info=info)

    def beat(self, times: int = 1, passed: float = 1.0) -> House:
        for _ in range(times):
            self.now += passed
            self.loop.heartbeat(self.now, self.buffer)
        return self

    def given(self, name: str) -> list[str]:
        return [each.ti.task_id for each in self.executors[name].given]

    def told(self) -> dict[Any, Any]:
        told, self.buffer = dict(self.buffer), {}
        return {key: str(value[0]) for key, value in told.items()}
