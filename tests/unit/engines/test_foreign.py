# SPDX-License-Identifier: Apache-2.0
"""Executors of others as engines: whatever they do, each dispatch has its own end, and nothing is raised."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle.events import (
    Began,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.testing import InMemoryExecutor
from airflow_dispatch_provider.testing.workloads import make_callback, make_task
from tests.unit.engines.foreign_executors import (
    FAILED,
    SUCCESS,
    Clock,
    Loses,
    Picky,
    Plain,
    Poisoned,
    engine,
    finish,
    job,
    typed,
)
from tests.unit.lifecycle.builders import machine, queued, tick

# From submission to end


def test_submitted_sent_ended():
    """Sent when it has left the base class's queue, ended with the executor's own event value; it cannot know whether
    that was the task's own end."""
    x, executor = engine()
    one = job(1)
    x.submit([one])
    assert typed(x.poll()) == typed([Sent(1)])
    finish(executor, one.workload, info="well done")
    assert typed(x.poll()) == typed([Ended(1, Outcome.SUCCESS, None, "well done", (SUCCESS, "well done"))])
    assert x.poll() == []


def test_running_event_and_external_id():
    """An executor may say before the end that it runs, or under which id it is known outside. Whether the task began,
    the database knows: a process that the execution API has refused ran, too."""
    x, executor = engine()
    one, two = job(1), job(2)
    x.submit([one, two])
    x.poll()
    executor.event_buffer[airflow_api.workload_key(executor, one.workload)] = TaskInstanceState.RUNNING, None
    executor.event_buffer[airflow_api.workload_key(executor, two.workload)] = (
        TaskInstanceState.QUEUED,
        "arn:2",
    )
    assert typed(x.poll()) == typed([Sent(2, "arn:2")])


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_callback_that_runs_has_begun():
    """It has no row: nobody but its executor can know."""
    x, executor = engine(InMemoryExecutor)
    one = job(1, make_callback())
    x.submit([one])
    x.poll()
    executor.event_buffer[one.key] = airflow_api.event_state("ExecuteCallback", "running"), None
    assert typed(x.poll()) == typed([Began(1, None)])
    finish(executor, one.workload)
    [end] = x.poll()
    assert (end.how, end.began) == (Outcome.SUCCESS, True)


class Odd:
    """Neither a text nor a truth value."""

    def __str__(self) -> str:
        raise ValueError("odd")

    __bool__ = __str__  # type: ignore[assignment]


def is_end(value: Any) -> bool:
    return isinstance(value, tuple) and value[:1] in ((SUCCESS,), (FAILED,))


@pytest.mark.parametrize(
    "value",
    [None, 7, (), ("success",), "deferred", ([], {}), ("up_for_retry", None), (Odd(), None), (FAILED, Odd())],
)
def test_an_odd_value_of_an_event_costs_no_other(value):
    """Each event by itself. Only success and failed are ends; whatever else it says has no meaning."""
    x, executor = engine()
    odd, good = job(1), job(2)
    x.submit([odd, good])
    x.poll()
    executor.event_buffer[odd.key] = value
    finish(executor, good.workload)
    ends = [event for event in x.poll() if isinstance(event, Ended)]
    assert ends[-1] == Ended(2, Outcome.SUCCESS, None, "", (SUCCESS, None))
    assert [end.value for end in ends[:-1]] == ([None] if is_end(value) else [])
    assert x.room().unavailable is None


@pytest.mark.parametrize("answer", [None, 7, [1]])
def test_events_that_are_no_mapping_are_its_own_trouble(answer):
    """It is left alone for a while; nothing is raised."""
    x, executor = engine()
    executor.get_event_buffer, executor.event_buffer["x"] = lambda: answer, (SUCCESS, None)
    assert x.poll() == []
    assert x.room().unavailable is not None


def test_values_of_events_are_passed_on_as_they_are():
    """Three parts today, whatever tomorrow."""
    x, executor = engine()
    one = job(1)
    x.submit([one])
    x.poll()
    value = (FAILED, "oom", {"exit_code": 137})
    executor.event_buffer[airflow_api.workload_key(executor, one.workload)] = value
    assert typed(x.poll()) == typed([Ended(1, Outcome.FAILED, None, "oom", value)])


def test_one_that_it_does_not_take_keeps_none_from_it(caplog):
    """The other jobs of the batch are sent; its trouble is its own as long as the executor works."""
    x, _ = engine(Picky)
    x.submit([job(1), job(2, make_task("poison")), job(3)])
    assert typed(x.poll()) == typed([Rejected(2, "ValueError: not this one"), Sent(1), Sent(3)])
    assert x.room().unavailable is None


class Unreadable(Exception):
    """Its text cannot be read."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]


def test_an_error_whose_text_cannot_be_read_is_one_jobs_own_trouble():
    class Refuses(Plain):
        def queue_workload(self, workload: Any, session: Any) -> None:
            if workload.ti.queue == "poison":
                raise Unreadable
            super().queue_workload(workload, session)

    x, _ = engine(Refuses)
    x.submit([job(1), job(2, make_task("poison")), job(3)])
    assert [type(event) for event in x.poll() if event != Recovered("x")] == [Rejected, Sent, Sent]


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError()])
def test_whatever_its_attributes_raise_is_no_reason_to_end(error):
    """Only a signal ends the process."""

    class Raises(Plain):
        @property
        def slots_occupied(self) -> int:
            raise error

        def terminate(self) -> None:
            raise error

        def start(self) -> None:
            raise ConnectionError("away")

    x, _ = engine(Raises)
    assert x.room().unavailable
    Raises.start = lambda self: None  # type: ignore[method-assign]
    x.poll()


def test_one_job_over_which_its_heartbeat_fails_is_to_blame_itself():
    """A heartbeat without it works: it is rejected with the reason, and the executor is not in trouble."""
    x, _ = engine(Poisoned)
    x.submit([job(1, make_task("poison"))])
    assert typed(x.poll()) == typed([Rejected(1, "ValueError: not this one")])
    assert x.room().unavailable is None


class Forgetful(Plain):
    """Raises over the first of those that it is to send, which it has taken out of its queue by then."""

    def _process_workloads(self, workload_items: Any) -> None:
        airflow_api.forget_queued(self, workload_items[0])
        raise ValueError("not this one")


def test_one_that_waited_behind_the_culprit_is_not_to_blame():
    """It alone is still in the queue, and would be taken for the one that could not be sent."""
    x, _ = engine(Forgetful)
    x.submit([job(1), job(2)])
    assert typed(x.poll()[:1]) == typed([Returned(2, "ValueError: not this one")])


class ServerAway(Plain):
    """Raises over whatever it is to send, and over nothing else."""

    def _process_workloads(self, workload_items: Any) -> None:
        if workload_items and "sending" in self.failing:
            raise ConnectionError("its server is away")
        super()._process_workloads(workload_items)


def test_different_jobs_over_which_its_heartbeat_fails_are_its_own_trouble():
    """Heartbeats with nothing to send prove nothing; one job that gets through does."""
    executor = ServerAway(parallelism=4)
    x = ForeignEngine("a", lambda: executor, 4, clock=Clock())
    x.start("77")
    executor.failing = ("sending",)
    m, jobs = machine(), {1: make_task(), 2: make_task()}
    m.handle(0.0, *(queued(key) for key in jobs), tick(a=1))
    for number, key in ((1, 1), (2, 2)):
        x.submit([job(number, jobs[key])])
        news = [event for event in x.poll() if isinstance(event, Rejected | Recovered)]
        m.handle(float(number), *news, tick(a=1))
    assert m.circuit("a") is CircuitState.OPEN
    executor.failing = ()
    x.submit([job(3, jobs[1])])
    assert x.poll() == [Sent(3)]


def test_of_several_over_which_its_heartbeat_fails_each_is_tried_alone():
    """All come back unsent; then it takes one at a time, until one has got through."""
    x, _ = engine(Poisoned)
    poison, good, another = make_task("poison"), make_task(), make_task()
    x.submit([job(1, poison), job(2, good), job(3, another)])
    reason = "ValueError: not this one"
    assert {event for event in x.poll() if isinstance(event, Returned)} == {
        Returned(number, reason) for number in (1, 2, 3)
    }
    assert (x.room().takes, x.room().unavailable) == (1, None)
    x.submit([job(4, poison)])
    assert x.room().takes == 0
    assert Rejected(4, reason) in x.poll()
    x.submit([job(5, good)])
    assert Sent(5) in x.poll()
    assert x.room().takes > 1
    x.submit([job(6, another)])
    assert x.poll() == [Sent(6)]


def test_a_heartbeat_that_fails_without_what_it_was_given_is_the_executors_trouble():
    """Its job comes back as it was, and is not to blame."""
    x, executor = engine()
    executor.failing = ("heartbeat",)
    x.submit([job(1)])
    assert typed(x.poll()) == typed([Returned(1, "OSError: no heartbeat")])
    assert x.room().unavailable == "OSError: no heartbeat"


def test_what_a_heartbeat_that_failed_has_lost_is_found():
    """It has left the queue and does not run: the database is asked whether it began."""
    clock = Clock()
    x, _ = engine(Loses, clock=clock)
    x.submit([job(1, make_task("poison"))])
    events = []
    for _ in range(9):
        clock.now += 1
        events += x.poll()
    (end,) = [event for event in events if isinstance(event, Ended)]
    assert (end.dispatch, end.how, end.began) == (1, Outcome.FAILED, None)
    assert x.room().unavailable is None


class NeverSyncs(Plain):
    """Takes what it is given, and raises in the same heartbeat."""

    def sync(self) -> None:
        self.fail_in("sync")


@pytest.mark.parametrize("heals", [False, True])
def test_what_one_took_that_fails_again_and_again_is_let_go(heals):
    """The database is asked whether it began: else it would be kept for ever. One heartbeat that succeeds is enough."""
    clock = Clock()
    x, executor = engine(NeverSyncs, clock=clock)
    executor.failing = ("sync",)
    x.submit([job(1)])
    events = []
    for number in range(8):
        executor.failing = () if heals and number == 3 else ("sync",)
        events += x.poll()
        assert not [event for event in events if isinstance(event, Ended)] or number >= 4
        clock.now += 60
    ends = [event for event in events if isinstance(event, Ended)]
    assert ends == ([] if heals else [Ended(1, Outcome.FAILED, None, "OSError: no sync")])
    assert len(x._out) == heals


class HalfTaken(Plain):
    """Raises after it has put the job into the base class's queue."""

    def queue_workload(self, workload: Any, session: Any) -> None:
        super().queue_workload(workload, session)
        raise ValueError("not this one")


def test_what_it_refused_it_does_not_send():
    """Refused, it is given to another target, and must not stay behind in the queue."""
    x, executor = engine(HalfTaken)
    x.submit([job(1)])
    assert Rejected(1, "ValueError: not this one") in x.poll()
    assert executor.sent == []


class Changing(Plain):
    """Takes what it is given for its own."""

    def queue_workload(self, workload: Any, session: Any) -> None:
        workload.ti.queue = "theirs"
        super().queue_workload(workload, session)


def test_it_may_change_what_it_is_given():
    """Taken back from it, a workload goes to another target as it was."""
    x, executor = engine(Changing)
    task = make_task("ours")
    x.submit([job(1, task)])
    x.poll()
    assert [given.ti.queue for given in executor.sent] == ["theirs"]
    assert task.ti.queue == "ours"


def test_two_dispatches_of_one_key_are_told_apart_by_their_order():
    """A task that deferred comes back before the end of its first half is seen: each has its own end."""
    x, executor = engine()
    task = make_task()
    x.submit([job(1, task)])
    x.poll()
    x.submit([job(2, task)])
    finish(executor, task)
    assert typed(x.poll()[:1]) == typed([Ended(1, Outcome.SUCCESS, None, "", (SUCCESS, None))])
    finish(executor, task)
    assert [event.dispatch for event in x.poll()] == [2]


def test_a_second_dispatch_whose_end_was_taken_for_that_of_the_first_is_not_out_for_ever():
    """The first ends silently, the second before anybody has looked at it, under the key that both have."""
    clock = Clock()
    x, executor = engine(clock=clock)
    task = make_task()
    x.submit([job(1, task)])
    x.poll()
    clock.now += 2
    x.poll()
    x.submit([job(2, task)])
    x.poll()
    finish(executor, task)
    assert [event.dispatch for event in x.poll()] == [1]
    ends = []
    for _ in range(4):
        clock.now += 2
        ends += x.poll()
    assert typed(ends) == typed([Ended(2, Outcome.FAILED, None, "the executor does not know it any more")])


def test_events_about_nothing_of_ours_are_ignored():
    """An executor may speak of what it found elsewhere."""
    x, executor = engine()
    finish(executor, make_task())
    assert x.poll() == []


# What lies, drops or counts wrong


def test_a_key_that_it_drops_without_an_event_has_ended():
    """The second witness; whether the task had begun, the database knows."""
    clock = Clock()
    x, executor = engine(clock=clock)
    x.submit([job(1), job(2)])

    def polls(number: int) -> list[Any]:
        events = []
        for _ in range(number):
            clock.now += 1
            events += x.poll()
        return events

    polls(3)
    executor.running.remove(airflow_api.workload_key(executor, executor.sent[0]))
    ends = polls(6)
    assert typed(ends) == typed([Ended(1, Outcome.FAILED, None, "the executor does not know it any more")])


def test_one_that_never_says_what_runs_is_believed():
    """Airflow's LocalExecutor up to 3.3 has nothing among its running ones."""
    x, executor = engine()
    executor._process_workloads = lambda items: [airflow_api.forget_queued(executor, item) for item in items]
    x.submit([job(1)])
    assert typed([event for _ in range(9) for event in x.poll()]) == typed([Sent(1)])


class CountsTwice(Plain):
    """Open slots are what is left of parallelism after what runs was taken off twice."""

    @property
    def slots_occupied(self) -> int:
        return 2 * len(self.running)

    if AIRFLOW_V_3_4_PLUS:

        def trigger_workloads(self, open_slots: int) -> None:
            base: Any = super()
            base.trigger_workloads(open_slots - len(self.running))

    else:

        def trigger_tasks(self, open_slots: int) -> None:
            super().trigger_tasks(open_slots - len(self.running))


def test_one_that_counts_what_runs_twice_uses_all_its_slots():
    """Its own parallelism is not what holds it back."""
    x, executor = engine(CountsTwice, slots=4)
    for number in range(4):
        x.submit([job(number)])
        x.poll()
    assert len(executor.sent) == 4
