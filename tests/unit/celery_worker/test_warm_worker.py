# SPDX-License-Identifier: Apache-2.0
"""When a Celery worker gets a template process, and when not."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool
from celery.concurrency.solo import TaskPool as Solo
from celery.signals import celeryd_after_setup, worker_process_init

from airflow_dispatch_provider.celery_worker import warm
from airflow_dispatch_provider.celery_worker.asking import WarmBody
from airflow_dispatch_provider.celery_worker.template import TemplateProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no worker has such processes elsewhere")


def airflows(message: str) -> None:
    """In place of Airflow's function."""


class Worker:
    """As much of a worker as is used."""

    pool_cls: Any = TaskPool
    use_eventloop = True

    def __init__(self) -> None:
        self.task = SimpleNamespace(run=airflows)
        self.app = SimpleNamespace(tasks={"execute_workload": self.task})
        self.repeated: list[Any] = []
        self.timer = SimpleNamespace(call_repeatedly=lambda _, function: self.repeated.append(function))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many files a template process was made, each time."""
    started: list[int] = []
    monkeypatch.setattr(TemplateProcess, "start", lambda self: started.append(self._most))
    monkeypatch.setattr(warm, "obstacle_to_fork", lambda: None)
    monkeypatch.setenv("AIRFLOW__DISPATCH__CELERY_WARM_DAGS", "3")
    return started


class TestPrepare:
    def test_the_task_gets_another_body(self, started: list[int]) -> None:
        """That is what processes of the pool call; the process is looked after."""
        worker = Worker()
        warm.prepare("name", worker)
        assert started == [3]
        assert isinstance(worker.task.run, WarmBody)
        assert len(worker.repeated) == 1

    @pytest.mark.parametrize("most", ["0", None])
    def test_without_the_option_nothing_changes(
        self, started: list[int], monkeypatch: pytest.MonkeyPatch, most: str | None
    ) -> None:
        """The module may be imported by every worker."""
        monkeypatch.delenv("AIRFLOW__DISPATCH__CELERY_WARM_DAGS")
        if most is not None:
            monkeypatch.setenv("AIRFLOW__DISPATCH__CELERY_WARM_DAGS", most)
        worker = Worker()
        warm.prepare("name", worker)
        assert (started, worker.task.run, worker.repeated) == ([], airflows, [])

    @pytest.mark.parametrize("obstacle", ["kernel", "pool", "signal", "threads"])
    def test_where_it_would_not_be_the_same_nothing_changes(
        self, started: list[int], monkeypatch: pytest.MonkeyPatch, caplog: Any, obstacle: str
    ) -> None:
        """And the log says why."""
        worker, reason = Worker(), "threads run"
        if obstacle == "kernel":
            monkeypatch.setattr(warm, "can_end_with_peer", lambda: False)
            reason = "that needs Linux"
        elif obstacle == "pool":
            worker.pool_cls, reason = Solo, "its pool is not prefork"
        elif obstacle == "signal":
            monkeypatch.setattr(worker_process_init, "receivers", [object()])
            reason = "functions are connected to Celery's signal worker_process_init"
        else:
            monkeypatch.setattr(warm, "obstacle_to_fork", lambda: reason)
        warm.prepare("name", worker)
        assert (started, worker.task.run) == ([], airflows)
        assert f"parse their Dag files themselves, because {reason}" in caplog.text

    def test_without_an_event_loop_nobody_looks_after_it(self, started: list[int]) -> None:
        """The worker's timer is a thread then, and a fork of that would be unsafe."""
        worker = Worker()
        worker.use_eventloop = False
        warm.prepare("name", worker)
        assert (started, worker.repeated) == ([3], [])

    def test_celery_calls_it(self) -> None:
        """Of a worker that has imported the module."""
        assert warm.prepare in celeryd_after_setup._live_receivers(None)


class TestProcess:
    def test_one_that_has_ended_is_replaced(self, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
        """At the same address, unless threads run meanwhile."""
        monkeypatch.setattr(TemplateProcess, "_become_template", lambda *_: signal.pause())
        monkeypatch.setattr("airflow_dispatch_provider.celery_worker.template.obstacle_to_fork", lambda: None)
        process = TemplateProcess(1, SimpleNamespace(run=airflows), print)
        process.start()
        first = process._pid
        process.keep()
        assert process._pid == first is not None
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        process.keep()
        assert process._pid not in (None, first)
        assert "has ended" in caplog.text
        os.kill(process._pid, signal.SIGKILL)
        os.waitid(os.P_PID, process._pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(
            "airflow_dispatch_provider.celery_worker.template.obstacle_to_fork", lambda: "threads run"
        )
        process.keep()
        assert process._pid is None
