# SPDX-License-Identifier: Apache-2.0
"""The face of the Celery engine: facts of its class, options, and the engine that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.providers.celery.executors.celery_executor import CeleryExecutor as AirflowCeleryExecutor
from airflow.utils.state import TaskInstanceState
from celery import states
from support import wait_until

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.executor_classes import workload_kinds
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, Servers
from airflow_dispatch_provider.engines.protocols import HasEngine
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import celery_executor
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from ..engines.celery.fakes import FakeBroker, FakeWatcher

QUEUED, SUCCESS = TaskInstanceState.QUEUED, TaskInstanceState.SUCCESS


@pytest.fixture(autouse=True)
def servers_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", "cache+memory://")


@pytest.mark.parametrize(
    "name", [name for name in vars(AirflowCeleryExecutor) if hasattr(BaseExecutor, name) and name[0] != "_"]
)
def test_it_says_of_itself_as_much_as_airflows_class_does(name: str) -> None:
    """Airflow reads these before there is an instance; a method is one, and a fact is the same."""
    theirs, ours = getattr(AirflowCeleryExecutor, name), getattr(CeleryExecutor, name)
    assert callable(ours) if callable(theirs) else ours == theirs or name == "supports_callbacks"


def test_it_runs_what_airflows_class_runs() -> None:
    assert workload_kinds(CeleryExecutor) == workload_kinds(AirflowCeleryExecutor)


def test_it_offers_airflows_commands() -> None:
    """Up to Airflow 3.1 they come from the class."""
    ours, theirs = (cls.get_cli_commands() for cls in (CeleryExecutor, AirflowCeleryExecutor))
    assert [command.name for command in ours] == [command.name for command in theirs]


def test_making_one_reads_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow makes one for every command, and in every API server."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL_CMD", "/no/such/program")
    monkeypatch.delenv("AIRFLOW__CELERY__BROKER_URL")
    CeleryExecutor()


def test_its_app_is_made_of_its_own_configuration() -> None:
    executor: Any = CeleryExecutor()
    executor.conf = BackendConf("x", {"celery": {"broker_url": "amqp://there//"}}, executor.conf)
    assert executor.celery_app.conf.broker_url == "amqp://there//"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("BROKER_URL", "nothing-like-it://host"),
        ("RESULT_BACKEND", "nothing-like-it://host"),
        ("RESULT_BACKEND", "disabled://"),
    ],
)
def test_a_mistake_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, option: str, value: str) -> None:
    """One clear message, with the option, be it alone or a backend of a router."""
    monkeypatch.setenv(f"AIRFLOW__CELERY__{option}", value)
    executor = CeleryExecutor()
    for start in (executor.start, lambda: executor.make_engine("x", 1)):
        with pytest.raises(DispatchConfigError, match=rf"\[celery\] {option.lower()}"):
            start()
    executor.end()


@pytest.mark.parametrize("counts_workers", [True, False])
def test_its_engine_has_the_options_of_its_configuration(monkeypatch, counts_workers) -> None:
    """Workers are only counted where their number counts: slots that are a number cost no connection."""
    made: list[Any] = []

    def servers_of(make_app: Any, options: CeleryOptions, count_workers: bool) -> Servers:
        made.append((make_app(), options.max_unsent, count_workers))
        return Servers(FakeBroker(), "memory://", FakeWatcher())

    monkeypatch.setattr(celery_executor, "servers_of", servers_of)
    monkeypatch.setenv("AIRFLOW__DISPATCH__CELERY_MAX_UNSENT", "7")
    executor: Any = CeleryExecutor()
    assert isinstance(executor, HasEngine)
    engine = executor.make_engine("x", 3, counts_workers=counts_workers)
    engine.start("1")
    try:
        assert made == [(executor.celery_app, 7, counts_workers)]
        assert engine.room().slots == 3
        assert engine.room().kinds == workload_kinds(executor)
    finally:
        engine.stop(0)


def test_the_time_out_of_queued_tasks_is_the_schedulers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one for all teams and backends, whatever their own sections say."""
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "77")
    executor: Any = CeleryExecutor()
    conf = BackendConf("x", {"scheduler": {"task_queued_timeout": "5"}}, executor.conf)
    assert CeleryOptions.of(conf).queued_timeout == 77


class Trial(CeleryExecutor):
    """With servers that a test steers, and rows in memory."""

    def _make_clerk(self, limits: Any) -> InMemoryClerk:
        return InMemoryClerk()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers(FakeBroker(), "memory://", FakeWatcher())
    monkeypatch.setattr(celery_executor, "servers_of", lambda *_: servers)
    return servers


@pytest.fixture
def executor(servers: Servers) -> Iterator[Trial]:
    executor = Trial(parallelism=2)
    executor.job_id = 7
    executor.start()
    yield executor
    executor.end()


def test_from_queue_to_event(executor: Trial, servers: Any) -> None:
    """Airflow learns the Celery id when the broker has the message, and the end from the result backend."""
    task = make_task(queue="q")
    executor.queue_workload(task, None)
    key = airflow_api.workload_key(executor, task)

    def event() -> Any:
        executor.heartbeat()
        return executor.get_event_buffer().get(key)

    state, celery_id = wait_until(event)
    assert (state, servers.broker.arrived, servers.watcher.watched) == (QUEUED, [celery_id], [celery_id])
    servers.watcher.results.append(Result(celery_id, states.SUCCESS, None))
    assert wait_until(event)[0] == SUCCESS
    assert (executor.slots_occupied, executor.has_task(task.ti)) == (0, False)
