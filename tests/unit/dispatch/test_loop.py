# SPDX-License-Identifier: Apache-2.0
"""The loop: it does what the machine wants, and tells it and Airflow what came of that."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from unit.lifecycle.builders import route

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import task_ref
from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.lifecycle.events import BackendRules, Offered
from airflow_dispatch_provider.lifecycle.states import GONE, Row, RowState, State
from airflow_dispatch_provider.testing import make_task
from tests.unit.dispatch.loop_house import FINISHED, House


def test_from_queue_to_event():
    """In one heartbeat decided, recorded and sent; with its end the slot is free again; told once the row says so."""
    house, one, two = House(route("*", "a")), make_task(priority=9), make_task()
    house.queue(two, one).beat()
    assert house.given("a") == [one.ti.task_id]
    assert house.surface.rows == [(house.key(one), "a")]
    house.finish("a", one)
    house.beat()
    assert house.told() == {}
    house.beat()
    assert house.told() == {house.key(one): "success"}
    assert house.given("a") == [one.ti.task_id, two.ti.task_id]


def test_what_cannot_be_prepared_is_sent_later():
    """The rest of the batch is sent, once; the one alone waits for its next try."""
    house, bad, good = House(route("*", "a")), make_task(priority=9), make_task()
    house.surface.unprepared = bad
    house.queue(bad, good).beat(2, passed=0.1)
    assert house.given("a") == [good.ti.task_id]
    assert house.loop.machine.state(house.key(bad)) is State.HELD


def test_failed_before_it_began_is_launched_again():
    """The executor says failed, the database that it is queued: no event, another launch, and no try used."""
    house, one = House(route("*", "a")), make_task()
    house.queue(one).beat()
    house.executors["a"].finish(one, success=False, info="no memory")
    house.beat(5)
    assert house.told() == {}
    assert house.given("a") == [one.ti.task_id, one.ti.task_id]


def test_a_backend_that_breaks_gives_back_what_it_has_not_sent():
    """The next target has it in the next heartbeat."""
    house, one = House(), make_task()
    house.executors["a"].failing["heartbeat"] = OSError("away")
    house.queue(one).beat(3)
    assert (house.given("a"), house.given("b")) == ([], [one.ti.task_id])


def test_what_is_over_in_the_database_is_released():
    """Held or out: within two looks, the slot is free."""
    house, out, held = House(route("*", "a"), look_every=30), make_task(priority=9), make_task()
    house.queue(out, held).beat()
    house.clerk.rows = {house.key(out): GONE, house.key(held): GONE}
    house.beat(70)
    assert len(house.loop.machine) == 0
    assert house.loop.machine.slots_used == {"a": 0, "b": 0}


def test_what_waits_is_refreshed():
    """By the clerk, for as long as it is held."""
    house, out, held = House(route("*", "a"), refresh_every=10), make_task(priority=9), make_task()
    house.queue(out, held).beat(12)
    assert house.clerk.refreshed == [house.key(held)]


def test_revoked():
    """Held or sent, it is gone, and its slot is free."""
    house, out, held = House(route("*", "a")), make_task(priority=9), make_task()
    house.queue(out, held).beat()
    assert house.loop.revoke(house.key(held), house.now)
    assert house.loop.revoke(house.key(out), house.now)
    house.beat()
    assert len(house.loop.machine) == 0
    assert house.loop.machine.slots_used["a"] == 0


def test_what_cannot_be_revoked_is_left_waiting():
    """Airflow is told so, which leaves the task alone."""
    house, one = House(route("*", "a"), rules={"a": BackendRules(revokes=False)}), make_task()
    house.queue(one).beat(2)
    assert not house.loop.revoke(house.key(one), house.now)
    assert house.key(one) in house.loop.machine


@pytest.mark.parametrize("dead", [False, True])
def test_an_executor_that_says_only_then_that_it_cannot_revoke(dead):
    """Its class seemed able to: Airflow is told at once, and leaves the task alone; what it gave up is forgotten."""
    house, one = House(route("*", "a")), make_task()

    def cannot(ti: Any) -> None:
        raise NotImplementedError

    house.executors["a"].revoke_task = cannot  # type: ignore[method-assign]
    house.queue(one).beat(2)
    if dead:
        house.loop.give_up(house.key(one), house.now)
    else:
        assert not house.loop.revoke(house.key(one), house.now)
    assert (house.key(one) in house.loop.machine) is not dead
    assert house.loop.machine.slots_used["a"] == (not dead)


def test_what_was_let_go_is_forgotten_by_its_engine():
    """Another scheduler has the task; no engine keeps for ever whose end nobody tells."""
    house, one = House(route("*", "a")), make_task()
    house.queue(one).beat()
    house.clerk.rows[house.key(one)] = Row(RowState.RUNNING, mine=False)
    house.beat(40)
    assert "out 1" in repr(house.loop.engines["a"])
    house.beat(60)
    assert "out 0" in repr(house.loop.engines["a"])
    assert "revoke_task" not in house.executors["a"].calls


def test_adopted_or_put_back():
    """The backend by evidence has it, or the database gets it back as scheduled."""
    house, mine, nobodys = House(), make_task().ti, make_task().ti
    house.executors["a"].adoptable = {mine.id}
    for ti in (mine, nobodys):
        key = airflow_api.task_key(house.executors["a"], ti)
        house.loop.offer(Offered(key, task_ref(make_task()), False, "a", (), ti), house.now)
    house.beat(4)
    (key,) = house.loop.machine
    assert house.loop.machine.state(key) is State.SENT
    assert len(house.clerk.returned) == 1


def test_one_event_for_a_key_at_a_time():
    """A terminal event that Airflow has not taken yet is not replaced."""
    house, one = House(route("*", "a")), make_task()
    house.queue(one).beat()
    house.finish("a", one)
    house.beat(2)
    house.queue(one).beat()
    house.finish("a", one, info="the second")
    house.beat(2)
    assert house.buffer[house.key(one)][1] is None
    house.told()
    house.beat()
    assert house.buffer[house.key(one)][1] == "the second"


def test_stop_tells_what_is_still_said():
    """Ends come with the end; what was not sent is held again, for whoever takes over."""
    house, one = House(route("*", "a")), make_task()
    house.queue(one).beat()
    house.finish("a", one)
    house.loop.stop(inf, house.buffer)
    assert house.told() == {house.key(one): "success"}
    assert house.executors["b"].calls[-1] == "end"


def test_what_is_not_sent_is_asked_back_before_an_engine_is_waited_for(monkeypatch):
    """Meanwhile another one would start what it was given ahead."""
    house, one, calls = House(route("*", "a")), make_task(), []
    a, b = house.loop.engines["a"], house.loop.engines["b"]
    monkeypatch.setattr(a, "submit", lambda jobs: None)
    monkeypatch.setattr(a, "withdraw", lambda numbers: calls.append(("withdraw", *numbers)) or set(numbers))
    monkeypatch.setattr(b, "stop", lambda deadline: calls.append(("stop",)) or set())
    house.queue(one).beat()
    house.loop.stop(inf, house.buffer)
    assert calls[:2] == [("withdraw", 1), ("stop",)]
    assert house.loop.machine.state(house.key(one)) is State.HELD


@pytest.mark.parametrize(
    ("has_ended", "end", "seconds"),
    [
        (True, lambda house: house.loop.stop(inf, house.buffer), 5.0),
        (False, lambda house: house.loop.stop(inf, house.buffer), 0.0),
        (True, lambda house: house.loop.terminate(house.buffer), 0.0),
    ],
)
def test_the_database_is_waited_for_where_it_decides_what_airflow_is_told(has_ended, end, seconds):
    """A task has ended, and nobody has said yet whether that was all of it; and never at ``terminate``."""
    house, one, two = House(route("*", "a")), make_task(), make_task()
    house.clerk.is_mute = True
    house.queue(one, two).beat()
    if has_ended:
        house.finish("a", one)
    end(house)
    assert house.clerk.patience == [seconds]


def test_nothing_is_submitted_after_the_stop():
    """Airflow may call once more; what is still to be told, it is told."""
    house, one, two = House(route("*", "a")), make_task(priority=9), make_task()
    house.queue(one, two).beat()
    house.finish("a", one)
    house.loop.stop(inf, house.buffer)
    house.beat(3)
    assert house.given("a") == [one.ti.task_id]
    assert house.told() == {house.key(one): "success"}
    assert house.surface.rows == [(house.key(one), "a")]
    assert house.loop.machine.state(house.key(two)) is State.HELD


def test_one_action_that_fails_loses_no_other(caplog):
    """The next ones are done all the same; it is said once, and what it was about is not lost."""
    house, one, two = House(route("a", "a"), route("b", "b")), make_task("a"), make_task("b")

    def fails(jobs: Any) -> None:
        raise RuntimeError("no memory")

    house.loop.engines["a"].submit = fails  # type: ignore[method-assign]
    house.queue(one, two).beat(3)
    assert house.given("b") == [two.ti.task_id]
    assert house.key(one) in house.loop.machine
    assert house.told() == {}
    lines = [
        record
        for record in caplog.records
        if "Submit of backend 'a' could not be done." in record.getMessage()
    ]
    assert [line.levelname for line in lines] == ["ERROR"]


def test_jobs_are_taken_back_from_an_engine_that_fails_over_some_of_them():
    """Those that it has not sent are given to the next one; it forgets the others, of which the database will tell."""
    house = House(route("*", "a"))
    tasks = [make_task() for _ in range(2)]
    engine = house.loop.engines["a"]
    submit, forgotten = engine.submit, []

    def fails(jobs: Any) -> None:
        engine.submit = submit  # type: ignore[method-assign]
        submit(jobs[:1])
        raise RuntimeError("no memory")

    engine.slots = 2
    engine.submit = fails  # type: ignore[method-assign]
    engine.forget = forgotten.append  # type: ignore[method-assign]
    house.queue(*tasks).beat()
    assert house.given("a") == []
    assert len(forgotten) == 1
    house.beat(3)
    assert sorted(house.given("a")) == sorted(each.ti.task_id for each in tasks)


@pytest.mark.parametrize("method", ["poll", "room"])
def test_an_engine_that_raises_costs_no_other_its_news(method):
    """Ends of the others are told, and their slots are free, as if nothing were wrong."""
    house, one = House(route("*", "b")), make_task()
    house.queue(one).beat()
    house.finish("b", one)

    def fails() -> Any:
        raise RuntimeError("a bug")

    setattr(house.loop.engines["a"], method, fails)
    house.beat(2)
    assert house.told() == {house.key(one): "success"}


def test_an_event_that_cannot_be_made_costs_no_other():
    """Airflow is told the rest."""
    house, one, two = House(), make_task(priority=9), make_task()
    house.queue(one, two).beat()
    house.finish("a", one)
    house.finish("b", two)
    value_of = house.surface.value_of
    house.surface.value_of = lambda action: value_of(action) if action.key == house.key(two) else 1 / 0  # type: ignore[method-assign]
    house.beat(2)
    assert house.told() == {house.key(two): "success"}


def test_slow_heartbeats_of_engines_are_no_silence():
    """Three of them take longer than a scheduler may be silent for, and each is heard of: nothing has to be asked."""
    house = House(route("*", "a"), paused_after=25)
    house.clerk.rows = {}
    for executor in house.executors.values():
        executor.heartbeat = lambda beat=executor.heartbeat: (setattr(house, "now", house.now + 20), beat())  # type: ignore[method-assign]
    one, two = make_task(priority=9), make_task()
    house.queue(one, two).beat(2, passed=0.1)
    house.executors["a"].finish(one)
    house.beat(passed=0.1)
    assert house.given("a") == [one.ti.task_id]
    house.beat(passed=0.1)
    assert house.given("a") == [one.ti.task_id, two.ti.task_id]


def test_an_engine_never_sees_another_ones_numbers():
    """Numbers are given once, over all backends."""
    seen: list[int] = []
    house = House(route("a", "a"), route("b", "b"))
    for engine in house.loop.engines.values():
        submit = engine.submit

        def note(jobs: Any, submit: Any = submit) -> None:
            seen.extend(job.dispatch for job in jobs if isinstance(job, Job))
            submit(jobs)

        engine.submit = note  # type: ignore[method-assign]
    house.queue(make_task("a"), make_task("b")).beat(3)
    assert sorted(seen) == [1, 2]


@pytest.mark.parametrize("steps", [200])
def test_nothing_leaks(steps):
    """Hundreds of tasks through two slots: every one is told once, and no slot is lost."""
    house, ended = House(), []
    house.clerk.others = FINISHED
    for _ in range(steps):
        house.queue(make_task()).beat()
        for executor in house.executors.values():
            executor.finish_all()
        house.beat(2)
        ended += house.told()
    assert len(ended) == len(set(ended)) == steps
    assert house.loop.machine.slots_used == {"a": 0, "b": 0}
