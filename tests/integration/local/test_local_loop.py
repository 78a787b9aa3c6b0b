# SPDX-License-Identifier: Apache-2.0
"""The dispatch loop over a local engine with real processes: no task fails that had not begun."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from unit.lifecycle.builders import route, settings

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Recovered
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import State
from devkit.servers.execution_api import ExecutionApi
from tests.integration.local import local_runners
from tests.integration.local.conftest import pid_of
from tests.integration.local.test_local_engine import Trial, make_engine
from tests.support import make_task, wait_until
from tests.unit.dispatch.loop_house import FINISHED, Clerk, Surface

__all__ = ["make_engine"]


class House:
    """A loop over one local engine, and Airflow's side of it."""

    def __init__(self, engine: Trial) -> None:
        self.engine = engine
        self.machine = Machine(settings(route("*", "a")))
        self.clerk = Clerk()
        self.loop = Loop(self.machine, {"a": engine}, self.clerk, Surface())
        self.told: dict[Any, str] = {}

    def queue(self, *names: str) -> list[Any]:
        tasks = [make_task(name) for name in names]
        for task in tasks:
            self.loop.queue(task.ti.id, task, task_ref(task), priority_of(task), time.monotonic())
        return [task.ti.id for task in tasks]

    def succeed(self, *keys: Any) -> None:
        """Their rows say so, as soon as their processes do."""
        self.clerk.rows |= dict.fromkeys(keys, FINISHED)

    def beat(self) -> House:
        buffer: dict[Any, Any] = {}
        self.loop.heartbeat(time.monotonic(), buffer)
        assert not buffer.keys() & self.told.keys()
        self.told.update({key: str(value[0]) for key, value in buffer.items()})
        return self

    def beat_until(self, condition: Callable[[], Any]) -> None:
        wait_until(lambda: (self.beat(), condition())[1], 120)


@pytest.fixture
def house(make_engine: Callable[..., Trial]) -> House:
    return House(make_engine().wait_ready())


def test_a_task_runs(house: House) -> None:
    (key,) = house.queue("begin")
    house.beat_until(lambda: house.machine.state(key) is State.RUNNING)
    house.succeed(key)
    local_runners.say("go", "")
    house.beat_until(lambda: house.told)
    assert house.told == {key: "success"}
    assert house.machine.slots_used["a"] == 0


def test_one_that_is_killed_before_it_began_runs_all_the_same(house: House) -> None:
    """Its second process is let go at once."""
    (key,) = house.queue("hold")
    house.beat()
    first = pid_of("pid.hold")
    os.kill(first, signal.SIGKILL)
    house.beat_until(lambda: pid_of("pid.hold") != first)
    assert (house.told, key in house.machine) == ({}, True)


def test_one_that_is_killed_after_it_began_has_failed(house: House) -> None:
    """Airflow then looks for what is left of its tries."""
    (key,) = house.queue("begin")
    house.beat_until(lambda: house.machine.state(key) is State.RUNNING)
    os.kill(pid_of("pid.begin"), signal.SIGKILL)
    house.beat_until(lambda: house.told)
    assert house.told == {key: "failed"}


def test_what_a_dead_template_had_not_forked_runs_with_the_next_one(house: House) -> None:
    os.kill(house.engine.template, signal.SIGSTOP)
    keys = house.queue("begin_and_end-1", "begin_and_end-2")
    house.beat()
    os.kill(house.engine.template, signal.SIGKILL)
    house.succeed(*keys)
    house.beat_until(lambda: len(house.told) == 2)
    assert house.told == dict.fromkeys(keys, "success")


def test_an_execution_api_that_is_away_fails_nothing(make_engine, monkeypatch) -> None:
    """Nothing more is launched until somebody has seen that it answers; then all of it runs."""
    api = ExecutionApi()
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", api.url)
    monkeypatch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")
    house = House(make_engine(runner=airflow_api.run_workload).wait_ready())
    api.serve()
    api.status = 503
    keys = house.queue("one", "two", "three")
    house.beat_until(lambda: all(house.machine.waits(key) is Waits.API for key in keys))
    api.asked.clear()
    for _ in range(5):
        house.beat()
    assert (house.told, api.asked.is_set(), len(house.engine.pids())) == ({}, False, 0)
    api.status = 200
    house.succeed(*keys)
    house.loop.tell(time.monotonic(), Recovered(EXECUTION_API))
    house.beat_until(lambda: len(house.told) == 3)
    assert house.told == dict.fromkeys(keys, "success")
    api.close()
