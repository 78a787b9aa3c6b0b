# SPDX-License-Identifier: Apache-2.0
"""The engine under the dispatch loop, beside a second backend that always has room: what a Dag's author would see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu import Connection
from support import wait_until
from unit.dispatch.loop_house import Clerk, Surface
from unit.lifecycle.builders import route, settings

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, servers_of
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle.events import BackendRules, Offered
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Row, RowState, State
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task
from devkit.servers.valkey import ValkeyServer

from .publishing import make_app, new_queue
from .test_engine_valkey import app_of, ids_in, store

needs_redis = pytest.mark.integration("redis")
needs_rabbitmq = pytest.mark.integration("rabbitmq")


class House:
    """Backend ``celery``, and an in-memory one ``b``."""

    def __init__(self, app: Any, *routes: Any) -> None:
        options = CeleryOptions(timeout=1.0)
        self.celery = CeleryEngine("celery", lambda: servers_of(lambda: app, options), 1000, options)
        self.other = InMemoryExecutor(parallelism=1000)
        self.clerk, self.buffer = Clerk(), {}
        self.told: dict[Any, list[str]] = {}
        rules = {"celery": BackendRules(by_queue=True, max_delay=2.0)}
        self.loop = Loop(
            Machine(settings(*routes, rules=rules, look_every=0.2, look_again=0.1)),
            {"celery": self.celery, "b": ForeignEngine("b", lambda: self.other, 1000)},
            self.clerk,
            Surface(),
        )
        self.loop.start("1", time.monotonic())

    def queue(self, count: int, queue: str) -> list[Any]:
        """Their keys."""
        tasks = [make_task(queue=queue) for _ in range(count)]
        keys = [airflow_api.workload_key(self.other, task) for task in tasks]
        for key, task in zip(keys, tasks, strict=True):
            self.loop.queue(key, task, task_ref(task), priority_of(task), time.monotonic())
        return keys

    def beat(self) -> House:
        self.loop.heartbeat(time.monotonic(), self.buffer)
        for key, value in self.buffer.items():
            self.told.setdefault(key, []).append(str(value[0]))
        self.buffer.clear()
        return self

    def until(self, keys: list[Any], state: State) -> None:
        wait_until(lambda: self.beat() and all(self.state(key) is state for key in keys))

    def state(self, key: Any) -> State:
        return self.loop.machine.state(key)

    def at_other(self, queue: str) -> int:
        return sum(task.ti.queue == queue for task in self.other.given)

    @property
    def failed(self) -> list[Any]:
        return [key for key, values in self.told.items() if "failed" in values]


@pytest.fixture
def house() -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(*args: Any) -> House:
        made.append(House(*args))
        return made[-1]

    yield make
    for each in made:
        each.celery.stop(time.monotonic() + 1)


@needs_rabbitmq
def test_a_full_queue_overflows_and_the_others_go_on(house, rabbitmq):
    full, other, alone = new_queue(), new_queue(), new_queue()
    with Connection(rabbitmq.url()) as connection:
        channel = connection.channel()
        for name in (full, alone):
            arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        routes = [route(full, "celery", "b"), route(other, "celery", "b"), route(alone, "celery")]
        own = house(make_app(rabbitmq.url()), *routes)
        overflowing, waiting = own.queue(10, full), own.queue(3, alone)
        own.until(overflowing, State.SENT)
        assert own.at_other(full) == 9
        own.until(own.queue(20, other), State.SENT)
        assert own.at_other(other) == 0
        wait_until(lambda: own.beat() and [own.state(key) for key in waiting].count(State.SENT) == 1)
        while any(own.state(key) is not State.SENT for key in waiting):
            own.beat()
            channel.basic_get(alone, no_ack=True)
        assert own.failed == []
        take = partial(channel.basic_get, other, no_ack=True)
        assert len(list(iter(take, None))) == 20
        for name in (full, other, alone):
            channel.queue_delete(name)


@needs_redis
def test_a_broker_that_is_away_sends_all_to_the_next_target_and_is_used_again(house, own_valkey):
    queue = new_queue()
    own = house(app_of(own_valkey.url(), own_valkey.url(1)), route("*", "celery", "b"))
    before = own.queue(5, queue)
    own.until(before, State.SENT)
    own_valkey.kill()
    during = own.queue(20, queue)
    own.until(during, State.SENT)
    assert own.at_other(queue) == 20
    own_valkey.restart()
    wait_until(lambda: own.beat() and own.celery.room().unavailable is None)
    wait_until(lambda: own.beat() and str(own.loop.machine.circuit("celery")) == "closed")
    own.until(own.queue(5, queue), State.SENT)
    assert own.at_other(queue) == 20
    assert len(set(ids_in(own_valkey, queue))) == 10
    assert own.failed == []


@needs_redis
def test_what_an_empty_broker_has_lost_is_launched_again(house, own_valkey):
    """The database says that it had not begun: no try is used, and each is there once."""
    queue = new_queue()
    own = house(app_of(own_valkey.url(), own_valkey.url(1)), route("*", "celery"))
    keys = own.queue(10, queue)
    own.until(keys, State.SENT)
    lost = ids_in(own_valkey, queue)
    own_valkey.restart(empty=True)
    wait_until(lambda: own.beat() and len(ids_in(own_valkey, queue)) == 10)
    own.until(keys, State.SENT)
    found = ids_in(own_valkey, queue)
    assert len(set(found)) == 10
    assert not set(found) & set(lost)
    assert own.failed == []


@needs_redis
def test_the_tasks_of_a_dead_scheduler(house, own_valkey: ValkeyServer):
    """Running ones are adopted; one that waits for a worker cannot be found, and is set back: the same try. One that
    runs elsewhere is left alone."""
    store(own_valkey, "begun", "STARTED")
    own = house(app_of(own_valkey.url(), own_valkey.url(1)), route("*", "celery"))
    wait_until(lambda: own.beat() and own.celery.room().unavailable is None)
    for key, runs in (("begun", True), ("waiting", False), ("elsewhere", True)):
        own.clerk.rows[key] = Row(RowState.RUNNING if runs else RowState.QUEUED)
        ti = SimpleNamespace(id=key, external_executor_id=key)
        ref = task_ref(make_task())
        own.loop.offer(Offered(key, ref, runs, evidence="celery", subject=ti), time.monotonic())
    own.until(["begun"], State.RUNNING)
    wait_until(lambda: own.beat() and own.clerk.returned)
    own.until(["waiting"], State.ENDED)
    own.until(["elsewhere"], State.UNCLEAR)
    assert own.clerk.returned == ["waiting"]
    assert own.loop.machine.slots_used["celery"] == 1
    own.clerk.rows["begun"] = Row(RowState.OVER)
    store(own_valkey, "begun", "SUCCESS")
    own.until(["begun"], State.ENDED)
    assert own.told == {}
    assert own.loop.machine.slots_used["celery"] == 0


@needs_redis
def test_a_lost_result_keeps_no_slot(house, own_valkey):
    """The row says that it is over, and nothing else does."""
    own = house(app_of(own_valkey.url(), own_valkey.url(1)), route("*", "celery"))
    (key,) = own.queue(1, new_queue())
    own.until([key], State.SENT)
    own.clerk.rows[key] = Row(RowState.OVER)
    own.until([key], State.ENDED)
    assert own.loop.machine.slots_used["celery"] == 0
    assert len(own.celery._flights) == 0
    with redis.Redis.from_url(own_valkey.url()) as client:
        assert client.ping()
