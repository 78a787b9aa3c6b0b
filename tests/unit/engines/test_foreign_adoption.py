# SPDX-License-Identifier: Apache-2.0
"""Executors of others as engines: what is taken back, adopted, and fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    CannotRevoke,
    Command,
    Ended,
    Order,
    Returned,
    Rows,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome, State
from tests.unit.engines.foreign_executors import (
    FAILED,
    Clock,
    Picky,
    Plain,
    Revoking,
    engine,
    finish,
    job,
    typed,
)
from tests.unit.lifecycle import builders
from tests.unit.lifecycle.builders import RUNNING, asked, machine, of

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


def test_what_was_recalled_and_began_all_the_same_is_kept():
    """Its executor, which adopts nothing, is not asked about what this engine has: its slot stays taken, and its end is
    heard."""
    x, executor = engine()
    m = machine()
    one = job(builders.number(m, 0, 1))
    x.submit([one])
    m.handle(1, *x.poll())
    recalled = asked(m.handle(2, Order(Command.RECALL, "a")), actions.PutBack)
    (wanted,) = of(m.handle(3, Rows(recalled.asked, {1: RUNNING})), actions.Adopt)
    x.adopt([Found(each.number, one.key, one.workload.ti, each.runs) for each in wanted.found])
    m.handle(4, *x.poll())
    assert (m.state(1), m.slots_used["a"]) == (State.RUNNING, 1)
    finish(executor, one.workload, FAILED)
    assert typed(x.poll()) == typed([Ended(one.dispatch, Outcome.FAILED, None, "", (FAILED, None))])
