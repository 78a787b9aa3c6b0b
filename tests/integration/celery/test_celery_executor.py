# SPDX-License-Identifier: Apache-2.0
"""The executor with a real broker, a real result backend and real workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from support import wait_until

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.celery import servers
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from airflow_dispatch_provider.testing import make_callback, make_task
from airflow_dispatch_provider.testing.conformance import ExecutorContract
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from .workers import Worker

pytestmark = pytest.mark.integration("redis")


@pytest.fixture(scope="module")
def with_worker(valkey: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Broker, result backend and a worker that serves the queues ``default`` and ``other``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CELERY__BROKER_URL", valkey.url())
        patch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", valkey.url(1))
        folder = tmp_path_factory.mktemp("worker")
        with Worker(folder, valkey.url(), valkey.url(1), "default,other") as worker:
            worker.wait_until_ready(CeleryExecutor().celery_app)
            yield


@pytest.fixture
def executor(with_worker: None, they_run: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[CeleryExecutor]:
    monkeypatch.setattr(CeleryExecutor, "_make_clerk", lambda *_: they_run())
    executor = CeleryExecutor(parallelism=4)
    executor.job_id = 1
    executor.start()
    yield executor
    executor.end()


class TestContract(ExecutorContract):
    """Airflow's expectations of every executor. The tasks fail: no API server answers the workers."""


class TestContractBehindTheRouter(ExecutorContract):
    """Two Celery backends in one router."""

    @pytest.fixture
    def make_clerk(self, they_run: Any) -> Any:
        return they_run

    @pytest.fixture
    def executor(self, with_worker: None, make_router: Any) -> Any:
        return make_router({name: {"executor": "CeleryExecutor", "slots": 2} for name in ("a", "b")})


def beat_until(executor: Any, done: Callable[[dict[Any, Any]], bool], timeout: float = 60) -> dict[Any, Any]:
    events: dict[Any, Any] = {}
    deadline = time.monotonic() + timeout
    while not done(events):
        assert time.monotonic() < deadline, f"only {events} after {timeout:.0f} s; {executor.debug_dump()}"
        executor.heartbeat()
        events.update(executor.get_event_buffer())
        time.sleep(0.02)
    return events


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_callback_reaches_a_terminal_event(executor: CeleryExecutor) -> None:
    """Callbacks travel the same way, to the queue that they name."""
    callback = make_callback(queue="other")
    executor.queue_workload(callback, None)
    key = airflow_api.workload_key(executor, callback)
    events = beat_until(
        executor, lambda seen: getattr(seen.get(key, [None])[0], "value", "") in ("failed", "success")
    )
    assert set(events) == {key}


def test_a_revoked_task_never_runs(executor: CeleryExecutor, valkey: Any) -> None:
    """Nobody serves its queue while it is revoked; the worker that comes later drops it."""
    task = make_task(queue="nobody")
    executor.queue_workload(task, None)
    (celery_id,) = (info for _, info in beat_until(executor, bool).values())
    executor.revoke_task(ti=task.ti)
    inspect = executor.celery_app.control.inspect(timeout=2)
    deadline = time.monotonic() + 30
    while celery_id not in str(inspect.revoked()):
        assert time.monotonic() < deadline
    assert not executor.has_task(task.ti)


def test_two_brokers_at_once(
    own_valkey: Any, with_worker: None, make_router: Any, they_run: Any, tmp_path: Path
) -> None:
    """Each backend publishes to its own broker and reads its own results."""
    there = {"celery": {"broker_url": own_valkey.url(), "result_backend": own_valkey.url(1)}}
    backends = {
        "here": {"executor": "CeleryExecutor", "slots": 2},
        "there": {"executor": "CeleryExecutor", "slots": 2, "config": there},
    }
    with Worker(tmp_path, own_valkey.url(), own_valkey.url(1)) as worker:
        router = make_router(
            backends,
            routes=[{"queue": "far", "to": [{"backend": "there", "queue": "default"}]}],
            default="here",
            clerk=they_run(),
        )
        there_app: Any = router._backends["there"].executor
        worker.wait_until_ready(there_app.celery_app)
        near, far = make_task(), make_task(queue="far")
        for task in (near, far):
            router.queue_workload(task, None)
        keys = {airflow_api.workload_key(router, task) for task in (near, far)}
        events = beat_until(
            router,
            lambda seen: {key for key, value in seen.items() if value[0] == TaskInstanceState.FAILED} == keys,
        )
        assert set(events) == keys
        assert len(results_in(own_valkey)) == 1


def results_in(server: Any) -> list[str]:
    """Ids of the Celery tasks that a result backend knows."""
    import redis

    client = redis.Redis.from_url(server.url(1))
    return [key.decode() for key in client.keys("celery-task-meta-*")]


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_broker_that_is_gone_fails_nothing_and_comes_back(
    own_valkey: Any, monkeypatch: Any, fault: str
) -> None:
    """Refused or hung: tasks wait, no event says otherwise, and all are sent when it is back."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", own_valkey.url())
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", own_valkey.url(1))
    monkeypatch.setattr(servers, "LEAST_TIMEOUT", 1.0)
    monkeypatch.setattr(CeleryExecutor, "_make_clerk", lambda *_: InMemoryClerk())
    executor = CeleryExecutor(parallelism=100)
    executor.job_id = 1
    executor.start()
    engine = executor._loop.engines["CeleryExecutor"]
    first = make_task()
    executor.queue_workload(first, None)
    beat_until(executor, bool)
    getattr(own_valkey, fault)()
    tasks = [make_task() for _ in range(20)]
    for task in tasks:
        executor.queue_workload(task, None)
    wait_until(lambda: executor.heartbeat() or engine.room().unavailable)
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    assert all(executor.has_task(task.ti) for task in tasks)
    own_valkey.restart() if fault == "kill" else own_valkey.resume()
    keys = {airflow_api.workload_key(executor, task) for task in tasks}
    events = beat_until(executor, lambda seen: set(seen) >= keys)
    assert {value[0] for value in events.values()} == {TaskInstanceState.QUEUED}
    queued = queue_content(own_valkey)
    assert len(queued) == len(set(queued)) == 21
    executor.end()


def queue_content(server: Any) -> list[str]:
    """Ids of the Celery tasks in the broker's default queue."""
    import json

    import redis

    return [
        json.loads(text)["headers"]["id"]
        for text in redis.Redis.from_url(server.url()).lrange("default", 0, -1)
    ]
