# SPDX-License-Identifier: Apache-2.0
"""The contract of ``airflow_dispatch_provider.testing.conformance`` for our executors and for Airflow's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.executors.local_executor import LocalExecutor as AirflowLocalExecutor

from airflow_dispatch_provider.executors.local_executor import LocalExecutor
from airflow_dispatch_provider.testing import InMemoryExecutor
from airflow_dispatch_provider.testing.conformance import ExecutorContract
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from tests.integration.local import local_runners
from tests.support import wait_until

AIRFLOW_LOCAL = "airflow.executors.local_executor.LocalExecutor"


@pytest.fixture(autouse=True)
def no_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of Airflow's executor fail at once: nobody listens where they look for the API server. Ours would wait for
    it, so that their tasks are let start, and do nothing."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:1/execution/")
    monkeypatch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")
    monkeypatch.setattr(LocalExecutor, "runner", staticmethod(local_runners.only_begin))


@pytest.fixture
def make_clerk(they_run: Callable[[], InMemoryClerk]) -> Callable[[], InMemoryClerk]:
    return they_run


def started(executor: Any) -> Iterator[Any]:
    executor.job_id = 1
    executor.start()
    yield executor
    kill_workers(executor)
    executor.end()


def kill_workers(executor: Any) -> None:
    """Airflow's own LocalExecutor may wait for its idle workers for ever when it is ended under load."""
    for worker in getattr(executor, "workers", {}).values():
        worker.kill()
        worker.join()


class TestInMemoryExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Any]:
        yield from started(InMemoryExecutor(parallelism=4))

    def settle(self, executor: Any) -> None:
        executor.finish_all()


def ready(executor: Any) -> Any:
    """Once its template process is."""
    wait_until(lambda: (executor.heartbeat(), executor.slots_available == 4)[1])
    return executor


class TestLocalExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Any]:
        yield from map(ready, started(LocalExecutor(parallelism=4)))


class TestAirflowsLocalExecutor(ExecutorContract):
    """The measure of the contract itself: what Airflow ships has to pass it, too."""

    @pytest.fixture
    def executor(self) -> Iterator[Any]:
        yield from started(AirflowLocalExecutor(parallelism=4))


class TestDispatchOverOurs(ExecutorContract):
    """The router over two of our local executors."""

    @pytest.fixture
    def executor(self, make_router: Any) -> Any:
        return ready(make_router({name: {"executor": "LocalExecutor", "slots": 2} for name in ("a", "b")}))


class TestDispatchOverAirflows(ExecutorContract):
    """The router over Airflow's own executor, which it takes without change."""

    @pytest.fixture
    def executor(self, make_router: Any) -> Iterator[Any]:
        router = make_router({name: {"executor": AIRFLOW_LOCAL, "slots": 2} for name in ("a", "b")})
        yield router
        for backend in router._backends.values():
            kill_workers(backend.executor)
