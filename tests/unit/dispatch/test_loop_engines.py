# SPDX-License-Identifier: Apache-2.0
"""The loop and its engines: their lanes, what they tidy, what they do wrong, and the metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.lifecycle.builders import route

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import task_ref
from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle.events import Broken, Offered, Recovered, Room
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.testing import make_task
from tests.unit.dispatch import loop_house
from tests.unit.dispatch.loop_house import House


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
    monkeypatch.setattr(loop_house, "ForeignEngine", Laned)
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
    house.finish("b", one)
    house.loop.engines["a"].poll = lambda: ["nonsense"]  # type: ignore[method-assign,list-item,return-value]
    house.beat(2)
    assert house.told() == {house.key(one): "success"}
