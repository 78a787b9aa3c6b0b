# SPDX-License-Identifier: Apache-2.0
"""The engine: each dispatch is answered for itself, and nothing is raised."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.celery import _suspects
from airflow_dispatch_provider.engines.celery import engine as engine_module
from airflow_dispatch_provider.engines.celery._suspects import NOWHERE
from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, Servers
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    Broken,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import make_callback, make_task

from .fakes import DOWN, FakeBroker, FakeWatcher, outcome


class Watcher(FakeWatcher):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.running = False

    def start(self, wait: bool = True) -> None:
        if self.errors:
            raise self.errors.pop()
        self.running = True

    def stop(self, timeout: float) -> None:
        self.running = False


class Census:
    slots: int | None = None
    has_none = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Recording(FakeBroker):
    """Keeps what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []

    def send(self, batch: Any, receipt: str) -> Any:
        self.sent += batch
        return super().send(batch, receipt)


class Bench:
    def __init__(self, counted: bool = False, max_unsent: int = 100) -> None:
        self.broker, self.watcher, self.census = Recording(), Watcher(), Census()
        self.heard: list[Any] = []
        self.now = 0.0
        servers = Servers(self.broker, "redis://b/0", self.watcher, self.census if counted else None)
        self.engine = CeleryEngine("x", lambda: servers, 7, CeleryOptions("fallback", max_unsent=max_unsent))

    def start(self) -> Bench:
        self.engine.start("77")
        return self

    def submit(self, *jobs: Job) -> None:
        self.engine.submit(jobs)

    def poll(self) -> list[Any]:
        news = self.engine.poll()
        self.heard += news
        return news

    def hears(self, kind: type[Any], count: int = 1) -> list[Any]:
        """Waits until so many of this kind were said, in all."""

        def found() -> list[Any] | None:
            self.poll()
            events = [event for event in self.heard if isinstance(event, kind)]
            return events if len(events) >= count else None

        return wait_until(found)

    def send(self, *jobs: Job) -> list[str]:
        """Their Celery ids."""
        before = len(self.broker.sent)
        self.submit(*jobs)
        self.hears(Sent, before + len(jobs))
        return [outgoing.celery_id for outgoing in self.broker.sent[before:]]

    def result(self, celery_id: str, state: str, info: Any = None) -> list[Any]:
        self.watcher.results.append(Result(celery_id, state, info))
        return self.poll()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench().start()
    yield bench
    close(bench)


def close(bench: Bench) -> None:
    bench.broker.errors.clear()
    bench.broker.open_gates()
    bench.engine.stop(time.monotonic() + 60)
    for thread in bench.broker.threads:
        thread.join(60)


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*args: Any, **options: Any) -> Bench:
        made.append(Bench(*args, **options))
        return made[-1]

    yield make
    for bench in made:
        close(bench)


def job(number: int, workload: Any = None, queue: str | None = None) -> Job:
    return Job(number, f"key {number}", workload or make_task(), queue)


def assigned(celery_id: str) -> Any:
    """A task with the id that Airflow 3.2 and later give it."""
    task = make_task()
    if AIRFLOW_V_3_2_PLUS:
        return task.model_copy(update={"ti": task.ti.model_copy(update={"external_executor_id": celery_id})})
    return SimpleNamespace(
        ti=SimpleNamespace(queue="default", external_executor_id=celery_id), model_dump_json=lambda: "{}"
    )


def found(number: int, celery_id: str | None, runs: bool = True) -> Found:
    return Found(number, f"key {number}", SimpleNamespace(external_executor_id=celery_id), runs)


# From submission to end


def test_submitted_sent_ended(bench):
    (celery_id,) = bench.send(job(1))
    assert bench.heard == [Sent(1, celery_id)]
    assert bench.watcher.watched == [celery_id]
    assert bench.result(celery_id, "STARTED") == []
    assert bench.result(celery_id, "SUCCESS") == [Ended(1, Outcome.SUCCESS, True)]
    assert bench.result(celery_id, "SUCCESS") == []


def test_a_failure_says_why_and_shows_no_secret(bench):
    (celery_id,) = bench.send(job(1))
    error = OSError("cannot reach http://me:a-secret@h/")
    (ended,) = bench.result(celery_id, "FAILURE", error)
    assert ended[:3] == (1, Outcome.FAILED, None)
    assert "OSError: cannot reach" in ended.reason
    assert "a-secret" not in ended.reason


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
@pytest.mark.parametrize(("named", "queue"), [("theirs", "theirs"), (None, "fallback")])
def test_callbacks_have_no_id_in_the_database_and_begin_when_a_worker_does(bench, named, queue):
    (celery_id,) = bench.send(job(1, make_callback(queue=named) if named else make_callback()))
    assert bench.heard == [Sent(1)]
    assert bench.broker.sent[0].queue == queue
    assert bench.result(celery_id, "STARTED") == [Began(1)]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_callback_that_the_broker_has_lost_had_not_begun(bench):
    """No row tells. Of a task, the row does."""
    bench.send(job(1, make_callback()), job(2))
    bench.broker.batches.clear()
    bench.broker.breaks.add("revoke")
    with bench.engine._parts.driver.outbox(wake=True) as outbox:
        outbox.tell("nobody")
    ends = {end.dispatch: (end.began, end.mishap) for end in bench.hears(Ended, 2)}
    assert ends == {1: (False, True), 2: (None, True)}


def test_the_queue_of_a_target_may_be_given_apart(bench):
    """The workload then keeps the task's own, by which Airflow chooses what runs it."""
    bench.send(job(1, make_task(queue="java"), queue="workers"), job(2, make_task(queue="plain")))
    one, two = bench.broker.sent
    assert (one.queue, one.workload.ti.queue) == ("workers", "java")
    assert two.queue == "plain"


def test_two_dispatches_of_one_task_are_told_apart(bench):
    """A task that deferred comes back, or one is launched again: late news of the first says nothing of the second."""
    (first,) = bench.send(job(1, assigned("a")))
    bench.engine.revoke(1, over=True)
    (second,) = bench.send(job(2, assigned("a")))
    assert first == "a"
    assert second != "a"
    assert bench.result("a", "FAILURE") == []
    assert bench.result(second, "SUCCESS") == [Ended(2, Outcome.SUCCESS, True)]


def test_a_message_that_is_rejected_ends_for_good(bench):
    bench.broker.outcomes = [outcome(rejected=slice(1))]
    bench.submit(job(1), job(2))
    assert bench.hears(Rejected) == [Rejected(1, "no good")]
    assert bench.hears(Sent)[0].dispatch == 2
    assert bench.result(bench.broker.sent[0].celery_id, "SUCCESS") == []


# Room


def test_room_in_fair_weather(bench):
    wait_until(lambda: bench.broker.count("probe"))
    room = bench.engine.room()
    assert (room.slots, room.takes, room.closed, room.unavailable) == (7, 100, {}, None)


def test_what_is_on_its_way_is_bounded(make_bench):
    bench = make_bench(max_unsent=3)
    bench.broker.close_gate("send")
    bench.start()
    bench.submit(job(1), job(2))
    assert bench.engine.room().takes == 1


def test_a_broker_in_trouble_takes_nothing_and_gives_back_what_waits(bench):
    bench.send(job(1))
    bench.broker.errors["connect"] = DOWN
    bench.broker.breaks.add("revoke")
    bench.engine.revoke(1)
    bench.hears(Broken)
    assert "is down" in str(bench.engine.room().unavailable)
    bench.submit(job(2))
    assert bench.hears(Returned)[0].dispatch == 2
    bench.broker.errors.clear()
    bench.broker.open_gates()
    bench.hears(Recovered)
    assert bench.engine.room().unavailable is None


def test_slots_of_the_workers(make_bench):
    """As configured, as long as no worker is known."""
    bench = make_bench(counted=True).start()
    assert bench.engine.room().slots == 7
    bench.census.slots = 12
    assert bench.engine.room().slots == 12
    assert bench.census.running


def test_what_to_look_at_where_nothing_begins(make_bench):
    """That no worker answers, where they are counted; whether one listens, else."""
    assert make_bench().start().engine.room().hint == "Does a Celery worker listen to the queue?"
    bench = make_bench(counted=True).start()
    assert bench.engine.room().hint == "Does a Celery worker listen to the queue?"
    bench.census.has_none = True
    assert bench.engine.room().hint == "No Celery worker answers."


def test_a_start_that_fails_is_tried_again(make_bench):
    """And raises nothing: until then it takes no work."""
    bench = make_bench()
    bench.watcher.errors = [ValueError("no such backend")]
    bench.start()
    room = bench.engine.room()
    assert (room.slots, room.unavailable) == (0, "it cannot be started: ValueError: no such backend")
    bench.submit(job(1))
    assert bench.poll() == [Returned(1, "it cannot be started: ValueError: no such backend")]
    wait_until(lambda: bench.poll() or bench.engine.room().unavailable is None)
    bench.send(job(2))


# Taking back


def test_what_is_certainly_not_sent_can_be_withdrawn(make_bench):
    bench = make_bench()
    bench.broker.close_gate("send")
    bench.start()
    bench.submit(job(1))
    wait_until(lambda: bench.broker.count("send"))
    bench.submit(job(2))
    assert bench.engine.withdraw([1, 2, 99]) == {2}
    bench.broker.open_gates()
    assert bench.hears(Sent)[0].dispatch == 1


def test_revoking_what_was_not_sent_returns_it(make_bench):
    bench = make_bench()
    bench.broker.close_gate("connect")
    bench.start()
    bench.submit(job(1))
    bench.engine.revoke(1)
    assert bench.poll() == [Returned(1)]


def test_revoking_what_was_sent_ends_it_at_once_and_tells_the_workers(bench):
    (celery_id,) = bench.send(job(1))
    bench.engine.revoke(1)
    assert bench.poll() == [Ended(1, Outcome.FAILED, None, "revoked")]
    assert bench.watcher.forgotten == [celery_id]
    wait_until(lambda: bench.broker.revoked == [celery_id])
    assert bench.result(celery_id, "FAILURE") == []


def test_revoking_what_nobody_knows_is_no_error(bench):
    bench.engine.revoke(99)
    assert bench.poll() == []


@pytest.mark.parametrize("taken", [True, False])
def test_what_is_over_is_forgotten_without_a_word(bench, taken):
    """A worker that has not begun with it is told not to."""
    (celery_id,) = bench.send(job(1))
    if taken:
        bench.result(celery_id, "STARTED")
    bench.engine.revoke(1, over=True)
    bench.send(job(2))
    bench.engine.revoke(2)
    wait_until(lambda: bench.broker.revoked)
    assert (celery_id in bench.broker.revoked) is not taken
    assert repr(bench.engine).startswith("CeleryEngine('x', out 0, Outbox(")
    assert not [event for event in bench.heard if isinstance(event, Ended) and event.dispatch == 1]


def test_what_is_forgotten_is_not_waited_for_and_may_run_on(bench):
    """Its result may be lost, or another scheduler may wait for that very message: no worker is told to drop it."""
    (celery_id,) = bench.send(job(1))
    bench.engine.forget(1)
    assert bench.watcher.forgotten == [celery_id]
    assert repr(bench.engine).startswith("CeleryEngine('x', out 0, Outbox(")
    assert bench.result(celery_id, "SUCCESS") == []
    bench.send(job(2))
    bench.engine.revoke(2)
    wait_until(lambda: bench.broker.revoked)
    assert celery_id not in bench.broker.revoked


def test_what_is_forgotten_before_it_was_sent_is_not_sent(make_bench):
    """Nor is the broker asked for it."""
    bench = make_bench()
    bench.broker.close_gate("connect")
    bench.start()
    bench.submit(job(1), job(2))
    bench.engine.forget(1)
    bench.engine.forget(9)
    bench.broker.open_gates()
    bench.hears(Sent, 1)
    assert [event.dispatch for event in bench.heard] == [2]
    assert len(bench.broker.sent) == 1


# Adoption


def test_what_a_worker_has_begun_with_is_adopted(bench):
    bench.engine.adopt([found(1, "a"), found(2, "b", runs=False), found(3, "c")])
    assert bench.poll() == []
    assert bench.watcher.looked == ["a", "b", "c"]
    assert bench.result("a", "STARTED") == [Adopted(1)]
    assert bench.result("b", "PENDING") == [Unknown(2)]
    assert bench.result("c", "SUCCESS") == [Unknown(3)]
    assert bench.result("a", "SUCCESS") == [Ended(1, Outcome.SUCCESS, True)]


@pytest.mark.parametrize(
    ("runs", "state", "dropped"),
    [(False, "PENDING", ["a"]), (False, "STARTED", []), (True, "PENDING", []), (True, "SUCCESS", [])],
)
def test_workers_are_told_to_drop_the_message_of_what_will_be_sent_anew(bench, runs, state, dropped):
    """And that of nothing that has begun, or may have: what is told later is told after it."""
    bench.engine.adopt([found(1, "a", runs)])
    bench.result("a", state)
    (other,) = bench.send(job(2))
    bench.engine.revoke(2)
    wait_until(lambda: other in bench.broker.revoked)
    assert bench.broker.revoked == [*dropped, other]


def test_what_has_no_id_is_unknown_at_once(bench):
    bench.engine.adopt([found(1, None)])
    assert bench.poll() == [Unknown(1)]


def test_asked_twice_for_one_dispatch_it_looks_once_and_answers_each_time(bench):
    """The result backend was away in between, or nobody waited for the first answer any more."""
    bench.engine.adopt([found(1, "a")])
    bench.engine.adopt([found(1, "a")])
    assert bench.watcher.looked == ["a"]
    assert bench.result("a", "STARTED") == [Adopted(1)]
    bench.engine.adopt([found(1, "a")])
    assert (bench.watcher.looked, bench.poll()) == (["a"], [Adopted(1)])


# The end


def test_stop_gives_back_what_was_not_sent(make_bench):
    bench = make_bench()
    bench.broker.close_gate("connect")
    bench.start()
    bench.submit(job(1))
    assert bench.engine.stop(time.monotonic()) == {1}
    assert not bench.watcher.running


def test_stop_waits_for_no_broker_for_ever(make_bench, monkeypatch):
    """The scheduler gives it as long as it likes."""
    monkeypatch.setattr(engine_module, "FLUSH", 0.01)
    bench = make_bench()
    bench.broker.close_gate("connect")
    bench.start()
    bench.submit(job(1))
    assert bench.engine.stop(math.inf) == {1}
    bench.submit(job(2))
    assert [type(event) for event in bench.poll()] == [Returned]


def test_one_that_never_started_has_nothing_to_give_back(make_bench):
    bench = make_bench()
    bench.watcher.errors = [ValueError("no")]
    bench.start()
    assert bench.engine.stop(time.monotonic()) == set()
    assert bench.engine.withdraw([1]) == set()


def test_what_never_arrived_ends_where_the_broker_cannot_tell(bench, monkeypatch):
    """Twice it is in no queue, and no worker has it; so the database is asked."""
    monkeypatch.setattr(_suspects, "LOOK_AFTER", 0.0)
    monkeypatch.setattr(_suspects, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(bench.broker, "missing", lambda receipts: None)
    bench.broker.outcomes.append(outcome(unknown=slice(1)))
    bench.submit(Job(1, 1, make_task()))
    (ended,) = bench.hears(Ended)
    assert ended == Ended(1, Outcome.FAILED, None, NOWHERE, mishap=True)
