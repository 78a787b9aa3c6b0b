# SPDX-License-Identifier: Apache-2.0
"""A heartbeat costs time in proportion to what has changed, not to what is running or held."""

from __future__ import annotations

from typing import Any

import pytest
from support import lines_executed, wait_until

from airflow_dispatch_provider.engines import foreign
from airflow_dispatch_provider.engines.celery.servers import Servers
from airflow_dispatch_provider.engines.kubernetes import engine as kubernetes_engine
from airflow_dispatch_provider.executors import celery_executor
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from .celery.fakes import FakeBroker, FakeWatcher
from .kubernetes.fakes import FakeApi
from .kubernetes.test_kubernetes_executor import Trial as KubernetesTrial

FEW, MANY = 20, 400


@pytest.fixture(autouse=True)
def a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is done every few seconds is due, however slow the machine is."""
    monkeypatch.setattr(foreign, "_LOOK_EVERY", 3600.0)


def lines_of_a_quiet_heartbeat(executor: Any, has: int) -> int:
    """After everything has been noted."""
    for _ in range(3):
        executor.heartbeat()
    executor.get_event_buffer()
    executor._task_event_logs.clear()
    assert len(executor.running) == has
    return lines_executed(executor.heartbeat)


def test_of_the_router(make_router):
    """Neither what its backends have nor what it holds is looked at again."""
    lines = []
    for size in (FEW, MANY):
        router = make_router({"a": size, "full": 1}, routes=[{"queue": "q", "to": ["full"]}], default="a")
        for task in [*tasks(size), *tasks(size, "q")]:
            router.queue_workload(task, None)
        lines.append(lines_of_a_quiet_heartbeat(router, 2 * size))
        assert router._loop.machine.held == size - 1
    assert lines[0] == lines[1]


def test_of_celery(monkeypatch):
    """Results are for the thread to find."""
    lines = []
    monkeypatch.setattr(
        celery_executor, "servers_of", lambda *_: Servers(FakeBroker(), "memory://", FakeWatcher())
    )
    monkeypatch.setattr(CeleryExecutor, "_make_clerk", lambda *_: InMemoryClerk())
    for size in (FEW, MANY):
        executor = CeleryExecutor(parallelism=size)
        executor.job_id = 1
        executor.start()
        send(executor, tasks(size))
        lines.append(lines_of_a_quiet_heartbeat(executor, size))
        executor.end()
    assert lines[0] == lines[1]


def send(executor: Any, workloads: list[Any]) -> None:
    """Have all of them sent."""
    for each in workloads:
        executor.queue_workload(each, None)
    sent: dict[Any, Any] = {}

    def all_sent() -> bool:
        executor.heartbeat()
        sent.update(executor.get_event_buffer())
        return len(sent) == len(workloads)

    wait_until(all_sent)


def test_of_kubernetes(monkeypatch):
    """Pods are for the thread to watch."""
    monkeypatch.setattr(kubernetes_engine, "PodApi", lambda *args: FakeApi())
    lines = []
    for size in (FEW, MANY):
        executor = KubernetesTrial(parallelism=size)
        executor.job_id = 7
        executor.start()
        send(executor, tasks(size))
        lines.append(lines_of_a_quiet_heartbeat(executor, size))
        executor.end()
    assert lines[0] == lines[1]


def tasks(number: int, queue: str = "default") -> list[Any]:
    return [make_task(queue) for _ in range(number)]
