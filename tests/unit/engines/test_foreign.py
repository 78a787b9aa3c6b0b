# SPDX-License-Identifier: Apache-2.0
"""Executors of others as engines: whatever they do, each dispatch has its own end, and nothing is raised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api, executor_classes
from airflow_dispatch_provider.bridge.executor_classes import make_executor
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    CannotRevoke,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import InMemoryExecutor
from airflow_dispatch_provider.testing.workloads import make_callback, make_task

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


class Plain(BaseExecutor):
    """As little as Airflow asks for: it sends what it is told to, and revokes nothing."""

    failing: Any = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent: list[Any] = []

    def start(self) -> None:
        self.fail_in("start")

    def fail_in(self, method: str) -> None:
        if method in self.failing:
            raise OSError(f"no {method}")

    def heartbeat(self) -> None:
        self.fail_in("heartbeat")
        super().heartbeat()

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            airflow_api.forget_queued(self, workload)
            self.sent.append(workload)
            self.running.add(airflow_api.workload_key(self, workload))

    def get_event_buffer(self, dag_ids: Any = None) -> Any:
        self.fail_in("get_event_buffer")
        return super().get_event_buffer(dag_ids)

    def end(self) -> None:
        self.fail_in("end")


class Revoking(Plain):
    def revoke_task(self, *, ti: Any) -> None:
        self.fail_in("revoke_task")
        self.revoked = (ti.task_id, ti.queued_by_job_id)
        self.running.discard(airflow_api.task_key(self, ti))


class Picky(Plain):
    """Hands work over itself, and does not take everything."""

    def queue_workload(self, workload: Any, session: Any) -> None:
        if workload.ti.queue == "poison":
            raise ValueError("not this one")
        self.running.add(airflow_api.workload_key(self, workload))


class Poisoned(Plain):
    """Its heartbeat raises as long as it is to send a certain job."""

    def _process_workloads(self, workload_items: Any) -> None:
        if any(workload.ti.queue == "poison" for workload in workload_items):
            raise ValueError("not this one")
        super()._process_workloads(workload_items)


class Loses(Plain):
    """Its heartbeat raises over a certain job after it has taken it out of its queue."""

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            airflow_api.forget_queued(self, workload)
            if workload.ti.queue == "poison":
                raise ValueError("not this one")
            super()._process_workloads([workload])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine(cls: Any = Plain, slots: int = 4, clock: Any = None, **failing: Any) -> tuple[ForeignEngine, Any]:
    executor = cls(parallelism=slots)
    made = ForeignEngine("x", lambda: executor, slots, clock=clock or Clock())
    made.start("77")
    return made, executor


def job(number: int, workload: Any = None) -> Job:
    workload = workload or make_task()
    return Job(number, airflow_api.workload_key(Plain, workload), workload)


def typed(events: Any) -> Any:
    """Events of two types may have equal parts."""
    return [(type(event), event) for event in events]


def finish(executor: Any, workload: Any, state: Any = SUCCESS, info: Any = None) -> None:
    executor.change_state(airflow_api.workload_key(executor, workload), state, info)


# From submission to end


def test_submitted_sent_ended():
    """Sent when it has left the base class's queue, ended with the executor's own event value."""
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
    assert typed(x.poll()) == typed(
        [Rejected(2, "ValueError: not this one"), Sent(1), Sent(3), Recovered("x")]
    )
    assert x.room().unavailable is None


def test_one_job_over_which_its_heartbeat_fails_is_to_blame_itself():
    """A heartbeat without it works: it is rejected with the reason, and the executor is not in trouble."""
    x, _ = engine(Poisoned)
    x.submit([job(1, make_task("poison"))])
    assert typed(x.poll()) == typed([Rejected(1, "ValueError: not this one"), Recovered("x")])
    assert x.room().unavailable is None


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


# Taking back


def test_what_lies_untouched_in_the_base_class_is_withdrawn():
    """It was certainly not sent; what was, is not returned."""
    x, executor = engine()
    x.submit([job(1)])
    x.poll()
    x.submit([job(2)])
    assert x.withdraw([1, 2, 3]) == {2}
    assert x.poll() == []
    assert len(executor.sent) == 1


def test_one_with_its_own_way_of_queueing_gives_nothing_back():
    """Where it put the work, nobody knows."""
    x, _ = engine(Picky)
    x.submit([job(1)])
    assert x.withdraw([1]) == set()


def test_revoked():
    """When ``revoke_task`` has returned, the executor has forgotten it; it is told who queued the task."""
    x, executor = engine(Revoking)
    one = job(1)
    x.submit([one])
    x.poll()
    x.revoke(1)
    assert typed(x.poll()) == typed([Ended(1, Outcome.FAILED, None, "revoked")])
    assert executor.revoked == (one.workload.ti.task_id, "77")


def test_what_it_has_not_sent_needs_no_revoke():
    """Taken out of its queue, also where it cannot revoke."""
    x, _ = engine()
    x.submit([job(1)])
    x.revoke(1)
    assert typed(x.poll()) == typed([Returned(1)])


def test_one_that_cannot_revoke_says_so():
    """For each that it is asked to stop; the job stays its own."""
    x, executor = engine()
    one = job(1)
    x.submit([one])
    x.poll()
    assert typed([x.revoke(1)]) == typed([CannotRevoke(1)])
    assert x.poll() == []
    finish(executor, one.workload)
    assert [type(event) for event in x.poll()] == [Ended]


def test_what_is_over_is_not_killed():
    """It may still be writing its log; its number is forgotten, and nothing more is said of it."""
    x, executor = engine(Revoking)
    one = job(1)
    x.submit([one])
    x.poll()
    x.revoke(1, over=True)
    finish(executor, one.workload)
    assert (hasattr(executor, "revoked"), x.poll()) == (False, [])


def test_what_is_forgotten_is_not_killed():
    """Nothing more is said of it; one that was not sent is not sent."""
    x, executor = engine(Revoking)
    one, two = job(1), job(2)
    x.submit([one])
    x.poll()
    x.submit([two])
    x.forget(1)
    x.forget(2)
    finish(executor, one.workload)
    sent = [workload.ti.id for workload in executor.sent]
    assert (hasattr(executor, "revoked"), x.poll(), sent) == (False, [], [one.workload.ti.id])
    x.forget(9)
    assert "out 0" in repr(x)


def test_one_with_a_later_dispatch_of_its_key_is_not_forgotten():
    """The executor knows one key for both: the end of the first is not that of the second."""
    x, executor = engine()
    one = job(1)
    x.submit([one])
    x.poll()
    x.submit([one._replace(dispatch=2)])
    x.poll()
    x.forget(1)
    finish(executor, one.workload)
    assert [event.dispatch for event in x.poll() if isinstance(event, Ended)] == [1]


def test_unknown_numbers_are_no_error():
    """A job that has ended meanwhile may still be revoked or withdrawn; its slot need not wait for anything."""
    x, _ = engine()
    assert (x.withdraw([9]), x.revoke(9), x.revoke(8, over=True)) == (set(), None, None)
    assert typed(x.poll()) == typed([Unknown(9)])


# Adoption


def test_adoption_is_answered_for_each():
    """It has all that it does not return; it is asked as soon as it works."""
    clock = Clock()
    x, executor = engine(clock=clock)
    mine, other = (SimpleNamespace(id=n, key=("dag", n), state="running") for n in (1, 2))
    executor.get_task_key = lambda ti: ti.key
    executor.try_adopt_task_instances = lambda tis: [ti for ti in tis if ti is other]
    x.adopt([Found(1, "k1", mine, True), Found(2, "k2", other, True)])
    executor.failing = ("heartbeat",)
    assert x.poll() == []
    executor.failing = ()
    clock.now += 60
    assert typed(x.poll()) == typed([Adopted(1), Unknown(2)])


def test_adoption_that_raises_is_asked_again():
    """Not answered is not unknown."""
    clock = Clock()
    x, executor = engine(clock=clock)

    def away(tis: Any) -> Any:
        raise OSError("away")

    executor.try_adopt_task_instances = away
    ti = SimpleNamespace(id=1, key=("dag", 1))
    executor.get_task_key = lambda ti: ti.key
    x.adopt([Found(1, "k", ti, True)])
    assert [event for _ in range(3) for event in x.poll()] == []
    executor.try_adopt_task_instances = lambda tis: []
    clock.now += 60
    assert typed([event for _ in range(3) for event in x.poll()]) == typed([Adopted(1)])


def test_adoption_that_fails_for_one_task_costs_no_other(caplog):
    """Each is asked about alone then; the executor goes on working, and in the end does not have that one."""
    clock = Clock()
    x, executor = engine(clock=clock)
    tis = [SimpleNamespace(id=n, key=("dag", n)) for n in range(4)]

    def adopt(asked: Any) -> Any:
        if tis[2] in asked:
            raise OSError("not this one")
        return [ti for ti in asked if ti is tis[3]]

    executor.try_adopt_task_instances, executor.get_task_key = adopt, lambda ti: ti.key
    x.adopt([Found(n, n, ti, True) for n, ti in enumerate(tis)])
    events: list[Any] = []
    for number in range(9):
        x.submit([job(10 + number)])
        events += x.poll()
        assert x.room().unavailable is None
        clock.now += 20
    assert [e for e in events if isinstance(e, Adopted)] == [Adopted(0), Adopted(1)]
    assert [e for e in events if isinstance(e, Unknown)] == [Unknown(3), Unknown(2)]
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("answer", [7, None])
def test_an_odd_answer_about_adoption_ends_nothing(answer):
    """It is no list of tasks; the executor goes on working."""
    x, executor = engine()
    executor.try_adopt_task_instances, executor.get_task_key = lambda tis: answer, lambda ti: ti.key
    x.adopt([Found(1, "k", SimpleNamespace(id=1, key=("dag", 1)), True)])
    x.submit([job(2)])
    assert Sent(2) in x.poll()


def test_a_key_that_cannot_be_made_costs_no_other_its_adoption():
    """The key is the executor's own affair, too."""
    x, executor = engine()
    tis = [SimpleNamespace(id=1), SimpleNamespace(id=2, key=("dag", 2))]
    executor.try_adopt_task_instances, executor.get_task_key = lambda asked: [], lambda ti: ti.key
    x.adopt([Found(n, n, ti, True) for n, ti in enumerate(tis)])
    assert [event for _ in range(3) for event in x.poll()] == [Adopted(1)]


# Failing


def test_a_start_that_fails_is_tried_again(caplog):
    """After growing delays; meanwhile it has no room, and says why."""
    clock = Clock()
    executor = Plain(parallelism=4)
    executor.failing = ("start",)
    x = ForeignEngine("x", lambda: executor, 4, clock=clock)
    x.start("77")
    assert x.room().slots == 0
    assert x.room().unavailable == "OSError: no start"
    x.submit([job(1)])
    assert typed(x.poll()) == typed([Returned(1, "not started")])
    executor.failing = ()
    assert x.poll() == []
    clock.now += 60
    x.poll()
    assert (x.room().slots, x.room().unavailable) == (4, None)
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("method", ["heartbeat", "get_event_buffer"])
def test_one_that_raises_is_left_alone_for_a_while(method, caplog):
    """It takes nothing, is said to be broken once, and works again after a success."""
    clock = Clock()
    x, executor = engine(clock=clock)
    executor.failing = (method,)
    for _ in range(20):
        x.poll()
        clock.now += 1
    assert x.room().unavailable == f"OSError: no {method}"
    executor.failing = ()
    clock.now += 60
    x.poll()
    assert x.room().unavailable is None
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1


def test_an_executor_that_ends_the_process_does_not():
    """``sys.exit`` in somebody's hook is a failure like any other."""
    x, executor = engine()

    def leave() -> None:
        raise SystemExit(1)

    executor.heartbeat = leave
    assert x.poll() == []
    assert "SystemExit" in str(x.room().unavailable)


def test_revoke_that_raises_is_no_answer():
    """It is neither stopped nor said to go on; the machine frees its slot after a while."""
    x, executor = engine(Revoking)
    x.submit([job(1)])
    x.poll()
    executor.failing = ("revoke_task",)
    x.revoke(1)
    assert x.poll() == []


def test_stop_returns_what_was_not_sent():
    """An ``end`` that raises ends nothing else."""
    x, executor = engine()
    done = job(1)
    x.submit([done])
    x.poll()
    executor.failing = ("end", "heartbeat")
    x.submit([job(2)])
    assert x.stop(0.0) == {2}
    finish(executor, done.workload)
    executor.sent.clear()
    assert [event.dispatch for event in x.poll()] == [1]
    assert executor.sent == []


def test_nothing_starts_before_start():
    """Being asked is no reason to be made."""
    x = ForeignEngine("x", lambda: pytest.fail("made"), 4)
    assert x.room().unavailable == "not started"
    assert x.stop(0.0) == set()
    assert "out 0" in repr(x)


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
