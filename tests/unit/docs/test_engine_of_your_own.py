# SPDX-License-Identifier: Apache-2.0
"""The engine in the page on backends does what the page says."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import task_ref
from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.lifecycle.events import Offered
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from .pages import DOCS

CODE = re.compile(r"<!-- engine:.*?-->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spooled"


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the page, importable under the name that it has there."""
    (code,) = CODE.findall((DOCS / "backends.md").read_text())
    (tmp_path / "spool.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import spool

    yield spool
    del sys.modules["spool"]


def ended(executor: Any, task: Any) -> str:
    """Heartbeats until its end has been told."""
    key = airflow_api.workload_key(executor, task)

    def told() -> str | None:
        executor.heartbeat()
        state, *_ = executor.get_event_buffer().get(key, ("",))
        return str(state) if state in ("success", "failed") else None

    return str(wait_until(told))


def work(folder: Path, task: Any, end: str) -> None:
    """As the machine that takes the task."""
    waiting = folder / f"{task.ti.id}.waiting"
    assert str(task.ti.id) in waiting.read_text()
    running = waiting.rename(waiting.with_suffix(".running"))
    running.rename(running.with_suffix(end))


def test_it_has_all_that_an_engine_is_asked_for(spool, folder):
    """A missing method would make its backend unusable as soon as it is asked for."""
    asked = {*vars(Engine)["__annotations__"], *(name for name in vars(Engine) if not name.startswith("_"))}
    assert {"slots", "forget"} < asked <= set(dir(spool.SpoolEngine(1, folder)))


def test_airflows_own_command_reads_the_file(spool, folder, make_router, monkeypatch):
    """The command of the page hands the task on as it was queued."""
    page = (DOCS / "backends.md").read_text()
    ((module, option),) = re.findall(r"^python -m (\S+) (\S+) FILE$", page, re.MULTILINE)
    command, ran = import_module(module), []
    monkeypatch.setattr(command, "execute_workload", ran.append)
    router = make_router(
        {
            "files": {
                "executor": "spool.SpoolExecutor",
                "slots": 1,
                "config": {"spool": {"folder": str(folder)}},
            }
        }
    )
    task = make_task()
    router.queue_workload(task, None)
    router.heartbeat()
    (file,) = folder.glob("*.waiting")
    monkeypatch.setattr(sys, "argv", [module, option, str(file)])
    command.main()
    assert [each.ti.id for each in ran] == [task.ti.id]


def test_as_a_backend(spool, folder, make_router):
    """Its options come from the backend, and its ends are ends. A failure is checked: the row says that it is over."""
    config = {"spool": {"folder": str(folder)}}
    router = make_router({"files": {"executor": "spool.SpoolExecutor", "slots": 1, "config": config}})
    first, second = make_task(priority=9), make_task()
    for task in (first, second):
        router.queue_workload(task, None)
    router.heartbeat()
    work(folder, first, ".success")
    assert ended(router, first) == "success"
    router.heartbeat()
    work(folder, second, ".failed")
    router._loop._clerk.rows[airflow_api.workload_key(router, second)] = Row(RowState.OVER)
    wait_until(lambda: router.heartbeat() or not router.has_task(second.ti))
    assert list(folder.iterdir()) == []


@pytest.fixture
def alone(spool, folder, monkeypatch) -> Callable[[], Any]:
    """Starts the executor of the page, with rows that a test gives."""
    monkeypatch.setattr(spool.SpoolExecutor, "_make_clerk", lambda *_: InMemoryClerk())
    monkeypatch.setenv("AIRFLOW__SPOOL__FOLDER", str(folder))

    def start() -> Any:
        executor = spool.SpoolExecutor(parallelism=1)
        executor.job_id = 1
        executor.start()
        return executor

    return start


def test_it_adopts_what_a_scheduler_before_it_had(alone, folder):
    task = make_task()
    dead, heir = alone(), alone()
    dead.queue_workload(task, None)
    dead.heartbeat()
    offer(heir, task)
    offer(heir, make_task())
    for _ in range(3):
        heir.heartbeat()
    assert heir.slots_occupied == 1
    work(folder, task, ".success")
    wait_until(lambda: heir.heartbeat() or heir.slots_occupied == 0)


def offer(executor: Any, task: Any) -> None:
    """Offer it as a task of a dead scheduler that ran."""
    key = airflow_api.workload_key(executor, task)
    offered = Offered(key, task_ref(task), True, evidence="SpoolExecutor", subject=task.ti)
    executor._loop.offer(offered, time.monotonic())


def test_a_folder_that_is_away_is_waited_for(alone, folder):
    """Nothing fails meanwhile."""
    executor = alone()
    folder.rmdir()
    executor.queue_workload(make_task(), None)
    executor.heartbeat()
    assert (executor.slots_occupied, executor.get_event_buffer()) == (0, {})
    folder.mkdir()
    wait_until(lambda: executor.heartbeat() or executor.slots_occupied == 1)
