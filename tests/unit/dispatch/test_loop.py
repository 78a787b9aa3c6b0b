# SPDX-License-Identifier: Apache-2.0
"""The dispatch loop over executors as engines: what the machine wants done is done, and what happens reaches it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from unit.lifecycle.builders import route, settings

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import BackendRules, Broken, Offered, Recovered, Room, Rows
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome, Row, RowState, State
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

QUEUED = Row(RowState.QUEUED)
STATES = {Outcome.SUCCESS: TaskInstanceState.SUCCESS, Outcome.FAILED: TaskInstanceState.FAILED}


class Clerk(InMemoryClerk):
    """A task that it was told nothing about is queued."""

    def look_up(self, asked: int, ids: Any) -> None:
        self._answers.append(Rows(asked, {key: self.rows.get(key, QUEUED) for key in ids}))


class Surface:
    def __init__(self) -> None:
        self.rows: list[tuple[Any, str]] = []
        self.unprepared: Any = None

    def prepare(self, dispatch: Any, backend: str) -> Any:
        if dispatch.workload is self.unprepared:
            raise ValueError("no token")
        return dispatch.workload

    def dispatched(self, backend: str, dispatches: Any) -> None:
        self.rows += [(each.key, backend) for each in dispatches]

    def record(self, key: Any, word: str, detail: str) -> None: ...

    def value_of(self, action: Any) -> Any:
        if isinstance(action, actions.EmitId):
            return TaskInstanceState.QUEUED, action.info
        return action.value or (STATES[action.how], action.info)


class House:
    """A loop over in-memory executors a and b, one slot each, and Airflow's side of it."""

    def __init__(self, *routes: Any, **options: Any) -> None:
        self.executors = {name: InMemoryExecutor(parallelism=1) for name in ("a", "b")}
        self.now, self.clerk, self.surface = 0.0, Clerk(), Surface()
        self.buffer: dict[Any, Any] = {}
        engines = {
            name: ForeignEngine(name, lambda made=made: made, 1, clock=lambda: self.now)
            for name, made in self.executors.items()
        }
        self.loop = Loop(
            Machine(settings(*routes, **options)), engines, self.clerk, self.surface, lambda: self.now
        )
        self.loop.start("1", self.now)

    def key(self, workload: Any) -> Any:
        return airflow_api.workload_key(self.executors["a"], workload)

    def queue(self, *workloads: Any) -> House:
        for each in workloads:
            self.loop.queue(self.key(each), each, task_ref(each), priority_of(each), self.now)
        return self

    def beat(self, times: int = 1, passed: float = 1.0) -> House:
        for _ in range(times):
            self.now += passed
            self.loop.heartbeat(self.now, self.buffer)
        return self

    def given(self, name: str) -> list[str]:
        return [each.ti.task_id for each in self.executors[name].given]

    def told(self) -> dict[Any, Any]:
        told, self.buffer = dict(self.buffer), {}
        return {key: str(value[0]) for key, value in told.items()}


def test_from_queue_to_event():
    """In one heartbeat decided, recorded and sent; in the next told to Airflow, and the slot free again."""
    house, one, two = House(route("*", "a")), make_task(priority=9), make_task()
    house.queue(two, one).beat()
    assert house.given("a") == [one.ti.task_id]
    assert house.surface.rows == [(house.key(one), "a")]
    house.executors["a"].finish(one)
    house.beat()
    assert house.told() == {house.key(one): "success"}
    house.beat()
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
    house.executors["a"].finish(one)
    house.beat()
    house.queue(one).beat()
    house.executors["a"].finish(one, info="the second")
    house.beat()
    assert house.buffer[house.key(one)][1] is None
    house.told()
    house.beat()
    assert house.buffer[house.key(one)][1] == "the second"


def test_stop_tells_what_is_still_said():
    """Ends come with the end; what was not sent is held again, for whoever takes over."""
    house, one = House(route("*", "a")), make_task()
    house.queue(one).beat()
    house.executors["a"].finish(one)
    house.loop.stop(inf, house.buffer)
    assert house.told() == {house.key(one): "success"}
    assert house.executors["b"].calls[-1] == "end"


def test_nothing_is_submitted_after_the_stop():
    """Airflow may call once more; what is still to be told, it is told."""
    house, one, two = House(route("*", "a")), make_task(priority=9), make_task()
    house.queue(one, two).beat()
    house.executors["a"].finish(one)
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
    """Ends of the others are told, and their slots are free, in the same heartbeat."""
    house, one = House(route("*", "b")), make_task()
    house.queue(one).beat()
    house.executors["b"].finish(one)

    def fails() -> Any:
        raise RuntimeError("a bug")

    setattr(house.loop.engines["a"], method, fails)
    house.beat()
    assert house.told() == {house.key(one): "success"}


def test_an_event_that_cannot_be_made_costs_no_other():
    """Airflow is told the rest."""
    house, one, two = House(), make_task(priority=9), make_task()
    house.queue(one, two).beat()
    for executor in house.executors.values():
        executor.finish_all()
    value_of = house.surface.value_of
    house.surface.value_of = lambda action: value_of(action) if action.key == house.key(two) else 1 / 0  # type: ignore[method-assign]
    house.beat()
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
    for _ in range(steps):
        house.queue(make_task()).beat()
        for executor in house.executors.values():
            executor.finish_all()
        house.beat()
        ended += house.told()
    assert len(ended) == len(set(ended)) == steps
    assert house.loop.machine.slots_used == {"a": 0, "b": 0}


class Laned(ForeignEngine):
    """Its lanes are namespaces, which tasks name as their ids; ``full`` are full."""

    has_lanes = True
    full: tuple[str, ...] = ()
    tidied: Any = None

    def lane(self, workload: Any) -> str | None:
        return str(workload.ti.task_id.partition("-")[0])

    def room(self) -> Room:
        return replace(super().room(), closed=dict.fromkeys(self.full, "quota"))

    def tidy(self, living: Any) -> None:
        self.tidied = living


@pytest.fixture
def laned(monkeypatch) -> House:
    monkeypatch.setattr(f"{__name__}.ForeignEngine", Laned)
    return House(route("*", "a"))


def test_a_full_lane_holds_its_own_jobs_only(laned):
    """The engine is asked for the lane of a job when it is queued."""
    laned.loop.engines["a"].full = ("x",)
    laned.queue(make_task(task_id="x-1", priority=9), make_task(task_id="y-1")).beat()
    assert laned.given("a") == ["y-1"]
    laned.loop.engines["a"].full = ()
    laned.executors["a"].finish_all()
    laned.beat(2)
    assert laned.given("a") == ["y-1", "x-1"]


def test_an_engine_that_has_no_lanes_now_is_not_asked(laned, monkeypatch):
    """For each job that would cost time, also where another backend gets it."""
    engine = laned.loop.engines["a"]
    monkeypatch.setattr(engine, "has_lanes", False)
    monkeypatch.setattr(engine, "lane", lambda workload: pytest.fail("it was asked"))
    laned.queue(make_task(task_id="x")).beat()
    assert laned.given("a") == ["x"]


def test_an_engine_that_cannot_tell_a_lane_keeps_nothing_from_being_queued(laned, monkeypatch, caplog):
    """It is said once, and the job goes without."""
    monkeypatch.setattr(laned.loop.engines["a"], "lane", lambda workload: 1 / 0)
    laned.queue(make_task(task_id="x"), make_task(task_id="y")).beat()
    assert laned.given("a") == ["x"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_engines_tidy_up_when_it_is_known_which_schedulers_live(laned, monkeypatch):
    """At the first heartbeat, whatever the clock says, and then now and then."""
    engine = laned.loop.engines["a"]
    laned.beat()
    assert engine.tidied is None
    laned.clerk.living = {"1", "2"}
    laned.beat()
    assert engine.tidied is None
    laned.beat(passed=300.0)
    assert engine.tidied == {"1", "2"}
    engine.tidied = None
    laned.beat(passed=298.0)
    laned.beat(passed=1.0)
    assert engine.tidied is None
    laned.beat(passed=1.0)
    assert engine.tidied == {"1", "2"}


class Stats:
    """Notes what Airflow's metrics are told."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}
        self.counts: list[tuple[str, int, Any]] = []

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def incr(self, name: str, count: int = 1, *, tags: Any = None) -> None:
        self.counts.append((name, count, tags))


@pytest.fixture
def stats(monkeypatch) -> Stats:
    noted = Stats()
    monkeypatch.setattr("airflow_dispatch_provider.bridge.metrics.stats", lambda: noted)
    return noted


def test_each_backend_has_its_gauges(stats):
    """Free slots, what is out, and what waits for it first."""
    house = House(route("*", "a"))
    house.queue(make_task(), make_task(), make_task()).beat(2)
    house.loop.emit_metrics()
    assert stats.gauges == {
        "executor.open_slots.a": 0,
        "executor.running_tasks.a": 1,
        "executor.queued_tasks.a": 2,
        "executor.open_slots.b": 1,
        "executor.running_tasks.b": 0,
        "executor.queued_tasks.b": 0,
    }


def test_dispatches_are_counted_by_backend_and_reason(stats):
    """One count for each reason in a batch."""
    house = House(route("q", "a"), route("p", "b"))
    house.queue(make_task("q"), make_task("p")).beat()
    assert stats.counts == [
        (f"dispatch.dispatched.{name}", 1, {"backend": name, "reason": "first_choice"}) for name in ("a", "b")
    ]


def test_an_outage_is_counted_and_logged(stats, caplog):
    """As an error; its end is none."""
    caplog.set_level("INFO", "airflow_dispatch_provider.dispatch.loop")
    house = House()
    house.loop.tell(house.now, Broken("a", "no broker"))
    house.loop.tell(house.now, Recovered("a"))
    assert stats.counts == [("dispatch.failures.a", 1, {"backend": "a"})]
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["ERROR", "INFO"]
    assert lines[0][1].endswith(" no broker")
    assert lines[1][1] == "Backend 'a' has recovered after 1 failures."


def test_the_user_of_a_task_is_told_why_it_waits():
    """In the event log of the task, with the reason as a word and in a sentence."""
    house, one = House(route("*", "a")), make_task()
    told: list[Any] = []
    house.surface.record = lambda *row: told.append(row)  # type: ignore[method-assign]
    house.executors["a"].failing["heartbeat"] = OSError("away")
    house.queue(one).beat(35)
    ((key, word, detail),) = told
    assert (key, word) == (house.key(one), "waits_blocked")
    assert detail.startswith("a: ")
    assert "away" in detail


def fails(*_: Any) -> Any:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("poll", "The poll of backend 'a' could not be done."),
        ("room", "The question to backend 'a' for its room could not be done."),
        ("lane", "The question to backend 'a' for a lane could not be done."),
        ("adopt", "Adopt of backend 'a' could not be done."),
    ],
)
def test_what_fails_again_after_it_has_worked_is_said_again(laned, caplog, monkeypatch, method, said):
    """Once for each time that it fails in a row; with the error."""

    def happens() -> None:
        key = airflow_api.task_key(laned.executors["a"], make_task().ti)
        laned.loop.offer(Offered(key, task_ref(make_task()), False, "a", (), make_task().ti), laned.now)
        laned.queue(make_task(task_id="x")).beat(2)

    engine = laned.loop.engines["a"]
    works = getattr(engine, method)
    for calls in (fails, works, fails):
        monkeypatch.setattr(engine, method, calls)
        happens()
        happens()
    lines = [record for record in caplog.records if record.getMessage().startswith(said)]
    assert [line.levelname for line in lines] == ["ERROR", "ERROR"]
    assert "RuntimeError: a bug" in lines[0].getMessage()


def test_what_could_not_be_asked_for_adoption_is_put_back():
    """Whether the engine has it, nobody knows: the database tells."""
    house, ti = House(), make_task().ti
    house.loop.engines["a"].adopt = fails  # type: ignore[method-assign]
    key = airflow_api.task_key(house.executors["a"], ti)
    house.loop.offer(Offered(key, task_ref(make_task()), False, "a", (), ti), house.now)
    house.beat(4)
    assert house.clerk.returned == [key]


def test_an_engine_is_told_all_about_what_it_may_have():
    """The task instance as Airflow offered it, and whether it runs."""
    house, ti, found = House(), make_task().ti, []
    house.loop.engines["a"].adopt = found.extend  # type: ignore[method-assign]
    key = airflow_api.task_key(house.executors["a"], ti)
    house.loop.offer(Offered(key, task_ref(make_task()), True, "a", (), ti), house.now)
    house.beat()
    assert found == [Found(1, key, ti, True)]


def test_the_engines_are_stopped_last_first_and_by_the_deadline(monkeypatch):
    """Each is told the same deadline."""
    house, stopped = House(), []
    for name, engine in house.loop.engines.items():
        monkeypatch.setattr(
            engine, "stop", lambda deadline, name=name: stopped.append((name, deadline)) or ()
        )
    house.loop.stop(7.0, house.buffer)
    assert stopped == [("b", 7.0), ("a", 7.0)]


def test_terminate_ends_what_runs_and_waits_for_nothing(monkeypatch):
    """Engines that cannot are stopped as well."""
    house, ended = House(), []
    for name, engine in house.loop.engines.items():
        monkeypatch.setattr(engine, "stop", lambda deadline, name=name: ended.append((name, deadline)) or ())
    monkeypatch.setattr(
        house.loop.engines["a"], "terminate", lambda: ended.append(("a", "now")), raising=False
    )
    house.loop.terminate(house.buffer)
    assert ended == [("a", "now"), ("b", 0.0), ("a", 0.0)]


def test_an_engine_that_cannot_be_polled_is_left_alone():
    """Its backend counts as broken: jobs take the next target, but for the one that tries it."""
    house, tasks = House(route("*", "a", "b")), [make_task() for _ in range(3)]
    house.loop.engines["a"].slots = 3
    house.loop.engines["a"].poll = lambda: 1 / 0  # type: ignore[method-assign]
    house.beat().queue(*tasks).beat(3)
    assert house.loop.machine.circuit("a") is not CircuitState.CLOSED
    assert house.loop.machine.slots_used == {"a": 1, "b": 1}


def test_news_that_cannot_be_handled_cost_no_other_engine_its_own():
    """An engine of somebody else's may say anything."""
    house, one = House(route("*", "b")), make_task()
    house.queue(one).beat()
    house.executors["b"].finish(one)
    house.loop.engines["a"].poll = lambda: ["nonsense"]  # type: ignore[method-assign,list-item,return-value]
    house.beat()
    assert house.told() == {house.key(one): "success"}
