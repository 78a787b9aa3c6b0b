# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.engines.local.pool import Pool
from airflow_dispatch_provider.executors.local_executor import LocalExecutor
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from tests.integration.local import local_runners
from tests.support import wait_until


class TrialExecutor(LocalExecutor):
    """The executor with the runner of these tests, and nothing imported ahead."""

    runner = staticmethod(local_runners.run)
    preload = ()
    warm_up = staticmethod(str)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clerk = InMemoryClerk()
        self.events: dict[Any, Any] = {}

    def _make_clerk(self, limits: Any) -> Any:
        """Knows of no database: what a test says in ``clerk.rows`` stands there."""
        return self.clerk

    @property
    def engine(self) -> LocalEngine:
        assert self._loop is not None
        (engine,) = self._loop.engines.values()
        assert isinstance(engine, LocalEngine)
        return engine

    @property
    def pool(self) -> Pool:
        pool = self.engine._pool
        assert pool is not None
        return pool

    def say(self, key: Any, state: RowState) -> None:
        """Say what the database has of a task."""
        self.clerk.rows[key] = Row(state)

    def seen(self) -> dict[Any, Any]:
        """All events so far: a heartbeat, and what it has found."""
        self.heartbeat()
        self.events.update(self.get_event_buffer())
        return self.events

    def wait_for_event(self, key: Any) -> tuple[Any, Any]:
        return wait_until(lambda: self.seen().get(key))

    def wait_ready(self) -> TrialExecutor:
        wait_until(lambda: (self.heartbeat(), self.slots_available)[1])
        return self


@pytest.fixture(autouse=True)
def test_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCAL_TEST_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def make_executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrialExecutor]]:
    """Starts executors, and leaves no process of theirs behind."""
    before = set(psutil.Process().children(recursive=True))
    made = []

    def make(mode: str = "fork", slots: int = 4, start: bool = True, runner: Any = None) -> TrialExecutor:
        monkeypatch.setenv("AIRFLOW__DISPATCH__LOCAL_TEMPLATE", mode)
        own = {"runner": staticmethod(runner)} if runner else {}
        executor = type("TrialExecutor", (TrialExecutor,), own)(parallelism=slots)
        made.append(executor)
        if start:
            executor.start()
        return executor

    yield make
    for executor in made:
        executor.terminate()
    left = set(psutil.Process().children(recursive=True)) - before
    for process in left:
        process.kill()
    gc.collect()


@pytest.fixture
def executor(make_executor: Callable[..., TrialExecutor]) -> TrialExecutor:
    return make_executor().wait_ready()


@pytest.fixture(params=["fork", "exec"])
def either(request: pytest.FixtureRequest, make_executor: Callable[..., TrialExecutor]) -> TrialExecutor:
    return make_executor(request.param).wait_ready()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(name: str) -> int:
    return int(wait_until(lambda: local_runners.heard(name)))


def state_of(pid: int) -> str:
    return str(psutil.Process(pid).status()) if os.path.exists(f"/proc/{pid}") else "gone"
