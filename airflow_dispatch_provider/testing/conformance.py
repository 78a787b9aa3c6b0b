# SPDX-License-Identifier: Apache-2.0
"""The expectations of Airflow's scheduler of any executor, as pytest tests to inherit from::

    class TestMyExecutor(ExecutorContract):
        @pytest.fixture
        def executor(self):
            executor = MyExecutor(parallelism=4)
            executor.job_id = 1
            executor.start()
            yield executor
            executor.end()

The workloads are real, and fail for want of an API server or of a Dag: what counts here is that each reaches
a terminal event, and that nothing is raised on the way. ``timeout`` bounds the wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.testing.workloads import make_task

TERMINAL = {TaskInstanceState.SUCCESS, TaskInstanceState.FAILED}


def any_ended(events: dict[Any, Any]) -> bool:
    """Whether a terminal event is among them; some executors report other states before."""
    return any(value[0] in TERMINAL for value in events.values())


class ExecutorContract:
    """Inherit, and give a started executor with 4 slots in a fixture named ``executor``."""

    timeout = 60.0
    """Seconds that a workload may take to its terminal event."""

    def settle(self, executor: BaseExecutor) -> None:
        """Override where workloads do not end by themselves: make those end that the executor has."""

    def events_of(self, executor: Any, until: Callable[[dict[Any, Any]], bool]) -> dict[Any, Any]:
        """Heartbeat and drain, as the scheduler's loop does, until it is so."""
        events: dict[Any, Any] = {}
        deadline = time.monotonic() + self.timeout
        while not until(events):
            assert time.monotonic() < deadline, f"only {events} after {self.timeout} s"
            executor.heartbeat()
            self.settle(executor)
            events.update(executor.get_event_buffer())
            time.sleep(0.02)
        return events

    def test_is_an_executor_with_the_attributes_that_are_read_on_its_class(self, executor: Any) -> None:
        """Airflow reads these before there is an instance."""
        cls = type(executor)
        assert issubclass(cls, BaseExecutor)
        assert {type(cls.is_local), type(cls.serve_logs)} == {bool}
        assert isinstance(cls.get_cli_commands(), list)

    def test_every_workload_reaches_a_terminal_event_under_its_key(self, executor: Any) -> None:
        """More workloads than slots: none is lost, none is reported under another key."""
        tasks = [make_task(priority=number) for number in range(6)]
        for task in tasks:
            executor.queue_workload(task, None)
        keys = {airflow_api.workload_key(executor, task) for task in tasks}
        events = self.events_of(
            executor, lambda seen: {key for key, value in seen.items() if value[0] in TERMINAL} >= keys
        )
        assert set(events) == keys

    def test_slots_are_free_again_when_everything_has_ended(self, executor: Any) -> None:
        """An event that has been taken occupies no slot."""
        before = executor.slots_available
        executor.queue_workload(make_task(), None)
        self.events_of(executor, any_ended)
        executor.heartbeat()
        assert (executor.slots_available, executor.slots_occupied) == (before, 0)

    def test_a_finished_task_is_unknown(self, executor: Any) -> None:
        """has_task right after the drain: True would turn a killed task into a requeued one."""
        task = make_task()
        executor.queue_workload(task, None)
        self.events_of(executor, any_ended)
        assert not executor.has_task(task.ti)

    def test_asking_and_dumping_never_raise(self, executor: Any, caplog: pytest.LogCaptureFixture) -> None:
        """The calls that the scheduler, the API server and a signal handler make at any time."""
        caplog.set_level(logging.CRITICAL)
        executor.debug_dump()
        assert repr(executor)
        assert executor.slots_available > 0

    def test_an_executor_that_was_never_started_can_be_made_and_asked(self, executor: Any) -> None:
        """Airflow makes one in every API server and for every command."""
        another = type(executor)()
        assert repr(another)
        assert another.get_event_buffer() == {}
