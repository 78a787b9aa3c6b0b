# SPDX-License-Identifier: Apache-2.0
"""An executor over one engine, which here has an in-memory executor behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.executors.standalone import Standalone
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from tests.support import make_callback

SUCCESS = TaskInstanceState.SUCCESS


class Trial(Standalone):
    """Runs tasks only."""

    jwt_generator = SimpleNamespace(generate=lambda *args, **kwargs: "a new one")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner, self.clerk = InMemoryExecutor(parallelism=1), InMemoryClerk()

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> ForeignEngine:
        self.made_with = name, slots, counts_workers
        return ForeignEngine(name, lambda: self.inner, slots)

    def _make_clerk(self, limits: Any) -> InMemoryClerk:
        return self.clerk


@pytest.fixture
def executor() -> Any:
    made = Trial(parallelism=2)
    made.job_id = 7
    made.start()
    yield made
    made.end()


def queue(executor: Any, *workloads: Any) -> list[Any]:
    for each in workloads:
        executor.queue_workload(each, None)
    return [airflow_api.workload_key(executor, each) for each in workloads]


def given(executor: Any) -> list[str]:
    return [each.ti.task_id for each in executor.inner.given]


def test_its_engine_is_named_after_it_and_has_its_slots(executor) -> None:
    assert executor.made_with == ("Trial", 2, False)


def test_from_queue_to_event(executor) -> None:
    """By priority, as many as there are slots, with no row in the event log."""
    keys = queue(
        executor, make_task(task_id="low"), *(make_task(task_id=f"high{n}", priority=9) for n in (1, 2))
    )
    executor.heartbeat()
    assert (given(executor), executor.slots_occupied, executor.slots_available) == (["high1", "high2"], 2, 0)
    executor.inner.finish_all()
    executor.heartbeat()
    executor.heartbeat()
    assert executor.get_event_buffer() == dict.fromkeys(keys[1:], (SUCCESS, None))
    assert (given(executor)[2:], list(executor._task_event_logs)) == (["low"], [])


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
def test_what_its_class_cannot_run_fails_at_once(executor) -> None:
    """An exception would end the scheduler."""
    (key,) = queue(executor, make_callback())
    state, info = executor.get_event_buffer()[key]
    assert (state, info) == ("failed", "This executor cannot run ExecuteCallback workloads.")


def test_an_engine_that_is_away_fails_nothing(executor) -> None:
    """And the scheduler is told that there are no slots."""
    executor.inner.failing["heartbeat"] = ConnectionError("its server is away")
    executor.heartbeat()
    (key,) = queue(executor, make_task())
    executor.heartbeat()
    assert (executor.slots_available, key in executor.running, executor.event_buffer) == (0, True, {})


def test_a_task_that_may_not_have_begun_is_looked_up_before_it_fails(executor) -> None:
    """The row is another witness: a task that has not begun is launched again."""
    task = make_task()
    (key,) = queue(executor, task)
    executor.clerk.rows[key] = Row(RowState.QUEUED)
    executor.heartbeat()
    executor.inner.finish(task, success=False)
    executor.heartbeat()
    executor.heartbeat()
    assert (executor.event_buffer, key in executor.running) == ({}, True)


def test_ends_and_says_what_it_has(executor, caplog) -> None:
    caplog.set_level("INFO")
    queue(executor, *(make_task(f"t{n}") for n in range(3)))
    executor.heartbeat()
    assert repr(executor) == "Trial(Trial 2/2, held 1)"
    executor.debug_dump()
    assert "Trial(Trial 2/2, held 1)" in caplog.text
    assert "ForeignEngine('Trial'" in caplog.text
    executor.end()
    executor.terminate()
    assert executor.inner.calls[-1] == "terminate"
    assert "end" in executor.inner.calls
