# SPDX-License-Identifier: Apache-2.0
"""Executors of others as engines: how they are made, and what they are asked."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge import airflow_api, executor_classes
from airflow_dispatch_provider.bridge.executor_classes import make_executor
from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.lifecycle.events import (
    Ended,
    Returned,
    Sent,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import InMemoryExecutor
from airflow_dispatch_provider.testing.workloads import make_task
from tests.unit.engines.foreign_executors import (
    Clock,
    Plain,
    Revoking,
    engine,
    job,
)

# Being made


class NoArguments(BaseExecutor):
    def __init__(self) -> None:
        super().__init__()

    def heartbeat(self) -> None: ...


class NoTeams(Plain):
    supports_multi_team = False


@pytest.mark.parametrize("cls", [NoArguments, Plain, BaseExecutor])
def test_made_as_airflow_makes_it(cls):
    """Whatever its constructor takes, it sees its own configuration and its slots."""
    conf = object()
    executor = make_executor(cls, conf, "x", "some.path.Executor", 7, None)
    assert (executor.conf, executor.parallelism) == (conf, 7)
    assert executor.name.alias == "x"


@pytest.mark.skipif(not hasattr(BaseExecutor, "supports_multi_team"), reason="teams came with Airflow 3.2")
def test_one_without_teams_is_not_made_for_a_team():
    """Airflow makes the same check on the class."""
    with pytest.raises(BackendUnavailable, match="does not support teams"):
        make_executor(NoTeams, object(), "x", "some.path.Executor", 7, "a_team")


class Adopting(Revoking):
    """Has all that it is asked about."""

    def try_adopt_task_instances(self, tis: Any) -> list[Any]:
        return []


def test_what_was_adopted_is_revoked_as_airflow_would():
    """By its task instance, as it was offered: there is no workload of it here."""
    x, executor = engine(Adopting)
    ti = make_task(task_id="t").ti
    ti.__dict__["queued_by_job_id"] = 5
    x.adopt([Found(1, "key", ti, True)])
    x.poll()
    given: list[Any] = []
    executor.revoke_task = lambda *, ti: given.append(ti)
    assert x.revoke(1) is None
    assert given == [ti]
    assert x.poll() == [Ended(1, Outcome.FAILED, None, "revoked")]


@pytest.mark.parametrize(
    ("fails", "happens"),
    [
        ("heartbeat", lambda x: x.poll()),
        ("get_event_buffer", lambda x: x.poll()),
        ("revoke_task", lambda x: x.revoke(1)),
        ("end", lambda x: x.stop(2000.0)),
        ("terminate", lambda x: x.stop(0.0)),
    ],
)
def test_it_is_said_in_which_method_it_failed(fails, happens, caplog):
    """With the error, once."""
    x, executor = engine(Revoking)
    x.submit([job(1)])
    x.poll()
    executor.has_events = True

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise OSError("is away")

    setattr(executor, fails, failing)
    airflow_api_events = airflow_api.workload_key(executor, make_task())
    executor.event_buffer[airflow_api_events] = ("queued", None)
    happens(x)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"Backend 'x' failed in {fails} and gets no new work until it works again. ")
    assert "OSError: is away" in line


@pytest.mark.parametrize(("deadline", "called"), [(0.0, "terminate"), (1000.0, "terminate"), (1000.1, "end")])
def test_without_any_time_it_is_terminated(deadline, called):
    """``end`` waits for as long as it likes."""
    x, executor = engine(Plain)
    calls: list[str] = []
    for method in ("end", "terminate"):
        setattr(executor, method, lambda method=method: calls.append(method))
    assert x.stop(deadline) == set()
    assert calls == [called]


def test_without_a_start_nothing_is_sent():
    """All that was given is returned, and there is nothing to stop."""
    x = ForeignEngine("x", lambda: 1 / 0, 4, clock=Clock())
    x.submit([job(1)])
    assert (x.stop(2000.0), x.poll()) == (set(), [Returned(1, "not started")])


@pytest.mark.parametrize(
    ("counts", "counted", "slots"), [(True, 7, 7), (True, 0, 0), (True, None, 4), (False, 7, 4)]
)
def test_its_slots_are_those_of_its_workers_where_they_count(counts, counted, slots):
    """As long as it knows of none, those that are configured; one that does not count is not asked."""
    executor = InMemoryExecutor(parallelism=4)
    executor.counted_slots = counted
    x = ForeignEngine("x", lambda: executor, 4, counts, clock=Clock())
    x.start("77")
    x.poll()
    assert (x.room().slots, executor.parallelism) == (slots, slots)
    assert ("worker_slots" in executor.calls) is counts


def test_it_shows_what_it_has():
    """How many are out, and how many of these it has not sent."""
    x, executor = engine()
    x.submit([job(1)])
    x.poll()
    x.submit([job(2)])
    assert repr(x) == f"ForeignEngine('x', {executor!r}, out 2, unsent 1)"


def test_before_its_start_it_has_no_room():
    """And says why."""
    x = ForeignEngine("x", lambda: 1 / 0, 4, clock=Clock())
    assert (x.room().slots, x.room().unavailable) == (0, "not started")
    x.start("77")
    assert x.room().slots == 0
    assert (x.room().unavailable or "").startswith("ZeroDivisionError")


def test_a_key_that_it_knows_again_is_not_missed():
    """Two looks in a row count, a second apart, and only of what it once had."""
    clock = Clock()
    x, executor = engine(clock=clock)
    one = job(1)
    x.submit([one])

    def look(is_there: bool) -> list[Any]:
        (executor.running.add if is_there else executor.running.discard)(one.key)
        events: list[Any] = []
        for _ in range(2):  # in every other one the turn begins anew
            clock.now += 1.0
            events += x.poll()
        return events

    assert look(True) == [Sent(1)]
    for _ in range(3):
        assert look(False) == []
        assert look(True) == []
    assert look(False) == []
    assert look(False) == [Ended(1, Outcome.FAILED, None, "the executor does not know it any more")]


def test_a_question_that_it_cannot_answer_costs_nothing():
    """Where its queues are no queues, its jobs count as unsent."""
    x, executor = engine()
    x.submit([job(1)])
    x.poll()
    executor.heartbeat = lambda: None
    x.submit([job(2)])

    class Odd(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            raise ValueError("odd")

    for name in [name for name, value in vars(executor).items() if isinstance(value, dict) and value]:
        if "queue" in name:
            setattr(executor, name, Odd(getattr(executor, name)))
    assert x.poll() == []
    assert x.room().unavailable is None


def test_executors_that_fail_at_a_time_are_not_tried_again_at_a_time():
    """Schedulers of one Airflow would do so in step."""
    due = set()
    for _ in range(20):
        clock = Clock()
        x, executor = engine(InMemoryExecutor, clock=clock)
        executor.failing["heartbeat"] = OSError("is away")
        x.poll()
        executor.failing.clear()
        while x.room().unavailable:
            clock.now += 0.05
            x.poll()
        due.add(round(clock.now - 1000.0, 2))
    assert len(due) > 1
    assert all(0.5 <= delay <= 1.05 for delay in due)


class CannotSay(Plain):
    @property
    def worker_slots(self) -> Any:
        raise OSError("no broker")


def test_one_whose_method_cannot_even_be_had_is_a_backend_in_trouble():
    """Nothing is raised; its slots are those that are configured."""
    x = ForeignEngine("x", lambda: CannotSay(parallelism=4), 4, counts_workers=True, clock=Clock())
    x.start("1")
    x.poll()
    assert (x.room().slots, x.room().unavailable) == (4, "OSError: no broker")


@pytest.mark.parametrize("number", [float("inf"), float("nan"), "four", object()])
def test_a_number_of_workers_that_is_none_is_its_own_trouble(number):
    """It still gets its heartbeat, and its events are taken."""
    clock = Clock()
    executor = Plain(parallelism=4)
    executor.worker_slots = lambda: number
    made = ForeignEngine("x", lambda: executor, 4, counts_workers=True, clock=clock)
    made.start("77")
    made.submit([job(1)])
    assert Sent(1) in [event for event in made.poll() if isinstance(event, Sent)]
    assert made.room().unavailable is not None


def test_one_that_cannot_say_what_it_runs_runs_tasks(monkeypatch):
    """Every executor does; what else it could run is not known."""
    monkeypatch.setattr(executor_classes, "workload_kinds", lambda executor: 1 / 0)
    made, _ = engine()
    assert made.room().kinds == {"ExecuteTask"}


def test_what_is_over_is_not_sent_from_the_base_class():
    """It lies there as long as an executor waits for its broker, say."""
    made, executor = engine()
    one = job(1)
    made.submit([one])
    assert made.revoke(1, over=True) is None
    made.poll()
    assert executor.sent == []
    assert len(made._out) == 0


def test_one_whose_start_failed_is_ended():
    """It may have started helpers by then, and the next try makes another one."""
    clock, ended = Clock(), []

    class Leaks(Plain):
        def start(self) -> None:
            raise OSError("no broker")

        def terminate(self) -> None:
            ended.append(self)

    made = ForeignEngine("x", lambda: Leaks(parallelism=4), 4, clock=clock)
    made.start("77")
    assert len(ended) == 1
    assert made.room().unavailable is not None
